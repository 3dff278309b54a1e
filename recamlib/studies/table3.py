"""The systems of Table 3: segmentation networks on the pseudo masks of Table 2, and their upper bound."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recamlib.engine.device import bar
from recamlib.errors import SettingsError, nearest
from recamlib.method.scores import background_iou
from recamlib.report.claims import table_row
from recamlib.stages import (
    MULTI_SCALES,
    DataSettings,
    MapStage,
    PseudoMasks,
    SegmentationScore,
    TrainSegmenter,
    TrainUpperBound,
)
from recamlib.stages.base import Split

# SGD does not get a network off the ground in a few hundred steps from nothing; AdamW does.
_SMALL = {
    "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.01, "batch_size": 10, "crop": 64, "steps": 100,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "deeplabv2": {"lr": 2.5e-4, "weight_decay": 5e-4, "batch_size": 10, "crop": 321, "steps": 20_000},
    "deeplabv3plus": {"lr": 7e-3, "weight_decay": 1e-4, "batch_size": 10, "crop": 512, "steps": 20_000},
    "upernet_swin": {
        "optimizer": "adamw", "lr": 6e-5, "weight_decay": 0.01, "power": 1.0, "batch_size": 16, "crop": 512,
        "jitter": True, "steps": 40_000,
    },
    "deeplabv2_small": _SMALL | {"steps": 200},  # after 100, on true masks, it calls nearly all background
    "deeplabv3plus_small": _SMALL,
    "upernet_small": _SMALL | {"power": 1.0},
}  # fmt: skip
"""Settings of each network, those of the paper (Section 5) for the large ones, quick ones for the small.

The paper gives none for DeepLabV3+ (its supplement does): those here are usual ones, with DeepLabV2's steps.
"""

COCO_STEPS = {"deeplabv2": 100_000, "deeplabv3plus": 100_000, "upernet_swin": 80_000}
"""Steps on COCO, where they differ from those in `RECIPES`."""

COLUMNS = {"deeplabv2": "deeplabv2", "upernet_swin": "upernet", "deeplabv3plus": "deeplabv3plus"}
"""Network to its name in the paper's table; a small one stands in its large one's column."""


def column(arch: str) -> str:
    """Return the paper's name of a network: ``"upernet"`` for ``"upernet_small"``."""
    stem = arch.removesuffix("_small")
    return COLUMNS.get(stem, stem)


def recipe(arch: str, data: DataSettings, **settings: Any) -> dict[str, Any]:
    """Return the settings of a network on some data: its recipe, overridden by what is given.

    An entry of 0, ``""`` or ``()`` overrides nothing.

    Raises
    ------
    SettingsError
        If there is no network of that name; the nearest is given.
    """
    if arch not in RECIPES:
        raise SettingsError(f"unknown network {arch!r}{nearest(arch, RECIPES)}: use {', '.join(RECIPES)}")
    steps = {"steps": COCO_STEPS[arch]} if data.name == "coco14" and arch in COCO_STEPS else {}
    return {**RECIPES[arch], **steps, **{name: value for name, value in settings.items() if value}}


def recipes(
    archs: Sequence[str], data: DataSettings, *, lr: float | Sequence[float] = 0.0, **settings: Any
) -> dict[str, dict[str, Any]]:
    """Return the settings of several networks by name: see `recipe`.

    `lr` is one base rate for all, or one for each in their order: rates that suit one network ruin another.

    Raises
    ------
    SettingsError
        If there are neither one rate nor as many as networks, or there is no network of a name.

    Examples
    --------
    >>> found = recipes(["deeplabv2", "upernet_swin"], DataSettings(), lr=[0.001, 0])
    >>> found["deeplabv2"]["lr"], found["upernet_swin"]["lr"]
    (0.001, 6e-05)
    """
    rates = list(lr) if isinstance(lr, Sequence) else [lr]
    if len(rates) not in (1, len(archs)):
        counts = f"{len(rates)} learning rates for {len(archs)} networks ({', '.join(archs)})"
        raise SettingsError(f"{counts}: give one, or one for each in their order, 0 for a network's own")
    rates *= len(archs) // len(rates)
    return {arch: recipe(arch, data, lr=rate, **settings) for arch, rate in zip(archs, rates, strict=True)}


def networks(
    maps: Mapping[str, Sequence[MapStage]],
    archs: Sequence[str],
    *,
    climbed: int = 0,
    limit: int = 0,
    **settings: Any,
) -> dict[str, list[TrainSegmenter]]:
    """Return the cells of Table 3 as stages, with the seeds of the maps, named as the paper's columns are.

    Parameters
    ----------
    maps
        Rows of Table 2 (:func:`recamlib.studies.table2.systems`), as many of them as wanted.
    archs
        Names of the networks.
    climbed, limit
        Sizes of the random parts of the training images that AdvCAM's rows and the other rows learn from, 0
        for all.
    settings
        Override those of :data:`RECIPES`, for example ``steps``; see `recipes`.
    """
    rows: dict[str, list[TrainSegmenter]] = {}
    data = next(iter(maps.values()))[0].dataset if maps else DataSettings()
    for arch, how in recipes(archs, data, **settings).items():
        for name, stages in maps.items():
            method, kind = name.removesuffix("_miou").split(".")
            part = climbed if method.startswith("advcam") else limit
            rows[f"{method}.{column(arch)}_{kind}_val"] = [
                TrainSegmenter(masks=PseudoMasks(maps=stage), arch=arch, seed=stage.seed, limit=part, **how)
                for stage in stages
            ]
    return rows


def upper_bounds(
    data: DataSettings, archs: Sequence[str], *, limit: int = 0, seeds: Sequence[int] = (0,), **settings: Any
) -> dict[str, list[TrainUpperBound]]:
    """Return the same networks trained on true masks, one per seed, by the paper's name of the network."""
    return {
        f"upper_bound.{column(arch)}": [
            TrainUpperBound(dataset=data, arch=arch, seed=seed, limit=limit, **how) for seed in seeds
        ]
        for arch, how in recipes(archs, data, **settings).items()
    }


def kinds(*, scale: float = 1.0, crf: bool = True) -> list[dict[str, Any]]:
    """Return the settings of `SegmentationScore` that `evaluations` compares."""
    found = [{"scales": (scale,)}, {"scales": tuple(scale * s for s in MULTI_SCALES), "mirror": True}]
    return found + ([{**kind, "crf": True} for kind in found] if crf else [])


def evaluations(
    rows: Mapping[str, TrainSegmenter | TrainUpperBound],
    *,
    scale: float = 1.0,
    crf: bool = True,
    **common: Any,
) -> pd.DataFrame:
    """Return how much the kind of evaluation changes the number: one row per kind, one column per network.

    Single-scale and multi-scale with the mirror image, each without and (if `crf`) with the dense CRF; mIoU
    in percent on the images that `common` (settings of `SegmentationScore`) names. All scales are times
    `scale`: a network trained on small pictures does not know objects at their full size.
    """
    scores = {
        name: [SegmentationScore(of=stage, **common, **kind) for kind in kinds(scale=scale, crf=crf)]
        for name, stage in rows.items()
    }
    labels = [score.label for score in next(iter(scores.values()))]
    return pd.DataFrame({name: [s.miou for s in row] for name, row in scores.items()}, index=labels)


def scores_of(
    rows: Mapping[str, Sequence[TrainSegmenter | TrainUpperBound]], *, split: Split = "val", **evaluation: Any
) -> dict[str, list[SegmentationScore]]:
    """Return the score stages of some rows; `evaluation` are settings of `SegmentationScore`."""
    return {n: [SegmentationScore(of=s, split=split, **evaluation) for s in row] for n, row in rows.items()}


def table(scores: Mapping[str, Sequence[SegmentationScore]]) -> dict[str, dict[str, Any]]:
    """Score rows and return them for :func:`recamlib.report.claims.record`, ReCAM's compared with CAM's."""
    found: dict[str, dict[str, Any]] = {}
    for name, mine in bar(scores.items(), desc="rows"):
        partner = scores.get(name.replace("recam", "cam")) if "recam" in name else None
        found[name] = score_row(
            mine, partner,
            trained_on=mine[0].of.result["images"], balance=mine[0].of.result.get("balance"),
            loss=np.asarray(mine[0].of.result["history"]["loss"]).tolist(), cost=_cost(mine[0]),
        )  # fmt: skip
    for name, row in found.items():
        bound = found.get(f"upper_bound.{name.split('.')[1].split('_')[0]}")
        if bound:
            row["share_of_upper_bound"] = 100 * row["mean"] / bound["mean"]
    return found


def score_row(
    mine: Sequence[SegmentationScore], partner: Sequence[SegmentationScore] | None, **more: Any
) -> dict[str, Any]:
    """Return a network's row, one score per seed: mIoU, interval, difference to its partner, per class.

    ``floor`` is the mIoU, percent, of calling every pixel background.
    """
    return table_row(
        [s.miou for s in mine],
        baseline=[s.miou for s in partner] if partner else None,
        interval=mine[0].interval(),
        difference=mine[0].interval_of_difference(partner[0]) if partner else None,
        per_class=mine[0].per_class(), evaluation=mine[0].label, images=mine[0].result["images"],
        floor=100 * background_iou(mine[0].counts), **more,
    )  # fmt: skip


def _cost(score: SegmentationScore) -> dict[str, float]:
    """Return seconds of training, the share of them spent waiting for data, peak memory, scoring time."""
    cost = score.of.result["cost"]
    return {
        "train_seconds": cost["seconds"], "waited_share": cost["waited_seconds"] / cost["seconds"],
        "peak_memory_mib": cost["peak_memory_mib"], "score_seconds": score.result["cost"]["seconds"],
    }  # fmt: skip
