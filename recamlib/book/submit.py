"""The archive for the evaluation server of PASCAL VOC: images of the test split, masks predicted for them."""

import gzip
import io
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recamlib.book.export import read_network
from recamlib.data.images import image_size, read_image, read_mask, write_mask
from recamlib.data.labels import VOC12, LabelSpace
from recamlib.data.voc import devkit, read_ids, space_of
from recamlib.engine.device import bar
from recamlib.errors import DataError, SettingsError, check_choice, nearest
from recamlib.files import whole_file
from recamlib.stages.score import predicted_masks

OFFICIAL = 1456  # images of the official list for segmentation
COMPETITIONS = ("comp5", "comp6")  # trained on the images of VOC alone, or on any others as well
FOLDER = "results/VOC2012/Segmentation/{}_test_cls"

Pairs = Iterable[tuple[str, np.ndarray]]


class TestImages:
    """Images of the test split of a VOC devkit, or of a part of it: only ids, sizes and pixels."""

    __test__ = False  # pytest takes the name for a class of tests

    def __init__(self, root: Path) -> None:
        self._folder = devkit(root)
        path = self._folder / "ImageSets" / "Segmentation" / "test.txt"
        if not path.is_file():
            remedy = "sign in at the evaluation server, fetch the test images, unpack them over the devkit"
            raise DataError(f"{path} is missing; {remedy}")
        self.ids = read_ids(path)
        self.space = space_of(self._folder)

    def __len__(self) -> int:
        return len(self.ids)

    def _path(self, id: str) -> Path:
        return self._folder / "JPEGImages" / f"{id}.jpg"

    def image(self, id: str) -> torch.Tensor:
        return read_image(self._path(id))

    def size(self, id: str) -> tuple[int, int]:
        return image_size(self._path(id))


def predicted(network: Path, images: TestImages, **how: Any) -> Pairs:
    """Return id and mask of every image, predicted one by one by a network that ``recam export`` wrote."""
    if how.pop("limit", 0):
        raise SettingsError("the server wants the whole list: leave limit out")
    net, classes = read_network(network)
    if classes != images.space.classes:
        raise DataError(f"{network} knows {', '.join(classes)}; the devkit {', '.join(images.space.classes)}")
    return bar(predicted_masks(net, images, **how), total=len(images), desc="predict")


def read_predicted(folder: Path, ids: Sequence[str]) -> Pairs:
    """Return id and mask of every image of a list, read one by one from ``folder/ID.png``."""
    missing = [id for id in ids if not (folder / f"{id}.png").is_file()]
    if missing:
        hint = nearest(missing[0], sorted(path.stem for path in folder.glob("*.png"))[:2000])
        count = f"{len(missing):,} of {len(ids):,} masks"
        raise DataError(f"{count} are missing in {folder}, the first is {missing[0]}.png{hint}")
    return ((id, read_mask(folder / f"{id}.png")) for id in ids)


def write_submission(
    masks: Pairs, target: Path, *, size: Callable[[str], tuple[int, int]], space: LabelSpace = VOC12,
    competition: str = "comp6",
) -> Path:  # fmt: skip
    """Write predicted masks as the archive (``.tar.gz`` or ``.tgz``) that the evaluation server takes.

    A mask is ``(H, W)``, as `size` gives it by id, 0 to the number of classes: the server scores every pixel.
    """
    target = Path(target)
    check_choice("competition", competition, COMPETITIONS)
    if not target.name.endswith((".tar.gz", ".tgz")):
        raise SettingsError(f"{target} has to end in .tar.gz or .tgz, which the server takes")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(target) as part, part.open("wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed,  # PNG is compressed already; same bytes each time
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):  # fmt: skip
        for id, mask in masks:
            if fault := _fault(mask, size(id), space):
                raise DataError(f"mask {id!r} {fault}")
            file = io.BytesIO()
            write_mask(file, mask, space.palette)
            entry = tarfile.TarInfo(f"{FOLDER.format(competition)}/{id}.png")
            entry.size, entry.mode, entry.mtime = file.tell(), 0o644, 0
            file.seek(0)
            tar.addfile(entry, file)
            tar.members = []  # or the list of entries would grow with the split
    return target


def _fault(mask: np.ndarray, shape: tuple[int, int], space: LabelSpace) -> str:
    """Return what is wrong with the pixels of a predicted mask, with the fix; empty if nothing."""
    if mask.shape != tuple(shape):
        hint = "resize the scores to the image before taking the best class"
        if mask.shape == (shape[1], shape[0]):
            hint = "the sides are swapped: transpose the mask, or do not turn images as their EXIF tag says"
        return f"has shape {mask.shape}, its image {tuple(shape)}; {hint}"
    if mask.max() > len(space):
        count = int((mask > len(space)).sum())
        known = f"a prediction has 0 to {len(space)} only, so give every pixel a class"
        return f"holds the value {mask.max()}, {count} pixels in all are above {len(space)}; {known}"
    return ""
