"""The package for the evaluation server of PASCAL VOC: images of the test split, masks written for them."""

import gzip
import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from recamlib.book.submit_check import (
    COMPETITIONS,
    FOLDER,
    Sizes,
    array_faults,
    check_submission,
    listed,
    lookup,
)
from recamlib.data.images import image_size, read_image, write_mask
from recamlib.data.labels import VOC12, LabelSpace
from recamlib.data.voc import devkit, read_ids
from recamlib.errors import DataError, SettingsError, nearest

__all__ = ["OFFICIAL", "TestImages", "check_submission", "write_submission"]

#: Images of the official list for segmentation.
OFFICIAL = 1456

Pairs = Iterable[tuple[str, np.ndarray]]


class TestImages:
    """Images of the test split of a VOC devkit: no labels, no masks, only ids, sizes and pixels.

    Parameters
    ----------
    root
        Folder of the devkit, or a folder above it. The list is ``ImageSets/Segmentation/test.txt``; any
        subset of the official one will do, and `part` then says so.
    """

    __test__ = False  # pytest takes the name for a class of tests

    def __init__(self, root: Path) -> None:
        self._folder = devkit(root)
        path = self._folder / "ImageSets" / "Segmentation" / "test.txt"
        if not path.is_file():
            remedy = "sign in at the evaluation server, fetch the test images, unpack them over the devkit"
            raise DataError(f"{path} is missing; {remedy}")
        self.source = str(path)
        self.ids = read_ids(path)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def part(self) -> str:
        """Say that the list is not as long as the official one; empty if it is."""
        if len(self) == OFFICIAL:
            return ""
        return f"{self.source} has {len(self):,} ids, the official list {OFFICIAL:,}: this is a part"

    def path(self, id: str) -> Path:
        """Return the file of an image."""
        return self._folder / "JPEGImages" / f"{id}.jpg"

    def image(self, id: str) -> torch.Tensor:
        """Return one image, shape ``(3, H, W)``, uint8, RGB."""
        return read_image(self.path(id))

    def size(self, id: str) -> tuple[int, int]:
        """Return ``(H, W)`` in pixels from the header of the file."""
        return image_size(self.path(id))


def write_submission(
    masks: Pairs,
    target: Path,
    *,
    ids: Sequence[str],
    sizes: Sizes,
    space: LabelSpace = VOC12,
    competition: str = "comp6",
) -> Path:
    """Write predicted masks as the archive that the evaluation server takes.

    One mask is held at a time. The same masks give the same bytes. The archive appears when it is complete:
    until then, and after an error, there is none (or the earlier one).

    Parameters
    ----------
    masks
        Pairs of id and mask, in the order of `ids`; a mask has shape ``(H, W)``, uint8, values 0 (background)
        to the number of classes. 255 is refused: the server scores every pixel.
    target
        File to write, ``.tar.gz`` or ``.tgz``.
    ids
        The whole list of the split.
    sizes
        Gives ``(H, W)`` of an image by its id, a function or a dictionary.
    space
        Label space; its palette goes into the files.
    competition
        ``comp6`` if anything but the images of VOC was trained on (SBD, ImageNet, COCO), else ``comp5``.

    Returns
    -------
    `target`.

    Raises
    ------
    SettingsError
        If the competition or the suffix of the file is unknown.
    DataError
        If a mask is missing, out of order, of another size than its image, or holds another value.
    """
    target = Path(target)
    if competition not in COMPETITIONS:
        hint = nearest(competition, COMPETITIONS)
        raise SettingsError(f"no competition {competition!r}{hint}; there are {', '.join(COMPETITIONS)}")
    if not target.name.endswith((".tar.gz", ".tgz")):
        raise SettingsError(f"{target} has to end in .tar.gz or .tgz, which the server takes")
    ids, size = listed(ids), lookup(sizes)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part{os.getpid()}")
    try:
        with (
            part.open("wb") as raw,
            gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed,  # PNG is compressed already
            tarfile.open(fileobj=packed, mode="w") as tar,
        ):
            for id, mask in _in_order(masks, ids):
                faults = [*array_faults(np.asarray(mask), size(id), space)]
                if faults:
                    raise DataError(f"mask {id!r} {faults[0]}")
                file = io.BytesIO()
                write_mask(file, mask, space.palette)
                entry = tarfile.TarInfo(f"{FOLDER.format(competition)}/{id}.png")
                entry.size, entry.mode, entry.mtime = file.tell(), 0o644, 0
                file.seek(0)
                tar.addfile(entry, file)
                tar.members = []  # or the list of entries would grow with the split
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return target


def _in_order(masks: Pairs, ids: Sequence[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Hand pairs of id and mask on as long as they follow the list, to its end."""
    count, known = 0, set(ids)
    for id, mask in masks:
        if id not in known:
            raise DataError(f"mask {id!r} is not on the list{nearest(id, ids[:2000])}; leave it out")
        if count == len(ids) or id != ids[count]:
            wanted = repr(ids[count]) if count < len(ids) else "the end"
            raise DataError(f"mask {id!r} came where {wanted} was expected; keep the order of the list")
        yield id, mask
        count += 1
    if count < len(ids):
        missing = f"{len(ids) - count} of {len(ids)} masks are missing, the first is {ids[count]!r}"
        raise DataError(f"{missing}; the server wants the whole list")
