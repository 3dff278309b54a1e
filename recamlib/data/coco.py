"""Reader of COCO 2014 instances as label vectors and semantic masks."""

import contextlib
import gc
import io
import json
import os
from array import array
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools.coco import COCO

from recamlib.data._regions import region_mask
from recamlib.data.access import ImageSet, MaskSet
from recamlib.data.images import MAX_PIXELS, image_size, inside, read_image
from recamlib.data.labels import COCO14
from recamlib.errors import DataError, SettingsError, nearest

FETCH = "download it with `recam data fetch coco14`"
_DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AssertionError, AttributeError, RecursionError, MemoryError,
)  # fmt: skip
_FOLDERS = ("", ".", "..")
_PARTS = {"train": "train2014", "train_aug": "train2014", "val": "val2014"}

# Official category ids have gaps; sorted by id they are the classes of COCO14 in order.
_GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
CATEGORY_IDS = tuple(id for id in range(1, 91) if id not in _GAPS)


def part_of(split: str) -> str:
    """Return the folder name of a split, ``train2014`` or ``val2014``."""
    if split not in _PARTS:
        raise SettingsError(f"COCO has no split {split!r}{nearest(split, _PARTS)}; use train or val")
    return _PARTS[split]


def annotation_file(root: Path, split: str) -> Path:
    """Return the instances file of a split; `root` is the COCO folder or stands above it."""
    name = f"annotations/instances_{part_of(split)}.json"
    tried = [Path(root) / folder / name for folder in ("coco14", "coco", "coco128", ".")]
    for path in tried:
        if path.is_file():
            return path
    raise DataError(f"{tried[0]} is missing; {FETCH} or set RECAM_DATA")


_USED = ("id", "image_id", "category_id", "iscrowd", "segmentation", "file_name", "height", "width")


def _compact(thing: dict[str, Any]) -> dict[str, Any]:
    """Return what is used of an image or annotation; polygons become arrays, a quarter of the size."""
    if "image_id" not in thing and "file_name" not in thing:
        return thing
    kept = {key: thing[key] for key in _USED if key in thing}
    if isinstance(kept.get("segmentation"), list):
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # said when the mask is read
            kept["segmentation"] = [array("d", polygon) for polygon in kept["segmentation"]]
    return kept


def _read(path: Path) -> COCO:
    """Read and index an instances file; the whole of COCO fits into little more memory than the file has."""
    gc.disable()  # it would look through millions of new lists and numbers again and again
    try:
        coco = COCO()
        with path.open(encoding="utf-8") as file:
            coco.dataset = json.load(file, object_hook=_compact)
        if not isinstance(coco.dataset, dict):
            raise TypeError(f"a {type(coco.dataset).__name__} instead of an object")
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            coco.createIndex()
        return coco
    finally:
        gc.enable()


@lru_cache(maxsize=2)
def _load(path: Path, stamp: int) -> COCO:
    """Read an instances file once for both doors; `stamp` is its time of change."""
    try:
        coco = _read(path)
        known = set(CATEGORY_IDS)
        for id, category in coco.cats.items():
            name = category["name"]
            if id not in known or COCO14.classes[CATEGORY_IDS.index(id)] != name:
                hint = nearest(name, COCO14.classes)
                raise DataError(
                    f"{path} has the category {id} {name!r}, unknown to {COCO14.name}{hint}; correct it"
                )
        for annotation in coco.anns.values():
            if annotation["category_id"] not in coco.cats:
                category = annotation["category_id"]
                raise DataError(f"{path}: annotation {annotation['id']} has the unknown category {category}")
            if annotation["image_id"] not in coco.imgs:
                image = annotation["image_id"]
                raise DataError(f"{path}: annotation {annotation['id']} belongs to the unknown image {image}")
        for image in coco.imgs.values():
            name = image["file_name"]
            if os.path.basename(name) != name or "\\" in name or not name.isprintable() or name in _FOLDERS:
                raise DataError(f"{path} names the image file {name!r}; a name without folders is expected")
            if not all(type(image[side]) is int and image[side] > 0 for side in ("height", "width")):
                raise DataError(f"{path} gives no height and width in pixels for {name!r}; correct it")
            if image["height"] * image["width"] > MAX_PIXELS:
                raise DataError(f"{path} gives {name!r} more than {MAX_PIXELS:,} pixels; store it smaller")
        if not all(type(number) is int for number in coco.imgs):
            raise DataError(f"{path} has an image whose id is no whole number; correct it")
        if len({_stem(image) for image in coco.imgs.values()}) < len(coco.imgs):
            raise DataError(f"{path} names an image file twice; correct it")
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{path} is not a readable COCO instances file ({error!r}); fetch it again") from None
    return coco


def _index(root: Path, split: str) -> tuple[Path, COCO]:
    path = annotation_file(root, split)
    return path, _load(path, os.stat(path).st_mtime_ns)


def _class_of(annotation: dict[str, Any]) -> int:
    return CATEGORY_IDS.index(annotation["category_id"])


def _crowd(annotation: dict[str, Any]) -> bool:
    return bool(annotation.get("iscrowd", 0))


def _keys(coco: COCO) -> dict[str, int]:
    """Return the number of every image by its id, the stem of its file name, in order of number."""
    return {_stem(coco.imgs[number]): number for number in sorted(coco.imgs)}


def _stem(image: dict[str, Any]) -> str:
    return os.path.splitext(image["file_name"])[0]  # pathlib takes a second for the whole of COCO


def _labels(coco: COCO, number: int) -> np.ndarray:
    vector = np.zeros(len(COCO14), np.uint8)
    for annotation in coco.imgToAnns.get(number, ()):
        if not _crowd(annotation):
            vector[_class_of(annotation)] = 1
    return vector


class CocoImages(ImageSet):
    """Images and image-level labels of COCO instances.

    A crowd region is no label. Images without any label are left out of `ids`, as the authors skip them;
    `ids_with_empty` still names them.

    Parameters
    ----------
    root
        Folder with ``coco14``, ``coco`` or ``coco128`` in it, or that folder itself.
    split
        ``train`` (also called ``train_aug``) or ``val``.
    """

    def __init__(self, root: Path, split: str) -> None:
        path, coco = _index(root, split)
        self._folder = path.parent.parent / part_of(split)
        numbers = _keys(coco)
        self.ids_with_empty = tuple(numbers)
        self._table = np.zeros((len(numbers), len(COCO14)), np.uint8)
        self._rows = {id: row for row, id in enumerate(numbers)}
        self._files = {id: coco.imgs[number]["file_name"] for id, number in numbers.items()}
        for row, number in enumerate(numbers.values()):
            self._table[row] = _labels(coco, number)
        ids = [id for id, row in self._rows.items() if self._table[row].any()]
        super().__init__(COCO14, ids, source=str(path))

    def path(self, id: str) -> Path:
        """Return the file of an image."""
        self._row(id)
        return inside(self._folder / self._files[id], self._folder.parent)

    def image(self, id: str) -> torch.Tensor:
        return read_image(self.path(id))

    def size(self, id: str) -> tuple[int, int]:
        return image_size(self.path(id))

    def labels(self, id: str) -> np.ndarray:
        return self._table[self._row(id)].copy()

    def _row(self, id: str) -> int:
        if id not in self._rows:
            raise DataError(f"{self.source} has no image {id!r}")
        return self._rows[id]


class CocoMasks(MaskSet):
    """Semantic masks painted from the instances of COCO.

    Instances are painted from the largest to the smallest, so that small things stay on top. Crowd regions
    are painted first, with the ignore value: no metric counts them where nothing lies over them.
    """

    def __init__(self, root: Path, split: str) -> None:
        path, coco = _index(root, split)
        self._coco, self._numbers = coco, _keys(coco)
        self._folder = path.parent.parent / part_of(split)
        ids = [id for id, number in self._numbers.items() if _labels(coco, number).any()]
        super().__init__(COCO14, ids, source=str(path))

    def _mask(self, id: str) -> np.ndarray:
        number = self._number(id)
        image = self._coco.imgs[number]
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        annotations = self._coco.imgToAnns.get(number, ())
        shapes = [(_crowd(a), self._shape(a, image), a) for a in annotations]
        shapes.sort(key=lambda s: (not s[0], -int(np.count_nonzero(s[1])), s[2]["id"]))
        for crowd, shape, annotation in shapes:
            mask[shape] = self.space.ignore if crowd else _class_of(annotation) + 1
        return mask

    def _shape(self, annotation: dict[str, Any], image: dict[str, Any]) -> np.ndarray:
        try:
            return region_mask(annotation.get("segmentation"), image["height"], image["width"])
        except Exception as error:  # pycocotools raises bare Exception, too
            where = f"{self.source}: annotation {annotation['id']} of {image['file_name']}"
            raise DataError(f"{where} is unreadable ({error}); correct or remove it") from None

    def _number(self, id: str) -> int:
        if id not in self._numbers:
            raise DataError(f"{self.source} has no image {id!r}")
        return self._numbers[id]

    def _image_size(self, id: str) -> tuple[int, int]:
        name = self._coco.imgs[self._number(id)]["file_name"]
        return image_size(inside(self._folder / name, self._folder.parent))
