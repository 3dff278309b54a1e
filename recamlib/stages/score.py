"""Stages that open the true masks: scores of maps, of segmentation networks and of saliency itself."""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pydantic
from torch import Tensor

from recamlib.data.access import ImageSet
from recamlib.engine.device import bar, default_device, measured
from recamlib.engine.predict import segment_image
from recamlib.method import scores
from recamlib.method.crf import crf_many, crf_probabilities
from recamlib.method.scores import THRESHOLDS, ThresholdSweep, mean_iou
from recamlib.models.base import fold_batch_norm
from recamlib.models.segmenters import Segmenter
from recamlib.stages.base import DataSettings, Split, Stage, WholeStage
from recamlib.stages.maps import AdvCams, ExtractCams
from recamlib.stages.refine import SaliencyMerge, Walk
from recamlib.stages.saliency import Saliency, SaliencyMaps
from recamlib.stages.segment import TrainSegmenter, TrainUpperBound

Mask = tuple[str, np.ndarray]
MULTI_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of evaluation, each with its mirror image


def fold_of(name: str) -> int:
    """Return the half (0 or 1) an image belongs to when thresholds are chosen on the other."""
    return hashlib.sha256(name.encode()).digest()[0] % 2


class _Counted(WholeStage):
    """A score: mean IoU of counts per image, with intervals from drawing the images again; in percent."""

    counted: ClassVar[str] = "counts"  # where they are in the result

    @property
    def images(self) -> ImageSet:
        return self.of.dataset.images(self.split, limit=self.limit)

    @property
    def counts(self) -> np.ndarray:
        """Intersection, prediction and truth per image and class, shape (N, C, 3)."""
        return np.asarray(self.result[self.counted], dtype=np.int64)

    @property
    def miou(self) -> float:
        return 100 * float(scores.mean_iou_from_counts(self.counts.sum(0)))

    @property
    def floor(self) -> float:
        """Mean IoU that needs no map: all background, or one label of each image all over it."""
        return 100 * scores.floor_iou(self.counts)

    def per_class(self) -> dict[str, float]:
        """Return the IoU of background and every class."""
        return dict(zip(self.images.space.names, (100 * scores.iou_from_counts(self.counts.sum(0))).tolist()))

    def interval(self) -> tuple[float, float]:
        """Return the 95 % bootstrap interval over images."""
        low, high = scores.bootstrap_interval(self.counts, seed=0)
        return 100 * low, 100 * high

    def interval_of_difference(
        self, other: "_Counted", *, among: np.ndarray | slice = slice(None)
    ) -> tuple[float, float]:
        """Return the 95 % paired bootstrap interval of the difference to another, `among` images (N,)."""
        low, high = scores.bootstrap_contrast([self.counts[among], other.counts[among]], (1, -1), seed=0)
        return 100 * low, 100 * high


class Score(_Counted):
    """Score pseudo masks of a split against the true masks, at every background threshold.

    Of three thresholds ``fixed`` is the published one, ``best`` is swept on the scored images themselves, as
    published, and ``cross`` scores either half of the images at the best of the other half. ``limit`` scores
    a random part of the split, the same one for every method.
    """

    of: ExtractCams | AdvCams | Walk | SaliencyMerge = pydantic.Field(ExtractCams(), discriminator="stage")
    split: Split = "train"
    limit: int = pydantic.Field(0, ge=0)
    stage: Literal["Score/3"] = "Score/3"
    work = "here"
    counted = "cross"

    def make(self) -> dict[str, Any]:
        images, truth = self.images, self.of.dataset.masks(self.split)
        classes, thresholds = images.space.with_background, self.of.thresholds
        halves = [ThresholdSweep(classes, thresholds=thresholds) for _ in range(2)]
        self.of.run(self.split, limit=self.limit)  # what is missing upstream is made first, and not read
        with measured() as cost:
            stream = self.of.maps(self.split, limit=self.limit)
            for name, maps, present in bar(stream, total=len(images.ids), desc="score"):
                halves[fold_of(name)].add(maps, present, truth.mask(name))
        filled = [half for half in halves if len(half)]
        miou = np.array([mean_iou(np.sum([half.at(t) for half in filled], axis=0)) for t in thresholds])
        chosen = [other.best if len(other) else half.best for half, other in (halves, halves[::-1])]
        counts = {
            "cross": [half.per_image(t) for half, t in zip(halves, chosen)],
            "fixed": [half.per_image(self.of.fixed_threshold) for half in halves],
        }
        order = np.argsort([i for fold in (0, 1) for i, n in enumerate(images.ids) if fold_of(n) == fold])
        return {
            "miou": miou.tolist(), "thresholds": list(thresholds), "cross_thresholds": chosen,
            **{name: np.concatenate(parts)[order].astype(np.int32) for name, parts in counts.items()},
            "images": len(images.ids), "cost": cost,
        }  # fmt: skip

    @cached_property
    def masked(self) -> bool:
        return self.of.dataset.masked(self.split)

    @property
    def fixed(self) -> float:
        """Mean IoU at the published threshold."""
        return 100 * float(scores.mean_iou_from_counts(np.sum(self.result["fixed"], axis=0)))

    @property
    def best(self) -> float:
        """Mean IoU at the threshold that is best on the scored images themselves."""
        return 100 * max(self.result["miou"])

    @property
    def best_threshold(self) -> float:
        return self.result["thresholds"][int(np.argmax(self.result["miou"]))]

    def by_label_count(self) -> dict[str, float]:
        """Return the mean IoU of the images with one class, and of those with several (Figure 6b)."""
        groups = {name: self.counts[mask].sum(0) for name, mask in self.groups().items()}
        return {name: 100 * float(scores.mean_iou_from_counts(counts)) for name, counts in groups.items()}

    def groups(self) -> dict[str, np.ndarray]:
        """Return which images (N,) have one class and which several, where there are any."""
        present = self.images.label_matrix().sum(1)
        masks = {"single": present == 1, "multi": present > 1}
        return {name: mask for name, mask in masks.items() if mask.any()}


class SegmentationScore(_Counted):
    """Score of a segmentation network: scales, mirror image and CRF are settings, each a number apart."""

    of: TrainSegmenter | TrainUpperBound = pydantic.Field(TrainSegmenter(), discriminator="stage")
    split: Split = "val"
    limit: int = pydantic.Field(0, ge=0)
    scales: tuple[float, ...] = (1.0,)
    mirror: bool = False
    crf: bool = False
    window: int = pydantic.Field(0, ge=0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    stage: Literal["SegmentationScore/2"] = "SegmentationScore/2"

    @property
    def label(self) -> str:
        """What kind of number it is, for tables: scales, mirror image, CRF, supervision."""
        parts = ["single-scale" if len(self.scales) == 1 else f"{len(self.scales)} scales"]
        parts += ["mirrored"] * self.mirror + ["CRF" if self.crf else "no CRF"]
        return ", ".join(parts + ["TRUE MASKS"] * isinstance(self.of, TrainUpperBound))

    def predictions(self) -> Iterator[Mask]:
        """Yield id and predicted mask (H, W), uint8, of every image."""
        how = {name: getattr(self, name) for name in ("scales", "mirror", "crf", "window", "precision")}
        return predicted_masks(self.of.load(), self.images, **how)

    def make(self) -> dict[str, Any]:
        images, truth = self.images, self.of.dataset.masks(self.split)
        _ = self.of.result  # the network is trained before the clock starts: it has a record of its own
        with measured() as cost:
            stream = bar(self.predictions(), total=len(images), desc="segment")
            counts = [
                scores.class_counts(mask, truth.mask(name), num_classes=images.space.with_background)
                for name, mask in stream
            ]
        return {"counts": np.stack(counts).astype(np.int32), "cost": cost, "images": len(images)}


def predicted_masks(net: Segmenter, images: Any, *, crf: bool = False, **how: Any) -> Iterator[Mask]:
    """Yield id and predicted mask (H, W), uint8, of every image; `how` goes to `segment_image`."""
    net = fold_batch_norm(net, default_device())

    def probabilities(name: str) -> Tensor:
        return segment_image(net.predict, images.image(name), device=default_device(), **how)

    stream: Iterator[Any] = (probabilities(name) for name in images.ids)  # (K + 1, H, W) each
    if crf:
        pairs = ({"image": images.image(n), "probabilities": p} for n, p in zip(images.ids, stream))
        stream = crf_many(crf_probabilities, pairs)
    for name, each in zip(images.ids, stream):
        yield name, np.asarray(each.argmax(0), dtype=np.uint8)


class SaliencyScore(_Counted):
    """How well saliency maps find the objects of all classes together: IoU of the foreground at ``theta``."""

    dataset: DataSettings = DataSettings()
    saliency: Saliency = Saliency()
    theta: float = pydantic.Field(0.2, ge=0, le=1)
    split: Split = "train"
    stage: Literal["SaliencyScore/2"] = "SaliencyScore/2"
    work = "here"

    @property
    def upstream(self) -> tuple[Stage, ...]:
        return (SaliencyMaps(dataset=self.dataset, saliency=self.saliency),)

    def make(self) -> dict[str, Any]:
        images, truth = self.dataset.images(self.split), self.dataset.masks(self.split)
        (maps,) = self.upstream
        stored = zip(images.ids, maps.items([(self.split, name) for name in images.ids]))
        sweep = ThresholdSweep(2, thresholds=sorted({*THRESHOLDS, self.theta}), keep=(self.theta,))
        with measured() as cost:
            for name, item in bar(stored, total=len(images), desc="saliency"):
                mask = truth.mask(name)
                there = np.where(mask == images.space.ignore, 255, mask > 0).astype(np.uint8)
                sweep.add(maps.read(item)[None], [0], there)
        confusions = np.stack([sweep.at(t) for t in sweep.thresholds])  # (T, 2, 2), truth by row
        return {
            "iou": (confusions[:, 1, 1] / (confusions.sum((1, 2)) - confusions[:, 0, 0])).tolist(),
            "thresholds": list(sweep.thresholds),
            "share": float(confusions[0, 1].sum() / confusions[0].sum()),
            "counts": sweep.per_image(self.theta).astype(np.int32), "images": len(images), "cost": cost,
        }  # fmt: skip

    @property
    def counts(self) -> np.ndarray:
        return super().counts[:, 1:]
