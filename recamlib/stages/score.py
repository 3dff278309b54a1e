"""Stages that open the true masks: mIoU of maps at fixed, best and cross-fitted thresholds."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import exca
import numpy as np
from tqdm.auto import tqdm

from recamlib.claims import table_row
from recamlib.metrics import (
    bootstrap_difference,
    bootstrap_interval,
    iou_from_counts,
    mean_iou,
    split_single_multi,
)  # fmt: skip
from recamlib.plots import overlay, paint
from recamlib.provenance import measured
from recamlib.stages.base import Split, Stage
from recamlib.stages.classify import Reactivate, TrainClassifier
from recamlib.stages.maps import ExtractCams, WeightOption
from recamlib.sweep import THRESHOLDS, ThresholdSweep

BACKGROUND = {"cam": 0.15, "recam": 0.21}  # published fixed thresholds; 0.21 is ReCAM's on VOC


def fold_of(name: str) -> int:
    """Return the half (0 or 1) an image belongs to when thresholds are chosen on the other."""
    return hashlib.sha256(name.encode()).digest()[0] % 2


class Score(Stage):
    """Score pseudo masks of a split against the true masks, at every background threshold.

    Three thresholds are told apart: ``fixed`` is the published one; ``best`` is swept on the scored images
    themselves, as the published evaluation does; ``cross`` scores either half of the images at the threshold
    that is best on the other half, so that nothing is chosen on the images it is reported on.
    """

    of: ExtractCams = ExtractCams()
    split: Split = "train"
    stage: Literal["Score"] = "Score"
    infra: exca.MapInfra = exca.MapInfra(version="1")

    @infra.apply(item_uid=str, cache_type="Auto")
    def evaluate(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield mIoU per threshold, and counts per image (N, K + 1, 3) at the cross-fitted and fixed ones."""
        for _ in items:
            dataset = self.of.model.dataset
            images, truth = dataset.images(self.split), dataset.masks(self.split)
            classes = images.space.with_background
            halves = [ThresholdSweep(classes), ThresholdSweep(classes)]
            with measured() as cost:
                stream = self.of.maps(self.split)
                for name, maps, present in tqdm(
                    stream, total=len(images.ids), desc="score", leave=False, disable=None
                ):
                    halves[fold_of(name)].add(maps, present, truth.mask(name))
            filled = [half for half in halves if len(half)]
            miou = np.array([mean_iou(sum(half.at(t) for half in filled)) for t in THRESHOLDS])
            chosen = [other.best if len(other) else half.best for half, other in (halves, halves[::-1])]
            counts = {
                "cross": [half.per_image(t) for half, t in zip(halves, chosen)],
                "fixed": [half.per_image(self.fixed_threshold) for half in halves],
            }
            order = np.argsort([i for fold in (0, 1) for i, n in enumerate(images.ids) if fold_of(n) == fold])
            yield {
                "miou": miou.tolist(), "thresholds": list(THRESHOLDS), "cross_thresholds": chosen,
                **{name: np.concatenate(parts)[order].astype(np.int32) for name, parts in counts.items()},
                "images": len(images.ids), "cost": cost,
            }  # fmt: skip

    @property
    def fixed_threshold(self) -> float:
        """The published background threshold for these maps."""
        reactivated = isinstance(self.of.model, Reactivate) and self.of.model.sce_weight > 0
        on_voc = self.of.model.dataset.name == "voc12"
        return BACKGROUND["recam" if reactivated and on_voc else "cam"]

    @cached_property
    def result(self) -> dict[str, Any]:
        """Everything :meth:`evaluate` counted."""
        return self._single(self.evaluate, "score")

    @property
    def miou(self) -> float:
        """mIoU in percent at the cross-fitted thresholds."""
        return 100 * self._mean(self.result["cross"])

    @property
    def fixed(self) -> float:
        """mIoU in percent at the published threshold."""
        return 100 * self._mean(self.result["fixed"])

    @property
    def best(self) -> float:
        """mIoU in percent at the threshold that is best on the scored images themselves."""
        return 100 * max(self.result["miou"])

    @property
    def best_threshold(self) -> float:
        """That threshold."""
        return self.result["thresholds"][int(np.argmax(self.result["miou"]))]

    @staticmethod
    def _mean(counts: np.ndarray) -> float:
        return float(np.nanmean(iou_from_counts(np.asarray(counts, dtype=np.int64).sum(0))))

    def per_class(self) -> dict[str, float]:
        """IoU in percent of background and every class, at the cross-fitted thresholds."""
        names = self.of.model.dataset.images(self.split).space.names
        values = 100 * iou_from_counts(np.asarray(self.result["cross"], dtype=np.int64).sum(0))
        return dict(zip(names, values.tolist()))

    def by_label_count(self) -> dict[str, float]:
        """mIoU in percent of the images with one class, and of those with several (Figure 6b)."""
        labels = self.of.model.dataset.images(self.split).label_matrix()
        groups = zip(("single", "multi"), split_single_multi(labels))
        return {name: 100 * self._mean(self.result["cross"][mask]) for name, mask in groups if mask.any()}

    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval over images of :attr:`miou`, percent."""
        low, high = bootstrap_interval(np.asarray(self.result["cross"]), seed=0)
        return 100 * low, 100 * high

    def interval_of_difference(self, other: "Score") -> tuple[float, float]:
        """95 % paired bootstrap interval over images of the difference to another score, percent."""
        low, high = bootstrap_difference(
            np.asarray(self.result["cross"]), np.asarray(other.result["cross"]), seed=0
        )
        return 100 * low, 100 * high


def cams_of(
    models: Sequence[TrainClassifier | Reactivate], *, scales: Sequence[float], weights: WeightOption = "w"
) -> list[ExtractCams]:
    """Return one extraction per model (one model per seed)."""
    return [ExtractCams(model=model, scales=tuple(scales), weights=weights) for model in models]


def score_table(
    rows: Mapping[str, Sequence[ExtractCams]], *, split: Split, baseline: str | None = None
) -> dict[str, dict[str, Any]]:
    """Score rows (one extraction per seed each) and return them for :func:`recamlib.claims.record`."""
    table: dict[str, dict[str, Any]] = {}
    scores: dict[str, list[Score]] = {}
    for name, stages in tqdm(rows.items(), desc="rows", leave=False, disable=None):
        scores[name] = [Score(of=stage, split=split) for stage in stages]
        mine, base = scores[name], scores.get(baseline or "")
        compared = base is not None and name != baseline
        table[name] = table_row(
            [s.miou for s in mine],
            baseline=[s.miou for s in base] if compared else None,
            interval=mine[0].interval(),
            difference=mine[0].interval_of_difference(base[0]) if compared else None,
            fixed=float(np.mean([s.fixed for s in mine])),
            best=float(np.mean([s.best for s in mine])),
            best_threshold=float(np.mean([s.best_threshold for s in mine])),
            threshold_curve=np.mean([s.result["miou"] for s in mine], 0).tolist(),
            per_class=mine[0].per_class(),
            by_label_count=mine[0].by_label_count(),
        )
    return table


def examples(cam: ExtractCams, recam: ExtractCams, *, split: Split, count: int = 4) -> list[dict[str, Any]]:
    """Return picture rows (image, CAM, ReCAM, both masks, truth) chosen by rule, not by hand.

    The rule: the images whose IoU over the classes present changes most between the two methods, half of
    them the largest gains and half the largest losses, gains first. Masks are at the cross-fitted thresholds.
    """
    scores = [Score(of=stage, split=split) for stage in (cam, recam)]
    change = np.subtract(*[_per_image_iou(s) for s in scores[::-1]])
    order = np.argsort(-change, kind="stable")
    picked = [*order[: (count + 1) // 2], *order[len(order) - count // 2 :]]
    dataset = cam.model.dataset
    images, truth = dataset.images(split), dataset.masks(split)
    rows = []
    for index in picked:
        name = images.ids[index]
        picture = images.image(name).permute(1, 2, 0).numpy()  # (H, W, 3)
        row = {"caption": f"{name}\nIoU {change[index]:+.0f}", "image": picture}
        masks = {}
        for title, stage, score in (("CAM", cam, scores[0]), ("ReCAM", recam, scores[1])):
            item = next(stage.extract([(split, name)]))
            maps = stage.merge(item).numpy()  # (P, H, W)
            threshold = score.result["cross_thresholds"][fold_of(name)]
            row[title] = overlay(picture, maps.max(0))
            masks[f"{title} mask"] = paint(to_mask(maps, item["classes"], threshold), images.space, picture)
        rows.append(row | masks | {"truth": paint(truth.mask(name), images.space, picture)})
    return rows


def to_mask(maps: np.ndarray, classes: Sequence[int], threshold: float) -> np.ndarray:
    """Return the mask (H, W) of maps (P, H, W): the highest class where it is above the threshold, else 0."""
    if not len(maps):
        return np.zeros(maps.shape[1:], dtype=np.uint8)
    values = np.asarray(classes, dtype=np.uint8)[maps.argmax(0)] + 1
    return np.where(maps.max(0) > np.float32(threshold), values, 0).astype(np.uint8)


def _per_image_iou(score: Score) -> np.ndarray:
    """Return per image the mean IoU in percent over its true classes, background left out; shape (N,)."""
    counts = np.asarray(score.result["cross"], dtype=np.int64)[:, 1:]
    present = counts[..., 2] > 0
    values = np.where(present, np.nan_to_num(iou_from_counts(counts)), 0)
    return 100 * values.sum(1) / np.maximum(present.sum(1), 1)
