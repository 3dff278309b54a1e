"""Stage that scores predictions of a segmentation network on true masks."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from recamlib.data.access import ImageSet
from recamlib.engine.device import bar, default_device, measured
from recamlib.engine.predict import segment_image
from recamlib.method.crf import ProbabilityJob, crf_many
from recamlib.method.scores import bootstrap_difference, bootstrap_interval, class_counts, iou_from_counts
from recamlib.models.fold import fold_batch_norm
from recamlib.stages.base import Split, Stage
from recamlib.stages.infra import StageCache
from recamlib.stages.segment import TrainSegmenter, TrainUpperBound

MULTI_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
"""Scales of multi-scale evaluation, each with its mirror image."""


class SegmentationScore(Stage):
    """mIoU of a segmentation network: scales, mirror image and CRF are settings, so each is a number apart.

    Nothing is chosen on the scored images: there is no threshold. Memory does not grow with the split, but
    for three counts per class and image.
    """

    of: TrainSegmenter | TrainUpperBound = pydantic.Field(TrainSegmenter(), discriminator="stage")
    split: Split = "val"
    limit: int = pydantic.Field(0, ge=0)
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False
    crf: bool = False
    window: int = pydantic.Field(0, ge=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    stage: Literal["SegmentationScore/2"] = "SegmentationScore/2"
    infra: StageCache = StageCache(work="whole")

    @property
    def images(self) -> ImageSet:
        """The images that are scored."""
        images = self.of.dataset.images(self.split)
        return images.select(limit=self.limit) if self.limit else images

    @property
    def label(self) -> str:
        """What kind of number it is, for tables: scales, mirror image, CRF, supervision."""
        parts = ["single-scale" if len(self.scales) == 1 else f"{len(self.scales)} scales"]
        parts += ["mirrored"] * self.mirror + ["CRF" if self.crf else "no CRF"]
        return ", ".join(parts + ["TRUE MASKS"] * isinstance(self.of, TrainUpperBound))

    def predictions(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield (id, predicted mask (H, W), uint8) for every image, none of them kept."""
        net = fold_batch_norm(self.of.load()).to(default_device(), memory_format=torch.channels_last)
        images = self.images

        def probabilities(name: str) -> Tensor:
            return segment_image(
                net.predict, images.image(name), scales=self.scales, mirror=self.mirror, window=self.window,
                device=default_device(), precision=self.precision,
            )  # fmt: skip

        if self.crf:
            jobs = (ProbabilityJob(images.image(name), probabilities(name)) for name in images.ids)
            yield from ((name, p.argmax(0).astype(np.uint8)) for name, p in zip(images.ids, crf_many(jobs)))
            return
        for name in images.ids:
            yield name, probabilities(name).argmax(0).to(torch.uint8).numpy()

    @infra.apply(item_uid=str, cache_type="Auto")
    def evaluate(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the counts per image (N, K + 1, 3), cost and number of images."""
        for _ in items:
            images, truth = self.images, self.of.dataset.masks(self.split)
            classes = images.space.with_background
            _ = self.of.result  # the network is trained before the clock starts: it has a record of its own
            with measured() as cost:
                found = self.predictions()
                stream = bar(found, total=len(images), desc="segment")
                counts = [class_counts(mask, truth.mask(n), num_classes=classes) for n, mask in stream]
            yield {"counts": np.stack(counts).astype(np.int32), "cost": cost, "images": len(images)}

    @cached_property
    def result(self) -> dict[str, Any]:
        """Counts, cost and number of images."""
        return self._single(self.evaluate, "score")

    @cached_property
    def counts(self) -> np.ndarray:
        """Intersection, prediction and truth per image and class, shape (N, K + 1, 3)."""
        return np.asarray(self.result["counts"], dtype=np.int64)

    @property
    def miou(self) -> float:
        """mIoU in percent."""
        return 100 * float(np.nanmean(iou_from_counts(self.counts.sum(0))))

    def per_class(self) -> dict[str, float]:
        """IoU in percent of background and every class."""
        return dict(zip(self.images.space.names, (100 * iou_from_counts(self.counts.sum(0))).tolist()))

    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval over images of :attr:`miou`, percent."""
        low, high = bootstrap_interval(self.counts, seed=0)
        return 100 * low, 100 * high

    def interval_of_difference(self, other: "SegmentationScore") -> tuple[float, float]:
        """95 % paired bootstrap interval over images of the difference to another score, percent."""
        low, high = bootstrap_difference(self.counts, other.counts, seed=0)
        return 100 * low, 100 * high
