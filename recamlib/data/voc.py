"""Reader of a PASCAL VOC devkit (with or without SBD masks), any subset of its lists."""

import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

import defusedxml.ElementTree
import numpy as np
import torch
from defusedxml.common import DefusedXmlException

from recamlib.data.access import ImageSet, MaskSet
from recamlib.data.images import image_size, inside, read_image, read_mask
from recamlib.data.labels import BACKGROUND, VOC12, LabelSpace
from recamlib.errors import DataError, SettingsError, nearest

FETCH = "download it with `recam data fetch voc12`"
LISTS = {"train": ("train.txt",), "val": ("val.txt",), "train_aug": ("train_aug.txt", "trainaug.txt")}
CLASSES = "classes.txt"  # in the devkit, one name a line: the classes, if they are not VOC's
MAX_XML = 2**20  # bytes
_SUFFIXES = (".jpg", ".jpeg", ".png")


def devkit(root: Path) -> Path:
    """Return the folder that holds ``JPEGImages``, whether `root` is it or stands above it."""
    root = Path(root)
    for folder in (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root):
        if (folder / "JPEGImages").is_dir() or (folder / "ImageSets").is_dir():
            return folder
    raise DataError(f"no VOCdevkit/VOC2012/JPEGImages in {root}; {FETCH} or set RECAM_DATA")


def check_split(split: str) -> None:
    """Raise an error that names the nearest split if there is none of this name."""
    if split not in LISTS:
        hint = nearest(split, LISTS)
        raise SettingsError(f"VOC has no split {split!r}{hint}; choose one of {', '.join(LISTS)}")


def list_file(folder: Path, split: str) -> Path:
    """Return the list of a split in ``ImageSets/Segmentation``."""
    check_split(split)
    lists = folder / "ImageSets" / "Segmentation"
    for name in LISTS[split]:
        if (lists / name).is_file():
            return lists / name
    if split == "train_aug" and (folder / CLASSES).is_file():
        return list_file(folder, "train")  # one's own data has no SBD part
    remedy = "get the SBD part with `recam data fetch sbd`" if split == "train_aug" else FETCH
    raise DataError(f"{lists / LISTS[split][0]} is missing; {remedy}")


def read_ids(path: Path) -> tuple[str, ...]:
    """Read a list of image ids, one a line; a line may also give paths, whose stem is the id.

    Raises
    ------
    DataError
        If the list is empty, names an id twice, or an id would leave the data folder.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list of ids ({error}); write one id a line") from None
    ids = [line.split()[0] for line in lines if line.strip()]
    ids = [Path(id).stem if id.startswith("/JPEGImages/") and ".." not in id else id for id in ids]
    for id in ids:
        if "/" in id or "\\" in id or id in (".", "..") or not id.isprintable() or len(id) > 200:
            raise DataError(f"{path} names {id[:200]!r}; an image id is a short file name without folders")
    if not ids:
        raise DataError(f"{path} is empty; write one image id a line")
    if len(set(ids)) < len(ids):
        twice = next(id for id, count in Counter(ids).items() if count > 1)
        raise DataError(f"{path} names {twice!r} twice; remove one of the lines")
    return tuple(ids)


def own_classes(root: Path) -> tuple[str, ...]:
    """Return the classes of a devkit that lists its own; nothing for VOC's, or where there is no devkit."""
    try:
        folder = devkit(root)
    except DataError:
        return ()
    return space_of(folder).classes if (folder / CLASSES).is_file() else ()


def space_of(folder: Path) -> LabelSpace:
    """Return the label space of a devkit: VOC's, or the one its ``classes.txt`` lists, one name a line.

    Raises
    ------
    DataError
        If the list is empty, or names a class twice or the background.
    """
    path = folder / CLASSES
    if not path.is_file():
        return VOC12
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable list of classes ({error}); write one name a line") from None
    if BACKGROUND in names:
        raise DataError(f"{path} names {BACKGROUND!r}, which is always there as value 0; remove the line")
    if not names or len(set(names)) < len(names):
        raise DataError(f"{path} has to name at least one class and none twice; write one name a line")
    return LabelSpace("voc12", tuple(names))


def read_classes(path: Path, space: LabelSpace) -> tuple[str, ...]:
    """Read the class names of all objects in a VOC annotation, "difficult" ones too, as the authors do.

    Raises
    ------
    DataError
        If the file is missing, is not XML, declares a document type or entities (they can blow up or
        read other files), or names a class outside `space`.
    """
    try:
        if path.stat().st_size > MAX_XML:
            raise DataError(f"{path} has more than {MAX_XML:,} bytes; an annotation has a few thousand")
        tree = defusedxml.ElementTree.parse(path, forbid_dtd=True).getroot()
    except FileNotFoundError:
        raise DataError(f"{path} is missing, so the image has no labels; {FETCH}") from None
    except DefusedXmlException:
        raise DataError(f"{path} declares a document type or entities; remove the declaration") from None
    except DataError:
        raise
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{path} is not a readable XML annotation ({error}); fetch it again") from None
    names = []
    for thing in tree.findall("object"):
        name = (thing.findtext("name") or "").strip()
        if name not in space.classes:
            hint = nearest(name, space.classes)
            raise DataError(f"{path} names the class {name!r}, unknown to {space.name}{hint}; correct it")
        names.append(name)
    return tuple(dict.fromkeys(names))


def _image_path(folder: Path, id: str) -> Path:
    for suffix in _SUFFIXES:
        path = inside(folder / "JPEGImages" / f"{id}{suffix}", folder)
        if path.is_file():
            return path
    return folder / "JPEGImages" / f"{id}{_SUFFIXES[0]}"


def mask_path(folder: Path, id: str) -> Path:
    """Return the mask of an image: the official one, else the one of SBD."""
    official = inside(folder / "SegmentationClass" / f"{id}.png", folder)
    extra = inside(folder / "SegmentationClassAug" / f"{id}.png", folder)
    return extra if extra.is_file() and not official.is_file() else official


class VocImages(ImageSet):
    """Images and image-level labels of a VOC devkit.

    Parameters
    ----------
    root
        Folder of the devkit, or a folder above it.
    split
        ``train``, ``val`` or ``train_aug``.
    space
        Label space of the annotations; by default what `space_of` finds.
    """

    def __init__(self, root: Path, split: str, *, space: LabelSpace | None = None) -> None:
        self._folder = devkit(root)
        space = space or space_of(self._folder)
        self._labels: dict[str, np.ndarray] = {}
        source = list_file(self._folder, split)
        super().__init__(space, read_ids(source), source=str(source))

    def path(self, id: str) -> Path:
        """Return the file of an image."""
        return _image_path(self._folder, id)

    def image(self, id: str) -> torch.Tensor:
        return read_image(self.path(id))

    def size(self, id: str) -> tuple[int, int]:
        return image_size(self.path(id))

    def labels(self, id: str) -> np.ndarray:
        if id not in self._labels:
            annotation = inside(self._folder / "Annotations" / f"{id}.xml", self._folder)
            self._labels[id] = self.space.encode(read_classes(annotation, self.space))
        return self._labels[id].copy()


class VocMasks(MaskSet):
    """True masks of a VOC devkit: official ones first, SBD's for the other images of ``train_aug``."""

    def __init__(self, root: Path, split: str, *, space: LabelSpace | None = None) -> None:
        self._folder = devkit(root)
        space = space or space_of(self._folder)
        source = list_file(self._folder, split)
        super().__init__(space, read_ids(source), source=str(source))

    def _where(self, id: str) -> str:
        return str(mask_path(self._folder, id))

    def _mask(self, id: str) -> np.ndarray:
        return read_mask(mask_path(self._folder, id))

    def _image_size(self, id: str) -> tuple[int, int]:
        return image_size(_image_path(self._folder, id))
