"""Rows of tables and rows of pictures, from scored stages."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import joblib
import numpy as np
import torch

from recamlib.engine.device import bar
from recamlib.method.scores import iou_from_counts, masked_argmax
from recamlib.report.claims import table_row
from recamlib.report.plots import overlay, paint
from recamlib.stages.base import Split
from recamlib.stages.maps import MapStage
from recamlib.stages.saliency import Saliency, SaliencyMaps
from recamlib.stages.score import Score, SegmentationScore, fold_of


def score_table(
    scores: Mapping[str, Sequence[Score]],
    *,
    baseline: str | Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """Score rows and return them for :func:`recamlib.report.results.record`.

    ``floor`` is what no map is needed for (:attr:`recamlib.stages.score.Score.floor`); ``converged`` says
    whether the row and its baseline have, ``convergence`` by what, and ``records`` what each training told;
    ``difference_over_images`` is the interval of the difference, for the first seed, over the scored images.

    Parameters
    ----------
    scores
        Row to one score per seed. Seeds are computed side by side, one process a core.
    baseline
        Row that every other one is compared with, or the row to compare each row with, by name.
    """
    _compute(list(zip(*scores.values())) if len({len(row) for row in scores.values()}) == 1 else [])
    table: dict[str, dict[str, Any]] = {}
    for name, mine in bar(scores.items(), desc="rows"):
        partner = baseline.get(name) if isinstance(baseline, Mapping) else baseline
        base = scores.get(partner or "") if name != partner else None
        table[name] = table_row(
            [s.miou for s in mine],
            baseline=[s.miou for s in base] if base else None,
            interval=mine[0].interval(),
            difference=mine[0].interval_of_difference(base[0]) if base else None,
            **({"difference_over_images": list(mine[0].interval_of_difference(base[0]))} if base else {}),
            fixed=float(np.mean([s.fixed for s in mine])),
            best=float(np.mean([s.best for s in mine])),
            best_threshold=float(np.mean([s.best_threshold for s in mine])),
            threshold_curve=np.mean([s.result["miou"] for s in mine], 0).tolist(),
            per_class=mine[0].per_class(),
            by_label_count=mine[0].by_label_count(),
            images=mine[0].result["images"],
            floor=mine[0].floor, **convergence_of([s.of for s in (*mine, *(base or ()))]),
            records=[s.of.model.result["convergence"] for s in mine],
            average_precision=[_average_precision(s.of.model.result["convergence"]) for s in mine],
        )
    return table


def convergence_of(maps: Sequence[MapStage]) -> dict[str, Any]:
    """Return whether all have converged; in words, the first that has not, or the first."""
    answers = [stage.convergence for stage in maps]
    worst = next((a for a in answers if not a.converged), answers[0])
    return {"converged": worst.converged, "convergence": worst.text}


def _compute(by_seed: Sequence[Sequence[Score]]) -> None:
    """Score what is missing, seeds side by side where photographs and cores make that worth it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    if min(cores, len(by_seed)) < 2 or by_seed[0][0].of.dataset.name == "hoofed" or torch.cuda.is_available():
        return
    with joblib.parallel_config("loky", n_jobs=min(cores, len(by_seed)), inner_max_num_threads=1):
        joblib.Parallel()(joblib.delayed(_all_results)(seed) for seed in by_seed)


def _all_results(scores: Sequence[Score]) -> None:
    for score in scores:
        _ = score.result


def _average_precision(record: Mapping[str, float]) -> float:
    """Return the mean average precision, percent, on val of the classifier that maps come from."""
    return record.get("val_map_after", record["val_map"])


Rule = Literal["iou", "false_positives", "false_negatives"]


def examples(
    cam: MapStage, recam: MapStage, *, split: Split, count: int = 4, rule: Rule = "iou", limit: int = 0
) -> list[dict[str, Any]]:
    """Return picture rows (image, CAM, ReCAM, both masks, truth) chosen by rule, not by hand.

    Masks are at the cross-fitted thresholds. The rules:

    ``"iou"``
        The images whose IoU over their classes changes most, half of them the largest gains and half the
        largest losses, gains first.
    ``"false_positives"``, ``"false_negatives"``
        The images in which the share of pixels wrongly given to a class, or kept from one, falls most.
    """
    scores = [Score(of=stage, split=split, limit=limit) for stage in (cam, recam)]
    change, picked = _picked([score.result["cross"] for score in scores], rule, count)
    names = {"iou": "IoU", "false_positives": "false +", "false_negatives": "false −"}
    images, truth = scores[0].images, cam.dataset.masks(split)
    rows = []
    for index in picked:
        name = images.ids[index]
        picture = images.image(name).permute(1, 2, 0).numpy()  # (H, W, 3)
        row = {"caption": f"{name}\n{names[rule]} {change[index]:+.0f}", "image": picture}
        masks = {}
        for title, stage, score in zip(("CAM", "ReCAM"), (cam, recam), scores):
            maps, _ = stage.one(split, name)
            row[title] = overlay(picture, maps.numpy().max(0, initial=0))
            masks[f"{title} mask"] = paint(_mask_of(score, name), images.space, picture)
        rows.append(row | masks | {"truth": paint(truth.mask(name), images.space, picture)})
    return rows


def mask_examples(
    stages: Mapping[str, MapStage], *, split: Split, saliency: Saliency, count: int = 4
) -> list[dict[str, Any]]:
    """Return picture rows: image, saliency map, the mask of every stage by title, truth; chosen by rule.

    The rule is that of :func:`examples`, IoU from the first stage to the last one. Masks are at the
    cross-fitted thresholds.
    """
    scores = {title: Score(of=stage, split=split) for title, stage in stages.items()}
    first, *_, last = scores.values()
    change, picked = _picked([score.result["cross"] for score in (first, last)], "iou", count)
    images, truth = first.images, first.of.dataset.masks(split)
    salient = SaliencyMaps(dataset=first.of.dataset, saliency=saliency)
    rows = []
    for index in picked:
        name = images.ids[index]
        picture = images.image(name).permute(1, 2, 0).numpy()  # (H, W, 3)
        grey = salient.one(split, name)  # (H, W)
        row = {"caption": f"{name}\nIoU {change[index]:+.0f}", "image": picture}
        row["saliency"] = np.repeat(grey[..., None], 3, axis=2)
        row |= {t: paint(_mask_of(score, name), images.space, picture) for t, score in scores.items()}
        rows.append(row | {"truth": paint(truth.mask(name), images.space, picture)})
    return rows


def _picked(counts: Sequence[np.ndarray], rule: Rule, number: int) -> tuple[np.ndarray, list[int]]:
    """Return by how much what a rule looks at changes in each image (N,), and the images it picks.

    `counts` are those per image, (N, K + 1, 3), before and after.
    """
    before, after = (_per_image(np.asarray(found, dtype=np.int64), rule) for found in counts)
    change = after - before
    order = np.argsort(-change if rule == "iou" else change, kind="stable").tolist()
    ends = list(dict.fromkeys([*order[: (number + 1) // 2], *order[len(order) - number // 2 :]]))
    return change, ends if rule == "iou" else order[:number]


def _mask_of(score: Score, name: str) -> np.ndarray:
    """Return the mask (H, W) of an image at the cross-fitted threshold of its half."""
    maps, classes = score.of.one(score.split, name)
    return to_mask(maps.numpy(), classes, score.result["cross_thresholds"][fold_of(name)])


def to_mask(maps: np.ndarray, classes: Sequence[int], threshold: float) -> np.ndarray:
    """Return the mask (H, W) of maps (P, H, W): the highest class where it is above the threshold, else 0."""
    return np.array([0, *(k + 1 for k in classes)], dtype=np.uint8)[masked_argmax(maps, threshold)]


def _per_image(counts: np.ndarray, rule: Rule) -> np.ndarray:
    """Return per image, in percent, what a rule looks at; shape (N,) of counts (N, K + 1, 3).

    ``"iou"`` is the mean over the true classes; the shares of wrong pixels are of all scored pixels.
    Background is left out.
    """
    both, predicted, true = np.moveaxis(counts[:, 1:], -1, 0)  # (N, K) each
    pixels = np.maximum(counts[..., 2].sum(1), 1)
    if rule != "iou":
        wrong = (predicted if rule == "false_positives" else true) - both
        return 100 * wrong.sum(1) / pixels
    present = true > 0
    values = np.where(present, np.nan_to_num(iou_from_counts(counts[:, 1:])), 0)
    return 100 * values.sum(1) / np.maximum(present.sum(1), 1)


def prediction_examples(
    cam: SegmentationScore, recam: SegmentationScore, *, count: int = 4
) -> list[dict[str, Any]]:
    """Return picture rows: image, pseudo mask and prediction of either, truth.

    The rule is that of :func:`examples`, IoU from CAM's network to ReCAM's.
    """
    change, picked = _picked([cam.counts, recam.counts], "iou", count)
    images, truth = cam.images, cam.of.dataset.masks(cam.split)
    rows: dict[int, dict[str, Any]] = {}
    for title, score in (("CAM", cam), ("ReCAM", recam)):
        for index, (name, mask) in enumerate(score.predictions()):
            if index in picked:
                picture = images.image(name).permute(1, 2, 0).numpy()
                caption = f"{name}\nIoU {change[index]:+.0f}"
                row = rows.setdefault(index, {"caption": caption, "image": picture})
                row[f"{title} pseudo mask"] = paint(
                    score.of.masks.one(score.split, name), images.space, picture
                )
                row[f"{title} network"] = paint(mask, images.space, picture)
                if score is recam:
                    row["truth"] = paint(truth.mask(name), images.space, picture)
    return [rows[index] for index in picked]
