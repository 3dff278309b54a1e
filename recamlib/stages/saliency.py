"""Saliency as settings and as a stage per image: what EPS trains on and EDAM merges."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from recamlib import paths
from recamlib.data.access import labels_only
from recamlib.data.images import labels_from_png, labels_to_png
from recamlib.data.saliency import SaliencyFolder, fine_grained
from recamlib.engine.device import measured, per_image
from recamlib.stages.base import DataSettings, ImageStage, Request, Settings, Split


class Saliency(Settings):
    """Where saliency maps come from: a folder of PNGs, or OpenCV's fine-grained saliency if none is named.

    ``source``, ``fingerprint`` (of the files' names and contents) and ``peak`` (the value that means 1) are
    filled in, and in the cache key; the place of the folder is not: it may be moved but not changed.
    """

    _exclude_from_cls_uid: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str = ""
    source: Literal["fine_grained", "folder"]
    fingerprint: str = ""
    peak: int = 255

    def __init__(self, **data: Any) -> None:
        folder = data.get("folder")
        data.setdefault("source", "folder" if folder else "fine_grained")
        if folder and "fingerprint" not in data:
            data |= SaliencyFolder(paths.data_dir() / folder).survey()._asdict()
        super().__init__(**data)

    def describe(self) -> str:
        if self.source == "fine_grained":
            return "OpenCV's fine-grained static saliency, made from the images alone"
        return f"folder of PNGs {self.fingerprint}, values 0 to {self.peak}"


class SaliencyMaps(ImageStage):
    """Saliency maps (H, W) of images; stored as the bytes of a grey PNG, 255 for 1."""

    dataset: DataSettings = DataSettings()
    saliency: Saliency = Saliency()
    stage: Literal["SaliencyMaps/2"] = "SaliencyMaps/2"

    def make(self, requests: Sequence[Request]) -> Iterator[dict]:
        files = self._files(name for _, name in requests)
        for split, name in requests:
            with labels_only(), measured() as cost:
                images = self.dataset.images(split)
                if files:
                    grey = files.map(name, images.image(name).shape[1:], peak=self.saliency.peak)
                else:
                    grey = fine_grained(images.image(name))
            yield {"png": labels_to_png(grey), "cost": per_image(cost, 1)}

    def _files(self, names: Iterable[str]) -> SaliencyFolder | None:
        if self.saliency.source != "folder":
            return None
        files = SaliencyFolder(paths.data_dir() / self.saliency.folder)
        files.check(names)  # what is missing is listed before the first one is read
        return files

    def check(self, *splits: Split) -> None:
        """Raise DataError if an image of these splits has no map: before anything is trained."""
        self._files(dict.fromkeys(name for split in splits for name in self.dataset.images(split).ids))

    def reader(self, split: Split) -> Callable[[str], np.ndarray]:
        """Return a function from an image's id to its map (H, W), uint8, all of them made by then."""
        ids = self.dataset.images(split).ids
        stored = self.items([(split, name) for name in ids])
        read = {name: partial(labels_from_png, item["png"]) for name, item in zip(ids, stored)}
        return lambda name: read[name]()

    def read(self, item: dict) -> np.ndarray:
        """Return the map (H, W) of a stored item, float32 in [0, 1]."""
        return labels_from_png(item["png"]) / np.float32(255)

    def one(self, split: Split, name: str) -> np.ndarray:
        """Return the map (H, W) of one image, float32 in [0, 1]."""
        return self.read(next(iter(self.items([(split, name)]))))
