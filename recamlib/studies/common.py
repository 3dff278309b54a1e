"""What studies share: stages from settings, rows of tables and rows of pictures from scored stages."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeVar

import joblib
import numpy as np
import torch

from recamlib.engine.device import bar
from recamlib.errors import SettingsError
from recamlib.method.crf import usable
from recamlib.method.scores import iou_from_counts
from recamlib.report.claims import table_row
from recamlib.report.plots import overlay, paint
from recamlib.stages.base import Settings, Split
from recamlib.stages.maps import MapStage
from recamlib.stages.saliency import Saliency, SaliencyMaps
from recamlib.stages.score import Score, SegmentationScore, fold_of
from recamlib.stages.segment import to_mask

S = TypeVar("S", bound=Settings)
MEANS = ("fixed", "best", "best_threshold")  # of a score that a row has the mean of
Blocks = Mapping[str, Mapping[str, Any]]  # settings by name: of a stage's class, or of a network
Columns = dict[str, Callable[[str, np.ndarray], np.ndarray]]  # of picture rows, from an image's id and pixels
Rule = Literal["iou", "false_positives", "false_negatives"]
RULES = {"iou": "IoU", "false_positives": "false +", "false_negatives": "false −"}


def make(stage: type[S], settings: Blocks, **given: Any) -> S:
    """Return a stage from what a table gives it and the settings under its class's name.

    A dense CRF that is wanted and not there is left out, with a warning.

    >>> from recamlib.stages.classify import TrainClassifier
    >>> make(TrainClassifier, {"TrainClassifier": {"lr": 0.05}}, seed=1).lr
    0.05
    """
    own = settings.get(stage.__name__, {})
    if both := [name for name in own if name in given]:
        raise SettingsError(f"{stage.__name__}.{both[0]} is not a setting here: the table gives it itself")
    values = {**given, **own}
    if "crf" in stage.model_fields:
        values["crf"] = usable(values.get("crf", stage.model_fields["crf"].default))
    return stage(**values)


def score_table(
    scores: Mapping[str, Sequence[Score]], *, baseline: str | Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Score rows, one score per seed each, and return them for :func:`recamlib.report.results.record`.

    `baseline` is the row that every other one is compared with, or the row to compare each row with; a row's
    ``converged`` is of its baseline too. Where no image has a true mask, it tells how training went alone.
    """
    masked = next(iter(scores.values()))[0].masked
    even = len({len(row) for row in scores.values()}) == 1
    _compute(list(zip(*scores.values())) if even and masked else [])
    table: dict[str, dict[str, Any]] = {}
    for name, mine in bar(scores.items(), desc="rows"):
        partner = baseline.get(name) if isinstance(baseline, Mapping) else baseline
        base = scores.get(partner or "") if name != partner else None
        records = [s.of.model.result["convergence"] for s in mine]
        shared: dict[str, Any] = {
            "images": len(mine[0].images), "records": records, "trained": [s.of.model.uid for s in mine],
            "average_precision": [r.get("val_map_after", r["val_map"]) for r in records],
            **convergence_of([s.of for s in (*mine, *(base or ()))]),
        }  # fmt: skip
        if not masked:
            table[name] = {"seeds": len(mine), **shared}
            continue
        if base:
            shared["difference_over_images"] = list(mine[0].interval_of_difference(base[0]))
        table[name] = scored_row(
            mine, base, threshold_curve=np.mean([s.result["miou"] for s in mine], 0).tolist(),
            by_label_count=mine[0].by_label_count(), **shared,
            **{name: float(np.mean([getattr(s, name) for s in mine])) for name in MEANS},
        )  # fmt: skip
    return table


def scored_row(mine: Sequence[Any], partner: Sequence[Any] | None, **more: Any) -> dict[str, Any]:
    """Return a row of scores, one a seed, with its difference to a partner."""
    return table_row(
        [s.miou for s in mine], baseline=[s.miou for s in partner] if partner else None,
        interval=mine[0].interval(),
        difference=mine[0].interval_of_difference(partner[0]) if partner else None,
        per_class=mine[0].per_class(), floor=mine[0].floor, **more,
    )  # fmt: skip


def convergence_of(maps: Sequence[MapStage]) -> dict[str, Any]:
    """Return whether all have converged; in words the first that has not."""
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
    os.environ["RECAM_WORKERS"] = "0"  # no core is free for loaders, and this process could not start them
    _ = [score.result for score in scores]


def examples(
    cam: MapStage, recam: MapStage, *, split: Split, count: int = 4, rule: Rule = "iou"
) -> list[dict[str, Any]]:
    """Return picture rows (image, CAM, ReCAM, both masks, truth) chosen by rule, not by hand.

    Masks are at the cross-fitted thresholds. By ``"iou"`` half are the largest gains of IoU over an image's
    classes, half the largest losses; by ``"false_positives"`` or ``"false_negatives"`` the share of pixels
    wrongly given to a class, or withheld from one, falls most. Without true masks they are the first.
    """
    scores = {title: Score(of=stage, split=split) for title, stage in (("CAM", cam), ("ReCAM", recam))}

    def heat(score: Score, name: str, picture: np.ndarray) -> np.ndarray:
        return overlay(picture, score.of.one(split, name)[0].numpy().max(0, initial=0))

    columns = {title: partial(heat, score) for title, score in scores.items()}
    columns |= {f"{title} mask": partial(_painted, score) for title, score in scores.items()}
    first, last = scores.values()
    picked = dict.fromkeys(range(min(count, len(first.images))), np.nan)
    if first.masked:
        picked = _picked([first.counts, last.counts], rule, count)
    return _picture_rows(first, picked, columns, what=RULES[rule])


def mask_examples(
    stages: Mapping[str, MapStage], *, split: Split, saliency: Saliency, count: int = 4
) -> list[dict[str, Any]]:
    """Return picture rows (image, saliency map, each stage's mask, truth) by IoU, first to last stage."""
    scores = {title: Score(of=stage, split=split) for title, stage in stages.items()}
    first, *_, last = scores.values()
    salient = SaliencyMaps(dataset=first.of.dataset, saliency=saliency)
    columns: Columns = {"saliency": lambda name, _: np.repeat(salient.one(split, name)[..., None], 3, axis=2)}
    columns |= {title: partial(_painted, score) for title, score in scores.items()}
    return _picture_rows(first, _picked([first.counts, last.counts], "iou", count), columns)


def prediction_examples(
    cam: SegmentationScore, recam: SegmentationScore, *, count: int = 4
) -> list[dict[str, Any]]:
    """Return picture rows (image, pseudo mask and prediction of either, truth) by IoU, CAM's to ReCAM's."""
    picked = _picked([cam.counts, recam.counts], "iou", count)
    names, space = {cam.images.ids[index] for index in picked}, cam.images.space

    def painted(mask_of: Callable[[str], np.ndarray], name: str, picture: np.ndarray) -> np.ndarray:
        return paint(mask_of(name), space, picture)

    columns: Columns = {}
    for title, score in (("CAM", cam), ("ReCAM", recam)):
        masks = {name: mask for name, mask in score.predictions() if name in names}
        columns[f"{title} pseudo mask"] = partial(painted, partial(score.of.masks.one, score.split))
        columns[f"{title} network"] = partial(painted, masks.__getitem__)
    return _picture_rows(cam, picked, columns)


def _picture_rows(
    score: Score | SegmentationScore, picked: Mapping[int, float], columns: Columns, what: str = "IoU"
) -> list[dict[str, Any]]:
    images, masked = score.images, score.of.dataset.masked(score.split)
    truth = score.of.dataset.masks(score.split) if masked else None
    rows = []
    for index, change in picked.items():
        name = images.ids[index]
        picture = images.image(name).permute(1, 2, 0).numpy()  # (H, W, 3)
        caption = f"{name}\n{what} {change:+.0f}" if truth else name
        row = {title: column(name, picture) for title, column in columns.items()}
        row = {"caption": caption, "image": picture, **row}
        rows.append(row | ({"truth": paint(truth.mask(name), images.space, picture)} if truth else {}))
    return rows


def _picked(counts: Sequence[np.ndarray], rule: Rule, number: int) -> dict[int, float]:
    """Return the index of images that a rule picks to the change of what it looks at, from counts of two."""
    before, after = (_per_image(part, rule) for part in counts)
    change = after - before
    order = np.argsort(-change if rule == "iou" else change, kind="stable").tolist()
    ends = [*order[: (number + 1) // 2], *order[len(order) - number // 2 :]]
    return {index: change[index] for index in (ends if rule == "iou" else order[:number])}


def _painted(score: Score, name: str, picture: np.ndarray) -> np.ndarray:
    maps, classes = score.of.one(score.split, name)
    chosen = score.result["cross_thresholds"][fold_of(name)] if score.masked else score.of.fixed_threshold
    return paint(to_mask(maps.numpy(), classes, chosen), score.images.space, picture)


def _per_image(counts: np.ndarray, rule: Rule) -> np.ndarray:
    """Return per image (N,), in percent, IoU over the true classes or share of wrong pixels."""
    both, predicted, true = np.moveaxis(counts[:, 1:], -1, 0)  # (N, K) each
    pixels = np.maximum(counts[..., 2].sum(1), 1)
    if rule != "iou":
        wrong = (predicted if rule == "false_positives" else true) - both
        return 100 * wrong.sum(1) / pixels
    values = np.where(true > 0, np.nan_to_num(iou_from_counts(counts[:, 1:])), 0)
    return 100 * values.sum(1) / np.maximum((true > 0).sum(1), 1)
