"""Saliency maps of images: a folder of PNGs, or OpenCV's fine-grained ones. Never from masks of classes."""

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from recamlib.data.images import read_grey
from recamlib.errors import DataError, RecamError


class Survey(NamedTuple):
    """What a folder of saliency maps holds: a digest of names and contents, and the value that means 1."""

    fingerprint: str
    peak: int


def fine_grained(image: Tensor) -> np.ndarray:
    """Return how much each pixel differs from its surroundings: OpenCV's fine-grained static saliency.

    Of an image ``(3, H, W)``, RGB, it is ``(H, W)``, both uint8. Source: Montabone and Soto (2010). A
    stand-in that needs no download, not what EPS and EDAM were published with.
    """
    try:
        import cv2

        finder = cv2.saliency.StaticSaliencyFineGrained_create()
    except (ImportError, AttributeError) as error:
        remedy = "uninstall every opencv package, then install opencv-contrib-python-headless alone"
        why = f"OpenCV has no saliency module here ({error}): {remedy}"
        raise RecamError(f"{why}, or name a folder of saliency maps") from None
    found = finder.computeSaliency(image.permute(1, 2, 0).flip(2).contiguous().numpy())[1]  # BGR in
    return np.rint(255 * found).clip(0, 255).astype(np.uint8)


class SaliencyFolder:
    """Saliency maps stored as one PNG per image, ``ID.png``: grey, 0 to 255 or 0 to 100, any size."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is no folder; name one that holds a saliency map ID.png an image")
        if not next(self.folder.glob("*.png"), None):
            raise DataError(f"{self.folder} holds no PNG; a saliency map is called ID.png")

    def survey(self) -> Survey:
        """Return fingerprint and scale of the folder; read once per process."""
        return _survey(self.folder.resolve())

    def check(self, ids: Iterable[str]) -> None:
        """Raise one DataError that counts the images without a map and names some of them."""
        ids = tuple(ids)
        missing = sorted(id for id in ids if not (self.folder / f"{id}.png").is_file())
        if missing:
            names = ", ".join(missing[:5]) + ", ..." * (len(missing) > 5)
            lacking = f"{len(missing)} of {len(ids)} images have no saliency map in {self.folder}: {names}"
            raise DataError(f"{lacking}; add ID.png for each, or leave the images out")

    def map(self, id: str, size: tuple[int, int], *, peak: int) -> np.ndarray:
        """Return the map of an image, shape `size` (H, W), uint8, 255 for 1."""
        # rounded down: at most theta times `peak` stays at most theta times 255
        values = read_grey(self.folder / f"{id}.png").astype(np.int64).clip(0, peak) * 255 // peak
        found = torch.from_numpy(values.astype(np.uint8))[None]  # (1, h, w)
        return transforms.resize(found, list(size), antialias=True)[0].numpy()  # bilinear


@functools.lru_cache(maxsize=8)
def _survey(folder: Path) -> Survey:
    digest, highest = hashlib.sha256(), 0
    for path in sorted(folder.glob("*.png")):
        content = path.read_bytes()
        digest.update(f"{path.name}\n{len(content)}\n".encode() + content)
        if highest <= 100:  # once a value exceeds 100, the scale is known
            highest = max(highest, int(read_grey(path).max()))
    if highest <= 1:
        raise DataError(f"the maps in {folder} hold no value above 1; store saliency as 0 to 255 or 0 to 100")
    return Survey(digest.hexdigest()[:12], 255 if highest > 100 else 100)
