"""Data sets of official size without a file or download: what a forecast counts."""

from collections.abc import Sequence

import numpy as np
import torch

from recamlib.data.access import ImageSet
from recamlib.data.labels import SPACES
from recamlib.errors import DataError, SettingsError

#: Official numbers of images.
COUNTS = {
    "voc12": {"train": 1464, "train_aug": 10582, "val": 1449},
    "coco14": {"train": 82783, "train_aug": 82783, "val": 40504},
}
#: Height and width of a usual photograph, pixels.
SIZES = {"voc12": (375, 500), "coco14": (480, 640)}
#: Classes of one image after the other: 1.4 on average in VOC, 3 in COCO, of whose images a fifth has one.
_CLASSES: dict[str, Sequence[int]] = {"voc12": (1, 1, 1, 2, 2), "coco14": (1, 2, 3, 4, 5)}
MARK = "official numbers, no files"
"""The fingerprint of settings that stand for such a data set."""


class NominalImages(ImageSet):
    """As many ids as the official list has, labels of plausible number, and no pixels.

    Examples
    --------
    >>> images = NominalImages("voc12", "train")
    >>> len(images), images.size(images.ids[0])
    (1464, (375, 500))
    """

    def __init__(self, name: str, split: str) -> None:
        if name not in COUNTS:
            raise SettingsError(f"{name} has no official number of images; there are {', '.join(COUNTS)}")
        count = COUNTS[name][split]
        part = "train" if split == "train_aug" else split
        super().__init__(SPACES[name], [f"{part}{i:06d}" for i in range(count)], source=f"{name} {split}")
        self._size, self._pattern = SIZES[name], _CLASSES[name]

    def image(self, id: str) -> torch.Tensor:
        raise DataError(f"{self.source} is not here: these are its official numbers alone; fetch it first")

    def size(self, id: str) -> tuple[int, int]:
        return self._size

    def labels(self, id: str) -> np.ndarray:
        number = int(id[-6:])
        found = np.zeros(len(self.space), np.uint8)
        turn, place = divmod(number, len(self._pattern))
        found[(turn + 7 * np.arange(self._pattern[place])) % len(self.space)] = 1
        return found
