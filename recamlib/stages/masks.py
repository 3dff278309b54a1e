"""Stage per image: the pseudo masks that a segmentation network learns from."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pydantic

from recamlib.data.access import labels_only
from recamlib.data.images import labels_from_png, labels_to_png
from recamlib.engine.device import measured, per_image
from recamlib.errors import DataError
from recamlib.method.scores import masked_argmax
from recamlib.stages.base import Split, Stage
from recamlib.stages.climb import AdvCams
from recamlib.stages.infra import StageCache
from recamlib.stages.maps import ExtractCams, Request
from recamlib.stages.merge import SaliencyMerge
from recamlib.stages.walk import Walk


class PseudoMasks(Stage):
    """0-1 masks of maps: the class with the highest map where it is above the threshold, else background.

    ``threshold`` is that of ``fixed`` in :class:`Score` unless given: one that was swept on true masks of the
    same images would let those masks reach the training that follows.
    """

    maps: ExtractCams | AdvCams | Walk | SaliencyMerge = pydantic.Field(ExtractCams(), discriminator="stage")
    threshold: float | None = pydantic.Field(None, ge=0, lt=1)
    stage: Literal["PseudoMasks/2"] = "PseudoMasks/2"
    infra: StageCache = StageCache()

    @infra.apply(item_uid=lambda item: item[1], cache_type="Auto")
    def make(self, items: Sequence[Request]) -> Iterator[dict[str, Any]]:
        """Yield for each (split, id) the mask as PNG bytes, its pixels per class and ignored, and cost."""
        threshold = self.maps.fixed_threshold if self.threshold is None else self.threshold
        space = self.maps.dataset.images("train_aug").space
        values = [*range(space.with_background), space.ignore]
        for item in self.maps.items(items):
            with labels_only(), measured() as cost:
                names = np.array([0, *(k + 1 for k in item["classes"])], dtype=np.uint8)
                mask = names[masked_argmax(self.maps.merge(item).numpy(), threshold)]
                png = labels_to_png(mask)
            pixels = np.bincount(mask.ravel(), minlength=256)[values]
            yield {"png": png, "pixels": pixels, "cost": per_image(cost, 1)}

    def one(self, split: Split, name: str) -> np.ndarray:
        """Return the pseudo mask (H, W), uint8, of one image, from the classes in its image-level label."""
        return labels_from_png(np.asarray(next(iter(self.make([(split, name)])))["png"]))

    def training_set(self, *, limit: int = 0) -> dict[str, np.ndarray]:
        """Return the PNG bytes of the pseudo masks of the training images, by id.

        Raises
        ------
        DataError
            If not one pixel belongs to a class: there is nothing to learn.
        """
        ids = self.maps.images("train_aug", limit=limit).ids
        stored = list(self.make([("train_aug", name) for name in ids]))
        if not sum(np.asarray(item["pixels"])[1:-1].sum() for item in stored):
            raise DataError(
                f"the {len(ids)} pseudo masks hold background alone, so there is nothing to learn; "
                "lower the threshold, or look at the maps they are made from"
            )
        return {name: np.asarray(item["png"]) for name, item in zip(ids, stored)}

    def balance(self, *, limit: int = 0) -> dict[str, float]:
        """Return the share of the training images' pixels that are background, of each class and ignored."""
        images = self.maps.images("train_aug", limit=limit)
        stored = self.make([("train_aug", name) for name in images.ids])
        pixels = sum(np.asarray(item["pixels"], dtype=np.int64) for item in stored)
        return dict(zip((*images.space.names, "ignored"), (pixels / pixels.sum()).tolist()))
