"""The embedded data set: scenes of horse, cow, sheep, zebra and giraffe drawn from a seed, with exact masks.

Confusable on purpose, as the toy study of Section 4.2 needs: one body plan, coats shared between classes,
class evidence spread over small parts, occlusion, and places and things that tell nothing about the class.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch

from recamlib.data.access import ImageSet, MaskSet
from recamlib.data.hoofed.animals import Animal
from recamlib.data.hoofed.drawing import Frame
from recamlib.data.hoofed.draws import Draws
from recamlib.data.hoofed.scenery import Scenery
from recamlib.data.labels import HOOFED
from recamlib.errors import DataError, SettingsError, nearest

_STREAMS = {"train": 1, "val": 2}
_SMALLEST, _LARGEST = 48, 2048
_TRIES = 12
#: An animal shows at least this share of its own outline, and of the image.
MIN_VISIBLE, MIN_AREA = 0.25, 0.008


def scene_size(size: int) -> tuple[int, int]:
    """Return ``(H, W)`` of a scene: landscape 4 to 3, the height a multiple of 8."""
    return max(8, int(size * 0.75 / 8 + 0.5) * 8), size


@dataclass(frozen=True)
class _Scene:
    """What chooses a scene: draws differ for every combination."""

    seed: int
    stream: int
    index: int
    single_share: float

    def kinds(self) -> list[int]:
        """Return the class of every animal; the labels need nothing else."""
        draws = Draws(self.seed, self.stream, self.index, 0)
        single = draws.chance(self.single_share)
        order = draws.shuffled(range(len(HOOFED)))
        if single:
            return [order[0]] * draws.weighted({1: 0.65, 2: 0.25, 3: 0.1})
        kinds = order[: draws.weighted({2: 0.7, 3: 0.3})]
        if len(kinds) == 2 and draws.chance(0.25):
            kinds.append(draws.pick(kinds))
        return kinds

    def draw(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Return image ``(H, W, 3)`` and mask ``(H, W)``, both uint8."""
        kinds = self.kinds()
        for attempt in range(_TRIES):
            frame, scenery, outlines = self._paint(kinds, height, width, attempt)
            seen = np.bincount(frame.owner.ravel(), minlength=len(kinds) + 1)[1:]
            if all(
                s >= max(MIN_VISIBLE * o, MIN_AREA * height * width)
                for s, o in zip(seen, outlines, strict=True)
            ):
                break
        else:
            raise AssertionError(f"scene {self} could not be laid out")
        values = np.array([0, *(kind + 1 for kind in kinds)], np.uint8)
        return scenery.finish(frame), values[frame.owner]

    def _paint(
        self, kinds: list[int], height: int, width: int, attempt: int
    ) -> tuple[Frame, Scenery, list[int]]:
        """Paint the scene; later attempts stand further apart, with nothing in front."""
        scenery = Scenery(Draws(self.seed, self.stream, self.index, 1))
        layout = Draws(self.seed, self.stream, self.index, 2, attempt)
        frame = Frame(height, width)
        scenery.behind(frame)
        horizon = scenery.horizon * height
        depth = height - horizon
        base = height * layout.uniform(0.42, 0.78) * (1.0, 0.86, 0.74)[len(kinds) - 1]
        slots = layout.shuffled(range(len(kinds)))
        stands = []
        for i, kind in enumerate(kinds):
            animal = Animal(Draws(self.seed, self.stream, self.index, 3 + i), HOOFED.classes[kind])
            spread = 0.5 if attempt < _TRIES // 2 else 0.15
            x = width * (
                (slots[i] + 0.5) / len(kinds) + layout.uniform(-spread, spread) / max(len(kinds), 1.6)
            )
            x = min(max(x, 0.14 * width), 0.86 * width)
            near = layout.uniform(0.35, 1.0)
            tall = min(base * animal.height * (0.6 + 0.4 * near), 1.04 * height / animal.reach)
            stands.append((near, i, animal, (x, horizon + near * depth * 0.98), tall))
        stands.sort(key=lambda stand: stand[:2])
        for _ in range(layout.weighted({0: 0.25, 1: 0.4, 2: 0.35})):
            near = layout.uniform(0.02, 0.5)
            size = height * (0.18 + 0.3 * near)
            scenery.thing(frame, width * layout.uniform(), horizon + near * depth, size)
        outlines = [0] * len(kinds)
        for _, i, animal, foot, tall in stands:
            before = frame.owner.copy()
            frame.owner[:] = 0
            animal.paint(frame, foot, tall, i + 1)
            outline = frame.owner > 0
            outlines[i] = int(np.count_nonzero(outline))
            frame.owner = np.where(outline, frame.owner, before)
        if layout.chance(0.4) and attempt < _TRIES // 2:
            scenery.thing(frame, width * layout.uniform(), height * layout.uniform(0.97, 1.1), height * 0.42)
        return frame, scenery, outlines


class _Recent:
    """The last scenes drawn in this process, up to a number of bytes."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[tuple, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def get(self, scene: _Scene, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        key = (scene, height, width)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        drawn = scene.draw(height, width)
        self._kept[key] = drawn
        self._bytes += sum(a.nbytes for a in drawn)
        while self._bytes > self._limit and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._bytes -= sum(a.nbytes for a in old)
        return drawn


_recent = _Recent(64 * 2**20)


class _Scenes:
    """Settings common to both doors, and the way from an id to its scene."""

    def __init__(self, split: str, *, count: int, size: int, seed: int, single_share: float) -> None:
        split = "train" if split == "train_aug" else split
        if split not in _STREAMS:
            raise SettingsError(f"hoofed has no split {split!r}{nearest(split, _STREAMS)}; use train or val")
        if count < 1:
            raise DataError(f"hoofed: count must be at least 1 image, got {count}; the list would be empty")
        if not _SMALLEST <= size <= _LARGEST:
            raise SettingsError(f"hoofed: size must be {_SMALLEST} to {_LARGEST} pixels, got {size}")
        if not 0 <= single_share <= 1:
            raise SettingsError(f"hoofed: single_share must be between 0 and 1, got {single_share}")
        if seed < 0:
            raise SettingsError(f"hoofed: seed must be 0 or more, got {seed}")
        self.split, self.count, self.shape = split, count, scene_size(size)
        self._seed, self._share = seed, float(single_share)
        self.ids = tuple(f"hoofed_{split}_{i:05d}" for i in range(count))

    def scene(self, id: str) -> _Scene:
        """Return the scene of an id."""
        head, _, number = id.rpartition("_")
        if head != f"hoofed_{self.split}" or not number.isdecimal() or int(number) >= self.count:
            raise DataError(
                f"hoofed {self.split} has no image {id!r}; ids run from {self.ids[0]} to {self.ids[-1]}"
            )
        return _Scene(self._seed, _STREAMS[self.split], int(number), self._share)


class HoofedImages(ImageSet):
    """Images and labels of drawn scenes.

    Parameters
    ----------
    split
        ``train`` (also called ``train_aug``) or ``val``: scenes of the two never meet.
    count
        Number of images.
    size
        Width in pixels, 48 to 2048; see `scene_size` for the height.
    seed
        Chooses the scenes, 0 or more.
    single_share
        Share of images that show one class only, 0 to 1.
    """

    def __init__(
        self, split: str, *, count: int = 400, size: int = 96, seed: int = 0, single_share: float = 0.5
    ) -> None:
        self._scenes = _Scenes(split, count=count, size=size, seed=seed, single_share=single_share)
        super().__init__(HOOFED, self._scenes.ids, source=f"hoofed {self._scenes.split}")

    def image(self, id: str) -> torch.Tensor:
        image, _ = _recent.get(self._scenes.scene(id), *self._scenes.shape)
        return torch.from_numpy(image).permute(2, 0, 1).clone(memory_format=torch.contiguous_format)

    def size(self, id: str) -> tuple[int, int]:
        self._scenes.scene(id)
        return self._scenes.shape

    def labels(self, id: str) -> np.ndarray:
        vector = np.zeros(len(HOOFED), np.uint8)
        vector[self._scenes.scene(id).kinds()] = 1
        return vector


class HoofedMasks(MaskSet):
    """Exact masks of the same scenes; parameters as `HoofedImages`."""

    def __init__(
        self, split: str, *, count: int = 400, size: int = 96, seed: int = 0, single_share: float = 0.5
    ) -> None:
        self._scenes = _Scenes(split, count=count, size=size, seed=seed, single_share=single_share)
        super().__init__(HOOFED, self._scenes.ids, source=f"hoofed {self._scenes.split}")

    def _mask(self, id: str) -> np.ndarray:
        return _recent.get(self._scenes.scene(id), *self._scenes.shape)[1]

    def _image_size(self, id: str) -> tuple[int, int]:
        return self._scenes.shape
