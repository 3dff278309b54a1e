"""Reader of COCO 2014 instances as label vectors and semantic masks."""

import contextlib
import gc
import io
import json
import os
from array import array
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO

from recamlib.data.access import ImageSet, MaskSet
from recamlib.data.foreign import describe
from recamlib.data.images import image_size, read_image
from recamlib.data.labels import COCO14
from recamlib.errors import DataError, MissingDataError, SettingsError, nearest

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
    remedy = describe(Path(root)) or f"{FETCH} or set RECAM_DATA"
    raise MissingDataError(f"{tried[0]} is missing; {remedy}")


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
        _check_ids(path, coco.dataset)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            coco.createIndex()
        return coco
    finally:
        gc.enable()


def _check_ids(path: Path, content: dict[str, Any]) -> None:
    """Raise a DataError if two things have one id: the index would keep the last and mix up the rest."""
    for part in ("images", "annotations", "categories"):
        ids = [thing["id"] for thing in content.get(part, ())]
        if len(set(ids)) < len(ids):
            twice, count = Counter(ids).most_common(1)[0]
            raise DataError(
                f"{path} gives {count} {part} the id {twice!r}, so labels would go to the wrong image; "
                "give each an id of its own (files that were merged have to be numbered anew)"
            )


def _check_category(path: Path, id: int, name: str) -> None:
    """Raise a DataError if a category is not COCO's."""
    if name not in COCO14.classes:
        remedy = "classes of your own go in the form of a VOC devkit, see book/your_data.md"
        raise DataError(
            f"{path} has the category {id} {name!r}, unknown to {COCO14.name}"
            f"{nearest(name, COCO14.classes)}; {remedy}"
        )
    official = CATEGORY_IDS[COCO14.index(name)]
    if id != official:
        raise DataError(f"{path} has the category {id} {name!r}, unknown to COCO, where it is {official}")


@lru_cache(maxsize=2)
def _load(path: Path, stamp: int) -> COCO:
    """Read an instances file once for images and masks; `stamp` is its time of change."""
    try:
        coco = _read(path)
        for id, category in coco.cats.items():
            _check_category(path, id, category["name"])
        for annotation in coco.anns.values():
            for thing, known in (("category", coco.cats), ("image", coco.imgs)):
                if annotation[f"{thing}_id"] not in known:
                    what = f"has the unknown {thing} {annotation[f'{thing}_id']}"
                    raise DataError(f"{path}: annotation {annotation['id']} {what}; correct or remove it")
        for image in coco.imgs.values():
            name = image["file_name"]
            if os.path.basename(name) != name or "\\" in name or not name.isprintable() or name in _FOLDERS:
                raise DataError(f"{path} names the image file {name!r}; a name without folders is expected")
            if not all(type(image[side]) is int and image[side] > 0 for side in ("height", "width")):
                raise DataError(f"{path} gives no height and width in pixels for {name!r}; correct it")
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

    A crowd region is no label. Images without any label are left out of `ids`, as the authors skip them.

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
        self._table = np.zeros((len(numbers), len(COCO14)), np.uint8)
        self._rows = {id: row for row, id in enumerate(numbers)}
        self._files = {id: coco.imgs[number]["file_name"] for id, number in numbers.items()}
        for row, number in enumerate(numbers.values()):
            self._table[row] = _labels(coco, number)
        ids = [id for id, row in self._rows.items() if self._table[row].any()]
        super().__init__(COCO14, ids, source=str(path))

    def without_class(self) -> tuple[str, ...]:
        return tuple(id for id, row in self._rows.items() if not self._table[row].any())

    def path(self, id: str) -> Path:
        """Return the file of an image."""
        self._row(id)
        return self._folder / self._files[id]

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
        image, size = self._coco.imgs[number], self._image_size(id)
        if (image["height"], image["width"]) != size:
            stated = f"{self.source} gives {image['file_name']} {image['height']} x {image['width']} pixels"
            raise DataError(f"{stated}, the file has {size[0]} x {size[1]}; annotations and file must agree")
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
        return image_size(self._folder / self._coco.imgs[self._number(id)]["file_name"])


def region_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the mask of one annotation.

    Parameters
    ----------
    segmentation
        Polygons (lists of x, y in turn) or run lengths (a dictionary with ``size`` and ``counts``).
    height, width
        Size of the image, pixels.

    Returns
    -------
    Shape ``(height, width)``, bool.

    Raises
    ------
    Exception
        Of many kinds, pycocotools' own among them, if it is neither or does not fit the image.
    """
    if isinstance(segmentation, dict):
        runs, stated = segmentation, list(segmentation["size"])
        if stated != [height, width]:
            raise ValueError(f"run lengths of size {stated} for an image of {[height, width]}")
        if isinstance(runs["counts"], list):
            if sum(runs["counts"]) != height * width:  # the rest of the mask would be chance
                raise ValueError(f"run lengths of {sum(runs['counts'])} pixels for {height * width}")
            runs = run_lengths.frPyObjects(runs, height, width)
    else:
        if not segmentation or any(not isinstance(polygon, list | array) for polygon in segmentation):
            raise ValueError("neither polygons nor run lengths")
        if any(not (np.abs(polygon) <= 4 * (height + width)).all() for polygon in segmentation):
            raise ValueError("a polygon far outside the image")  # its C code would crash
        if any(len(polygon) % 2 for polygon in segmentation):
            raise ValueError("a polygon that is no list of x, y")
        # Fewer than three corners have no area; the C code would take four numbers for a box.
        polygons = [list(polygon) for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return np.zeros((height, width), bool)
        runs = run_lengths.merge(run_lengths.frPyObjects(polygons, height, width))
    mask = run_lengths.decode(runs)
    if mask.max(initial=0) > 1:
        raise ValueError("run lengths that end before the image")
    return mask.astype(bool)
