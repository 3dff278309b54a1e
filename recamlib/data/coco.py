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
from recamlib.data.labels import CATEGORY_IDS, COCO14
from recamlib.errors import DataError, MissingDataError, nearest

_PARTS = {"train": "train2014", "train_aug": "train2014", "val": "val2014"}


def _annotation_file(root: Path, split: str) -> Path:
    """Return the instances file of a split; `root` is the COCO folder or stands above it."""
    name = f"annotations/instances_{_PARTS[split]}.json"
    tried = [Path(root) / folder / name for folder in ("coco14", "coco", "coco128", ".")]
    for path in tried:
        if path.is_file():
            return path
    for path in tried:
        if any(path.parent.glob("instances_*2014.json")):  # a part of one's own
            raise MissingDataError(f"{path} is missing; put there a file of the images of {split}")
    remedy = describe(Path(root)) or "get the official set with `recam data fetch coco14` or set RECAM_DATA"
    raise MissingDataError(f"{tried[0]} is missing; {remedy}")


def _compact(thing: dict[str, Any]) -> dict[str, Any]:
    """Return what is used of an image or annotation; polygons become arrays, a quarter of the size."""
    if "image_id" not in thing and "file_name" not in thing:
        return thing
    used = ("id", "image_id", "category_id", "iscrowd", "segmentation", "file_name", "height", "width")
    kept = {key: thing[key] for key in used if key in thing}
    if isinstance(kept.get("segmentation"), list):
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # said when the mask is read
            kept["segmentation"] = [array("d", polygon) for polygon in kept["segmentation"]]
    return kept


def _check(path: Path, coco: COCO) -> None:
    """Raise a DataError if labels, sizes or files would be taken for those of something else."""
    for id, category in coco.cats.items():
        name = category["name"]
        if name not in COCO14.classes:
            unknown = f"the category {id} {name!r}, unknown to {COCO14.name}{nearest(name, COCO14.classes)}"
            raise DataError(f"{path} has {unknown}; classes of your own go elsewhere, see book/your_data.md")
        if id != (official := CATEGORY_IDS[COCO14.index(name)]):
            raise DataError(f"{path} has the category {id} {name!r}, unknown to COCO, where it is {official}")
    for annotation in coco.anns.values():
        for thing, known in (("category", coco.cats), ("image", coco.imgs)):
            if (of := annotation[f"{thing}_id"]) not in known:
                which = f"annotation {annotation['id']} has the unknown {thing} {of}"
                raise DataError(f"{path}: {which}; correct or remove it")
    for number, image in coco.imgs.items():
        name = image["file_name"]
        if os.path.basename(name) != name or name in ("", ".", "..") or not name.isprintable():
            raise DataError(f"{path} names the image file {name!r}; a name without folders is expected")
        given = number, image["height"], image["width"]
        if not all(type(value) is int for value in given) or min(given[1:]) < 1:
            raise DataError(f"{path}: id, height and width of {name!r} are {given}, expected whole numbers")
    if len({_stem(image) for image in coco.imgs.values()}) < len(coco.imgs):
        raise DataError(f"{path} names an image file twice; correct it")


@lru_cache(maxsize=2)
def _load(path: Path, stamp: int) -> COCO:
    """Read and check an instances file once for images and masks; `stamp` is its time of change."""
    gc.disable()  # it would look through millions of new lists and numbers again and again
    try:
        coco = COCO()
        with path.open(encoding="utf-8") as file:
            coco.dataset = json.load(file, object_hook=_compact)
        for part in ("images", "annotations", "categories"):  # the index would keep the last of one id
            ids = [thing["id"] for thing in coco.dataset.get(part, ())]
            if len(set(ids)) < len(ids):
                twice, count = Counter(ids).most_common(1)[0]
                wrong = "so labels would go to the wrong image; number the parts of merged files anew"
                raise DataError(f"{path} gives {count} {part} the id {twice!r}, {wrong}")
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
            coco.createIndex()
        _check(path, coco)
        return coco
    except DataError:
        raise
    except Exception as error:  # there is no end to the ways in which the wrong JSON fails
        raise DataError(f"{path} is not a readable COCO instances file ({error!r}); fetch it again") from None
    finally:
        gc.enable()


def _index(root: Path, split: str) -> tuple[Path, COCO]:
    path = _annotation_file(root, split)
    return path, _load(path, os.stat(path).st_mtime_ns)


def _stem(image: dict[str, Any]) -> str:
    return os.path.splitext(image["file_name"])[0]  # pathlib takes a second for the whole of COCO


class _Instances:
    """What images and masks share: ids (the stems of file names, in order of number), files and labels."""

    def __init__(self, root: Path, split: str) -> None:
        path, coco = _index(root, split)
        self._folder = path.parent.parent / _PARTS[split]
        images = [coco.imgs[number] for number in sorted(coco.imgs)]
        self._files = {_stem(image): image["file_name"] for image in images}
        self._table = {id: np.zeros(len(COCO14), np.uint8) for id in self._files}
        for image in images:
            for annotation in coco.imgToAnns.get(image["id"], ()):
                if not annotation.get("iscrowd"):
                    self._table[_stem(image)][CATEGORY_IDS.index(annotation["category_id"])] = 1
        super().__init__(COCO14, [id for id, row in self._table.items() if row.any()], source=str(path))

    def path(self, id: str) -> Path:
        """Return the file of an image."""
        if id not in self._files:
            raise DataError(f"{self.source} has no image {id!r}")
        return self._folder / self._files[id]

    def size(self, id: str) -> tuple[int, int]:
        return image_size(self.path(id))

    _image_size = size


class CocoImages(_Instances, ImageSet):
    """Images and image-level labels of COCO instances; those without a label are left out of `ids`."""

    def image(self, id: str) -> torch.Tensor:
        return read_image(self.path(id))

    def labels(self, id: str) -> np.ndarray:
        self.path(id)
        return self._table[id].copy()


class CocoMasks(_Instances, MaskSet):
    """Semantic masks: instances painted from the largest to the smallest, over crowd regions to ignore."""

    def __init__(self, root: Path, split: str) -> None:
        super().__init__(root, split)
        self._coco = _index(root, split)[1]
        self._images = {_stem(image): image for image in self._coco.imgs.values()}

    def _mask(self, id: str) -> np.ndarray:
        height, width = self._image_size(id)
        image = self._images[id]
        if (image["height"], image["width"]) != (height, width):
            stated = f"{self.source} gives {image['file_name']} {image['height']} x {image['width']} pixels"
            raise DataError(f"{stated}, the file has {height} x {width}; annotations and file must agree")
        painted = []
        for annotation in self._coco.imgToAnns.get(image["id"], ()):
            try:
                shape = region_mask(annotation.get("segmentation"), height, width)
            except Exception as error:  # pycocotools raises bare Exception, too
                where = f"{self.source}: annotation {annotation['id']} of {image['file_name']}"
                raise DataError(f"{where} is unreadable ({error}); correct or remove it") from None
            value = CATEGORY_IDS.index(annotation["category_id"]) + 1
            order = not annotation.get("iscrowd"), -int(shape.sum()), annotation["id"]
            painted.append((order, shape, value if order[0] else self.space.ignore))
        mask = np.zeros((height, width), np.uint8)
        for _, shape, value in sorted(painted, key=lambda item: item[0]):
            mask[shape] = value
        return mask


def region_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the mask ``(height, width)``, bool, of polygons or run lengths; raise if it is neither.

    pycocotools itself fills what is missing with chance, takes four numbers for a box, and crashes far
    outside the image.
    """
    if isinstance(segmentation, dict):
        runs, counts = segmentation, segmentation["counts"]
        if list(runs["size"]) != [height, width]:
            raise ValueError(f"run lengths of size {runs['size']} for an image of {[height, width]}")
        if isinstance(counts, list):
            if sum(counts) != height * width:
                raise ValueError(f"run lengths of {sum(counts)} pixels for {height * width}")
            runs = run_lengths.frPyObjects(runs, height, width)
    else:
        most = 4 * (height + width)
        for points in segmentation or [None]:
            if not isinstance(points, list | array) or len(points) % 2 or not (np.abs(points) <= most).all():
                raise ValueError("neither run lengths nor polygons of x, y near the image")
        polygons = [list(polygon) for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return np.zeros((height, width), bool)
        runs = run_lengths.merge(run_lengths.frPyObjects(polygons, height, width))
    mask = run_lengths.decode(runs)
    if mask.max(initial=0) > 1:
        raise ValueError("run lengths that end before the image")
    return mask.astype(bool)
