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
from recamlib.data.hoofed.drawing import Frame, pick
from recamlib.data.hoofed.scenery import THINGS, Scenery
from recamlib.data.labels import HOOFED, LabelSpace
from recamlib.errors import DataError, SettingsError, check_choice

OTHERS = LabelSpace("scenes", (*OTHER_KINDS, *THINGS))  # none of them is in `HOOFED`
MIN_VISIBLE, MIN_AREA = 0.3, 0.012  # an animal shows this share of its own outline, and of the image
_TRIES, _CACHE_BYTES = 16, 192 * 2**20


def scene_size(size: int) -> tuple[int, int]:
    """Return ``(H, W)`` of a scene: landscape 4 to 3, the height a multiple of 8."""
    return max(8, int(size * 0.75 / 8 + 0.5) * 8), size


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
