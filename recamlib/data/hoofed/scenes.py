"""The embedded data set: scenes of horse, cow, sheep, zebra and giraffe drawn from a seed, with exact masks.

Confusable on purpose, as the toy study of Section 4.2 needs: one body plan, coats shared between classes,
class evidence spread over small parts, occlusion, and places and things that tell nothing about the class.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from recamlib.data.access import ImageSet, MaskSet
from recamlib.data.hoofed.animals import HOOFED_KINDS, OTHER_KINDS, Animal
from recamlib.data.hoofed.drawing import Frame, blob, line, noise, pick, polygon, smoothstep, wave
from recamlib.data.labels import HOOFED, LabelSpace
from recamlib.errors import DataError, SettingsError, check_choice

# sky above and at the horizon, hills, ground in two tones, leaves
PLACES = {
    "meadow": "#6098d6 #bed6e8 #587a5c #5c8a3e #8ea454 #345c2c",
    "savanna": "#78a8d6 #e2d8be #968a6e #bca060 #967846 #68703a",
    "barn": "#684c36 #7c5c42 #543e2e #ba9a5c #8e7042 #967c46",
}
THINGS = ("tree", "barrel", "fence")
OTHERS = LabelSpace("scenes", (*OTHER_KINDS, *THINGS))  # none of them is in `HOOFED`
MIN_VISIBLE, MIN_AREA = 0.3, 0.012  # an animal shows this share of its own outline, and of the image
_TRIES, _CACHE_BYTES = 16, 192 * 2**20


def scene_size(size: int) -> tuple[int, int]:
    """Return ``(H, W)`` of a scene: landscape 4 to 3, the height a multiple of 8."""
    return max(8, int(size * 0.75 / 8 + 0.5) * 8), size


class Scenery:
    """A place with its light and the things in it, drawn from a generator."""

    def __init__(self, draws: np.random.Generator) -> None:
        self.draws, self.name = draws, pick(draws, tuple(PLACES))
        colours = np.array([[*bytes.fromhex(c[1:])] for c in PLACES[self.name].split()], np.float32) / 255
        self.colours = colours * draws.uniform(0.88, 1.12, (6, 3)).astype(np.float32)
        self.horizon = draws.uniform(0.26, 0.5)  # share of the height
        self.light = draws.uniform(0.85, 1.1) * np.ones(3)
        if self.name != "barn" and draws.random() < 0.12:
            self.light = np.array([0.44, 0.5, 0.7])  # night

    def behind(self, frame: Frame) -> None:
        """Paint sky or wall, hills and ground."""
        height, width = frame.height, frame.width
        edge = round(self.horizon * height)
        x = (np.arange(width, dtype=np.float32)[None] + 0.5) / width
        y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
        up, down = y[:edge], y[edge:]
        tables = self.draws.random((2, 16, 16), np.float32)
        top, low, hills, first, second, _ = self.colours
        sky = top + (up / self.horizon)[:, :, None] * (low - top)  # (h, 1, 3)
        if self.name == "barn":
            gap = smoothstep((wave(x * self.draws.uniform(8, 14)) - 0.86) * 9)
            sky = sky * (1 - 0.45 * gap)[:, :, None]
        else:
            clouds = smoothstep(noise(tables[0], x * 4, up * 9) * 2.2 - self.draws.uniform(0.9, 1.6))
            sky = sky + 0.5 * clouds[:, :, None] * (np.float32(0.95) - sky)
            sky[up > self.horizon - 0.15 * noise(tables[1], x * 6, y[:1])] = hills
        frame.fill(slice(0, edge), slice(0, width), sky)
        depth = (down - self.horizon) / (1 - self.horizon)
        rough = noise(tables[1], x * 9, down * 22) * (0.5 + 0.5 * depth)  # (H - h, W)
        ground = (first + rough[:, :, None] * (second - first)) * (1.05 - 0.2 * depth)[:, :, None]
        frame.fill(slice(edge, height), slice(0, width), ground)

    def thing(self, frame: Frame, kind: str, x: float, foot: float, size: float, *, owner: int = 0) -> None:
        """Paint one of `THINGS` with its foot at a point; `size` in pixels."""
        draws = self.draws
        if kind == "tree":
            tall, flat = size * draws.uniform(1.1, 1.7), draws.random() < 0.4
            bark = np.array([0.36, 0.27, 0.2]) * draws.uniform(0.8, 1.2)
            frame.paint(line([(x, foot), (x, foot - tall)], [0.09 * size, 0.05 * size]), bark, owner=owner)
            for _ in range(4):
                at = x + size * draws.uniform(-0.35, 0.35), foot - tall + size * draws.uniform(-0.2, 0.15)
                r = size * draws.uniform(0.26, 0.4)
                leaves = self.colours[5] * draws.uniform(0.8, 1.2)
                frame.paint(blob(*at, *((1.5 * r, 0.45 * r) if flat else (r, 0.9 * r))), leaves, owner=owner)
        elif kind == "barrel":  # has rings: stripes alone must not be evidence for a zebra
            tones = np.array([(60, 98, 150), (170, 70, 52), (214, 212, 204), (74, 74, 78)]) / 255
            tone, ring = tones[draws.permutation(4)[:2]]
            rings = 2 * int(draws.integers(2, 5)) - 1
            for i in range(rings):
                low, high = foot - 0.6 * size * i / rings, foot - 0.6 * size * (i + 1) / rings
                left, right = x - 0.2 * size, x + 0.2 * size
                part = polygon([(left, high), (right, high), (right, low), (left, low)])
                frame.paint(part, (tone, ring)[i % 2], owner=owner)
        else:
            wood = np.array(pick(draws, ((132, 104, 76), (216, 212, 204)))) / 255 * draws.uniform(0.85, 1.15)
            left, wide = x - size * draws.uniform(0.5, 0.9), size * draws.uniform(1, 1.8)
            for up in (0.28, 0.5):
                rail = line([(left, foot - up * size), (left + wide, foot - up * size)], [0.03 * size] * 2)
                frame.paint(rail, wood, owner=owner)
            for i in range(4):
                at = left + wide * i / 3
                post = line([(at, foot), (at, foot - 0.62 * size)], [0.04 * size] * 2)
                frame.paint(post, wood, owner=owner)

    def finish(self, frame: Frame) -> np.ndarray:
        """Return the image in its light and with its grain, shape ``(H, W, 3)``, uint8."""
        image = frame.image() * self.light.astype(np.float32)
        image += 13 * self.draws.random((frame.height, frame.width, 1), np.float32) - 6.5
        return np.clip(image, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class _Scene:
    """What chooses a scene."""

    space: LabelSpace
    seed: int
    stream: int
    index: int
    single_share: float

    def _draws(self, *key: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self.stream, self.index, *key))

    def kinds(self) -> list[int]:
        """Return the class of every object; the labels need nothing else."""
        draws = self._draws(0)
        if self.space is OTHERS:
            return [int(draws.integers(len(OTHERS)))]
        order = draws.permutation(len(self.space)).tolist()
        if draws.random() < self.single_share:
            return [order[0]] * (2 if draws.random() < 0.3 else 1)
        return order[: 3 if draws.random() < 0.1 else 2]

    def draw(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return image ``(H, W, 3)`` and mask ``(H, W)``, both uint8."""
        kinds = self.kinds()
        for attempt in range(_TRIES):
            frame, scenery, outlines = self._paint(kinds, height, width, attempt)
            owners = frame.owners()
            seen = np.bincount(owners.ravel(), minlength=len(kinds) + 1)[1:]
            if (seen >= np.maximum(MIN_VISIBLE * np.array(outlines), MIN_AREA * owners.size)).all():
                values = np.array([0, *(kind + 1 for kind in kinds)], np.uint8)
                return scenery.finish(frame), values[owners]
        raise AssertionError(f"{self} could not be laid out")

    def _paint(self, kinds: list[int], height: int, width: int, attempt: int) -> tuple:
        """Return frame, scenery and outlines; in later attempts all stand further apart, nothing in front."""
        draws, early = self._draws(1, attempt), attempt < _TRIES // 2
        scenery, frame = Scenery(self._draws(2)), Frame(height, width)
        scenery.behind(frame)
        horizon, count = scenery.horizon * height, len(kinds)
        base = height * draws.uniform(0.52, 0.88) * (1.0, 0.95, 0.85)[count - 1]
        for _ in range(draws.integers(3)):  # behind the animals
            near = draws.uniform(0.02, 0.4)
            spot = width * draws.random(), horizon + near * (height - horizon), height * (0.18 + 0.3 * near)
            scenery.thing(frame, pick(draws, THINGS), *spot)
        spread, stands = (0.45 if early else 0.1) / max(count, 1.6), []
        for i, slot in enumerate(draws.permutation(count).tolist()):
            x = width * min(max((slot + 0.5) / count + draws.uniform(-spread, spread), 0.16), 0.84)
            near = draws.uniform(0.35, 0.98)
            stands.append((near, i, (x, horizon + near * (height - horizon))))
        outlines = [0] * count
        for near, i, foot in sorted(stands):
            name = self.space.classes[kinds[i]]
            if name in THINGS:
                scenery.thing(frame, name, *foot, base * draws.uniform(0.7, 1.2), owner=i + 1)
            else:
                animal = Animal(self._draws(3, i), HOOFED_KINDS.get(name) or OTHER_KINDS[name])
                tall = min(base * animal.height * (0.6 + 0.4 * near), 1.04 * foot[1] / animal.top)
                animal.paint(frame, foot, tall, i + 1)
            outlines[i] = np.count_nonzero(frame.owners() == i + 1)
        if early and draws.random() < 0.35:  # in front of them
            spot = width * draws.random(), height * draws.uniform(0.97, 1.1), height * 0.42
            scenery.thing(frame, pick(draws, THINGS), *spot)
        return frame, scenery, outlines


@lru_cache(maxsize=2)
def _drawer(height: int, width: int) -> Callable[[_Scene], tuple[np.ndarray, np.ndarray]]:
    """Return what draws image and mask of a scene, and remembers the last ones."""
    return lru_cache(max(1, _CACHE_BYTES // (4 * height * width)))(lambda scene: scene.draw(height, width))


class _Scenes:
    """What images and masks share: `count` scenes of a split; those of ``train`` and ``val`` never meet.

    `size` is their width in pixels, `single_share` the share of images that show one class only.
    """

    def __init__(
        self, split: str, *, count: int = 400, size: int = 96, seed: int = 0, single_share: float = 0.5
    ) -> None:
        split = "train" if split == "train_aug" else split
        check_choice("split", split, ("train", "val"))
        if count < 1 or not 48 <= size <= 2048 or not 0 <= single_share <= 1 or seed < 0:
            came = f"hoofed: count {count}, size {size}, single_share {single_share}, seed {seed}"
            raise SettingsError(f"{came}; expected 1 or more, 48 to 2048, 0 to 1, 0 or more")
        self.split, self.count, self.shape = split, count, scene_size(size)
        self.seed, self.single_share = seed, float(single_share)
        space, self.prefix = (OTHERS, "scene") if isinstance(self, OtherImages) else (HOOFED, "hoofed")
        self.stream = {"train": 1, "val": 2}[split] + (2 if space is OTHERS else 0)
        ids = tuple(f"{self.prefix}_{split}_{i:05d}" for i in range(count))
        super().__init__(space, ids, source=f"{self.prefix} {split}")

    def _scene(self, id: str) -> _Scene:
        head, _, number = id.rpartition("_")
        if head != f"{self.prefix}_{self.split}" or not number.isdecimal() or int(number) >= self.count:
            first, last = self.ids[0], self.ids[-1]
            raise DataError(f"{self.source} has no image {id!r}; ids run from {first} to {last}")
        return _Scene(self.space, self.seed, self.stream, int(number), self.single_share)

    def size(self, id: str) -> tuple[int, int]:
        self._scene(id)
        return self.shape

    _image_size = size


class HoofedImages(_Scenes, ImageSet):
    """Images and labels of drawn scenes."""

    def image(self, id: str) -> torch.Tensor:
        image, _ = _drawer(*self.shape)(self._scene(id))
        return torch.from_numpy(image).permute(2, 0, 1).clone(memory_format=torch.contiguous_format)

    def labels(self, id: str) -> np.ndarray:
        vector = np.zeros(len(self.space), np.uint8)
        vector[self._scene(id).kinds()] = 1
        return vector


class OtherImages(HoofedImages):
    """Scenes of one object each, of other classes: to `HoofedImages` what ImageNet is to photographs."""


class HoofedMasks(_Scenes, MaskSet):
    """Exact masks of the same scenes."""

    def _mask(self, id: str) -> np.ndarray:
        return _drawer(*self.shape)(self._scene(id))[1]
