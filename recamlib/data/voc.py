"""The PASCAL VOC devkit, with or without SBD masks, any part of it, or own data: read and written."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import defusedxml.ElementTree
import numpy as np
import torch
from defusedxml.common import DefusedXmlException
from PIL import Image
from tqdm.auto import tqdm

from recamlib.data.access import ImageSet, MaskSet
from recamlib.data.foreign import describe
from recamlib.data.images import Colour, exif_orientation, image_size, read_image, read_mask, write_mask
from recamlib.data.labels import VOC12, LabelSpace, value_of_no_class
from recamlib.errors import DataError, MissingDataError, check_choice, nearest

FETCH = "get the official set with `recam data fetch voc12`"
LISTS = {"train": ("train.txt",), "val": ("val.txt",), "train_aug": ("train_aug.txt", "trainaug.txt")}
CLASSES = "classes.txt"  # in the devkit, one name a line: the classes, if they are not VOC's
LABELMAP = "labelmap.txt"  # in the devkit, as CVAT writes it: name:red,green,blue a line
OFFICIAL_TRAIN = 1464  # images in the official list, to which SBD's list belongs
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
MASKS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".jpg", ".jpeg")  # the last two to be refused by name
_OFFICIAL_ID = re.compile(r"20\d\d_\d{6}")
_HEADER = {"folder", "filename", "path", "source", "owner", "size", "segmented", "database"}
_SIZE = "<height>{}</height><width>{}</width><depth>{}</depth>"


def devkit(root: Path) -> Path:
    """Return the folder that holds ``JPEGImages``, whether `root` is it or stands above it."""
    root = Path(root)
    for folder in (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root):
        if (folder / "JPEGImages").is_dir() or (folder / "ImageSets").is_dir():
            return folder
    own = describe(root) or f"lay your own data out as book/your_data.md says, {FETCH}, or set RECAM_DATA"
    raise MissingDataError(f"no VOCdevkit/VOC2012/JPEGImages in {root}; {own}")


def list_file(folder: Path, split: str) -> Path:
    """Return the list of a split; without ``train_aug`` that of ``train``, unless SBD's belongs to it."""
    check_choice("split", split, LISTS)
    lists = folder / "ImageSets" / "Segmentation"
    for name in LISTS[split]:
        if (lists / name).is_file():
            return lists / name
    path = lists / LISTS[split][0]
    if split == "train_aug":
        train = list_file(folder, "train")
        if len(read_ids(train)) == OFFICIAL_TRAIN:
            raise MissingDataError(f"{path} is missing; get the SBD part with `recam data fetch sbd`")
        return train
    write = "write the ids of its pictures there, one a line"
    names = ("*/train.txt", "*/default.txt", "*/trainval.txt") if split == "train" else (f"*/{split}.txt",)
    others = [f for name in names for f in sorted(lists.parent.glob(name))]
    if others:  # CVAT writes default.txt; what has boxes alone has its lists in Main
        write = f"copy {others[0].relative_to(folder)} there"
    own = others or is_own(folder) or any(lists.glob("*.txt"))
    remedy = write if own else describe(folder) or f"{write}, or {FETCH}"
    raise MissingDataError(f"{path} is missing; {remedy}")


def is_own(folder: Path) -> bool:
    """Say whether a devkit states its own classes or colours, and so is not the official one."""
    return (folder / CLASSES).is_file() or (folder / LABELMAP).is_file()


def read_ids(path: Path) -> tuple[str, ...]:
    """Read a list of image ids, one a line; it may be a path, or the paths of picture and mask."""
    ids = [_id(line) for line in _lines(path)]
    for id in ids:
        if not id.isprintable() or len(id) > 200 or id in ("", ".", ".."):
            raise DataError(f"{path} names {id[:200]!r}; an image id is a short file name")
    if not ids:
        raise DataError(f"{path} is empty; write one image id a line")
    if len(set(ids)) < len(ids):
        twice, count = Counter(ids).most_common(1)[0]
        raise DataError(f"{path} names {twice!r} {count} times; keep one of the lines")
    return tuple(ids)


def _id(line: str) -> str:
    suffixes = "|".join(suffix[1:] for suffix in PICTURES)
    two = re.fullmatch(rf"(.+?\.(?:{suffixes}))\s+\S.*\.\w+", line, flags=re.IGNORECASE)  # picture and mask
    name = PurePosixPath((two[1] if two else line).replace("\\", "/")).name
    return re.sub(rf"\.(?:{suffixes}|xml)$", "", name, flags=re.IGNORECASE)


def _lines(path: Path) -> list[str]:
    """Return the lines of a text file that hold something, without what surrounds it."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); save it as plain text (UTF-8)") from None
    return [line.strip() for line in lines if line.strip()]


def own_classes(root: Path) -> tuple[str, ...]:
    """Return the classes of a devkit that lists its own; nothing for VOC's, or where there is no devkit."""
    try:
        space = space_of(devkit(root))
    except MissingDataError:
        return ()
    return () if space == VOC12 else space.classes


def space_of(folder: Path) -> LabelSpace:
    """Return the label space of a devkit: that of ``classes.txt``, else of ``labelmap.txt``, else VOC's."""
    if not is_own(folder):
        return VOC12
    mapped = [name for name in labelmap(folder) if value_of_no_class(name) is None]
    path = folder / (CLASSES if (folder / CLASSES).is_file() else LABELMAP)
    names = _lines(path) if path.name == CLASSES else mapped
    try:
        space = LabelSpace("voc12", tuple(names))
    except DataError as error:
        raise DataError(f"{path}: {error}; write one class a line") from None
    if mapped and set(mapped) != set(names):
        odd = sorted(set(mapped) ^ set(names))[0]
        raise DataError(f"{path} and {LABELMAP} differ: {odd!r} is in one of them alone; correct one")
    return space


def labelmap(folder: Path) -> dict[str, Colour]:
    """Return the colour of every name in ``labelmap.txt``, in its order; nothing where there is none."""
    path, colours = folder / LABELMAP, {}
    for line in _lines(path) if path.is_file() else ():
        if line.startswith("#"):
            continue
        match = re.match(r"(.+?):(\d+),\s*(\d+),\s*(\d+)(?::|$)", line)
        colour = tuple(int(value) for value in match.groups()[1:]) if match else (256,)
        if max(colour) > 255:
            raise DataError(f"{path}: {line[:80]!r} is not name:red,green,blue with values of 0 to 255")
        if match[1] in colours or colour in colours.values():
            raise DataError(f"{path}: {line[:80]!r} gives a name or a colour a second time; correct it")
        colours[match[1]] = colour
    return colours


def colours_of(folder: Path, space: LabelSpace) -> dict[Colour, int]:
    """Return the mask value of every colour: that of ``labelmap.txt``, or of VOC's palette without it."""
    values = {(0, 0, 0): 0}
    for name, colour in (listed := labelmap(folder)).items():
        other = value_of_no_class(name)
        values[colour] = space.index(name) + 1 if other is None else other
    return values if listed else space.colours


def _tag(element: ElementTree.Element) -> str:
    """Return the tag of an element without namespace and capitals."""
    return str(element.tag).rsplit("}", 1)[-1].lower()


def read_classes(path: Path, space: LabelSpace) -> tuple[str, ...]:
    """Read the class names of all objects in a VOC annotation, "difficult" ones too, as the authors do.

    Objects may stand at any depth, in a namespace, and in capitals.
    """
    try:
        tree = defusedxml.ElementTree.parse(path, forbid_dtd=True).getroot()
    except FileNotFoundError:
        official = f", or {FETCH}" if _OFFICIAL_ID.fullmatch(path.stem) else ""
        remedy = f"write it or take the id off the list{official}"
        raise DataError(f"{path} is missing, so the image has no labels; {remedy}") from None
    except DefusedXmlException:
        raise DataError(f"{path} declares a document type or entities; remove the declaration") from None
    except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
        raise DataError(f"{path} is not a readable XML annotation ({error}); write it again") from None
    names = []
    for thing in (element for element in tree.iter() if _tag(element) == "object"):
        names.append(next(((child.text or "").strip() for child in thing if _tag(child) == "name"), ""))
        if names[-1] not in space.classes:
            odd = f"the class {names[-1]!r}, unknown to {space.name}{nearest(names[-1], space.classes)}"
            raise DataError(f"{path} names {odd}; correct it")
    if not names:
        odd = [tree] if _tag(tree) != "annotation" else [e for e in tree if _tag(e) not in _HEADER]
        if odd:
            form = "<annotation><object><name>CLASS</name></object></annotation>"
            raise DataError(f"{path} holds <{_tag(odd[0])}> and no <object>; write {form}")
    return tuple(dict.fromkeys(names))


def _key(name: str) -> str:
    """Return a file name as it is compared: its letters composed, its suffix in lower case."""
    stem, suffix = os.path.splitext(unicodedata.normalize("NFC", name))
    return stem + suffix.lower()


@lru_cache(maxsize=16)
def _names(folder: Path, stamp: int) -> dict[str, str]:
    """Return the files of a folder by `_key`; `stamp` is its time of change."""
    return {_key(name): name for name in sorted(os.listdir(folder))}


def _find(folder: Path, id: str, suffixes: Sequence[str]) -> Path:
    """Return the file of an id, in a suffix of any case; that of the first if there is none."""
    first = folder / f"{id}{suffixes[0]}"
    names = {} if first.is_file() or not folder.is_dir() else _names(folder, folder.stat().st_mtime_ns)
    return next((folder / names[key] for s in suffixes if (key := _key(id + s)) in names), first)


class _Devkit:
    """What images and masks share; `root` is the devkit or stands above it."""

    def __init__(self, root: Path, split: str) -> None:
        self._folder = devkit(root)
        source = list_file(self._folder, split)
        self._read: dict[str, np.ndarray] = {}
        super().__init__(space_of(self._folder), read_ids(source), source=str(source))

    def path(self, id: str) -> Path:
        """Return the file of an image."""
        return _find(self._folder / "JPEGImages", id, PICTURES)

    def size(self, id: str) -> tuple[int, int]:
        return image_size(self.path(id), turned=True)

    _image_size = size

    def _labels(self, id: str) -> np.ndarray:
        if id not in self._read:
            annotation = _find(self._folder / "Annotations", id, (".xml",))
            self._read[id] = self.space.encode(read_classes(annotation, self.space))
        return self._read[id].copy()


class VocImages(_Devkit, ImageSet):
    """Images and image-level labels of a VOC devkit, turned as EXIF tags ask: as masks are drawn on them."""

    labels = _Devkit._labels

    def image(self, id: str) -> torch.Tensor:
        return read_image(self.path(id), turned=True)


class VocMasks(_Devkit, MaskSet):
    """True masks of a VOC devkit: official ones first, SBD's for the other images of ``train_aug``."""

    def __init__(self, root: Path, split: str) -> None:
        super().__init__(root, split)
        self._colours = colours_of(self._folder, self.space)

    def _file(self, id: str) -> Path:
        official = _find(self._folder / "SegmentationClass", id, MASKS)
        extra = self._folder / "SegmentationClassAug" / f"{id}.png"
        return extra if extra.is_file() and not official.is_file() else official

    def missing(self) -> tuple[str, ...]:
        return tuple(id for id in self.ids if not self._file(id).is_file())

    def _where(self, id: str) -> str:
        return str(self._file(id))

    def _mask(self, id: str) -> np.ndarray:
        mask = read_mask(self._file(id), self._colours)
        turn = exif_orientation(self.path(id))
        if turn > 1 and (turn < 5 or mask.shape[0] == mask.shape[1]):
            what = f"{self.path(id)} carries an EXIF rotation that leaves its size, so the mask may be turned"
            raise DataError(f"{what} or not; turn the pixels (`mogrify -auto-orient`) and look at both")
        if len(self.space) == 1 and mask.max(initial=0) == 255 and not (mask == 1).any():
            what = f"holds 0 and 255 alone, and 255 means 'not scored'; write 1 for {self.space.classes[0]!r}"
            raise DataError(f"{self._where(id)} {what}")
        return mask


def write_voc(folder: Path, images: ImageSet, masks: MaskSet, *, split: str, quality: int = 95) -> Path:
    """Write a data set as a devkit, ``VOCdevkit/VOC2012`` in `folder`, where other splits stay."""
    check_choice("split", split, LISTS)
    kit = Path(folder) / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (kit / part).mkdir(parents=True, exist_ok=True)
    for id in tqdm(images.ids, desc=f"writing {split}", leave=False, disable=None):
        pixels = images.image(id).permute(1, 2, 0).numpy()  # (H, W, 3)
        Image.fromarray(pixels).save(kit / "JPEGImages" / f"{id}.jpg", quality=quality, subsampling=0)
        write_mask(kit / "SegmentationClass" / f"{id}.png", masks.mask(id), masks.space.palette)
        names = (escape(name) for name in images.space.decode(images.labels(id)))
        lines = [f"<filename>{escape(id)}.jpg</filename>", f"<size>{_SIZE.format(*pixels.shape)}</size>"]
        lines += [f"<object><name>{name}</name></object>" for name in names]
        text = "\n".join(["<annotation>", *lines, "</annotation>\n"])
        (kit / "Annotations" / f"{id}.xml").write_text(text, encoding="utf-8")
    if images.space.classes != VOC12.classes:
        (kit / CLASSES).write_text("".join(f"{name}\n" for name in images.space.classes), encoding="utf-8")
    listed = kit / "ImageSets" / "Segmentation" / LISTS[split][0]
    listed.write_text("".join(f"{id}\n" for id in images.ids), encoding="utf-8")
    return kit
