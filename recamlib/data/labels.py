"""Label spaces: which classes a data set has, in which order, and which pixel values its masks may hold."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from recamlib.errors import DataError, nearest

_NO_CLASS = {
    **dict.fromkeys(("background", "bg"), 0),
    **dict.fromkeys(("ignore", "ignored", "ignoreregion", "void", "unlabeled", "unlabelled"), 255),
}


def value_of_no_class(name: str) -> int | None:
    """Return 0 for any spelling of background, 255 for one of "not scored", None for a class.

    >>> value_of_no_class("_background_"), value_of_no_class("Ignored"), value_of_no_class("cat")
    (0, 255, None)
    """
    return _NO_CLASS.get(re.sub(r"[^a-z]", "", str(name).lower()))


@dataclass(frozen=True)
class LabelSpace:
    """Foreground classes of a data set; class ``k`` is pixel value ``k + 1`` in a mask.

    >>> space = LabelSpace("pets", ("cat", "dog"))
    >>> len(space), space.names, space.index("dog")
    (2, ('background', 'cat', 'dog'), 1)
    >>> space.decode(space.encode(["dog"]))
    ('dog',)
    """

    name: str
    classes: tuple[str, ...]
    ignore: int = 255

    def __post_init__(self) -> None:
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise DataError(f"label space {self.name!r} needs at least one class and no name twice")
        for name in self.classes:
            if (value := value_of_no_class(name)) is not None:
                raise DataError(f"{name!r} is no class: it is always there as value {value}; remove it")
        if (count := len(self.classes)) >= self.ignore:
            raise DataError(f"label space {self.name!r} has {count} classes; masks hold {self.ignore - 1}")

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def with_background(self) -> int:
        """Number of classes with the background."""
        return len(self.classes) + 1

    @property
    def names(self) -> tuple[str, ...]:
        """Class names by pixel value, background first."""
        return ("background", *self.classes)

    @property
    def palette(self) -> np.ndarray:
        """Colour of every pixel value, shape ``(256, 3)``, uint8: the colour map of the VOC devkit."""
        # the bits of a value are spread over red, green and blue
        bit = np.arange(8)[:, None]
        bits = (np.arange(256)[:, None, None] >> (3 * bit + np.arange(3))) & 1  # (256, 8, 3)
        return (bits << (7 - bit)).sum(1).astype(np.uint8)

    @property
    def colours(self) -> dict[tuple[int, int, int], int]:
        """Pixel value of every colour of the palette."""
        return {tuple(colour): value for value, colour in enumerate(self.palette.tolist())}

    def index(self, name: str) -> int:
        """Return the position of a class, counted from 0 without background."""
        if name not in self.classes:
            hint = nearest(name, self.classes)
            raise DataError(f"no class {name!r} in label space {self.name!r}{hint}")
        return self.classes.index(name)

    def encode(self, names: Iterable[str]) -> np.ndarray:
        """Return the multi-hot vector of some class names, shape ``(K,)``, uint8."""
        vector = np.zeros(len(self), np.uint8)
        vector[[self.index(name) for name in names]] = 1
        return vector

    def decode(self, vector: np.ndarray) -> tuple[str, ...]:
        """Return the names of the classes that are set in a vector of shape ``(K,)``."""
        vector = np.asarray(vector)
        if vector.shape != (size := (len(self),)):
            raise DataError(f"label space {self.name!r} expects a vector of shape {size}, got {vector.shape}")
        return tuple(name for name, present in zip(self.classes, vector, strict=True) if present)

    def subset(self, names: Iterable[str]) -> "LabelSpace":
        """Return the space of the named classes alone, in the order given."""
        names = tuple(self.classes[self.index(name)] for name in dict.fromkeys(names))
        if names == self.classes:
            return self
        return LabelSpace(f"{self.name}[{','.join(names)}]", names, self.ignore)


VOC12 = LabelSpace("voc12", (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
))  # fmt: skip

# torchvision lists COCO's 80 names by official id, with gaps
_BY_ID = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
CATEGORY_IDS = tuple(id for id, name in enumerate(_BY_ID) if id and name != "N/A")
COCO14 = LabelSpace("coco14", tuple(_BY_ID[id] for id in CATEGORY_IDS))

HOOFED = LabelSpace("hoofed", ("horse", "cow", "sheep", "zebra", "giraffe"))

SPACES = {space.name: space for space in (VOC12, COCO14, HOOFED)}
