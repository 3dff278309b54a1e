"""The systems of Table 3: segmentation networks on the pseudo masks of Table 2, and their upper bound."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recamlib.engine.device import bar
from recamlib.errors import SettingsError, nearest
from recamlib.method.crf import usable
from recamlib.method.scores import background_iou, bootstrap_contrast
from recamlib.report.claims import all_claims, seed_interval, sentence, table_row, verdict
from recamlib.stages import (
    MULTI_SCALES,
    DataSettings,
    MapStage,
    PseudoMasks,
    SegmentationScore,
    TrainSegmenter,
    TrainUpperBound,
)
from recamlib.studies.common import make
from recamlib.studies.table2 import TITLES

# SGD does not get a network off the ground in a few hundred steps from nothing; AdamW does.
_SMALL = {
    "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.01, "batch_size": 10, "crop": 64, "steps": 100,
}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "deeplabv2": {"lr": 2.5e-4, "weight_decay": 5e-4, "batch_size": 10, "crop": 321, "steps": 20_000},
    "deeplabv3plus": {"lr": 7e-3, "weight_decay": 1e-4, "batch_size": 10, "crop": 512, "steps": 20_000},
    "upernet_swin": {
        "optimizer": "adamw", "lr": 6e-5, "weight_decay": 0.01, "power": 1.0, "batch_size": 16, "crop": 512,
        "scale": (0.5, 2.0), "short_side": 512, "jitter": True, "steps": 40_000,
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

NETWORKS = {"deeplabv2": "DeepLabV2", "deeplabv3plus": "DeepLabV3+", "upernet": "UPerNet"}
"""The paper's column of a network to its title."""

COLUMNS = {"deeplabv2": "deeplabv2", "upernet_swin": "upernet", "deeplabv3plus": "deeplabv3plus"}
"""Network to its name in the paper's table; a small one stands in its large one's column."""


def column(arch: str) -> str:
    """Return the paper's name of a network: ``"upernet"`` for ``"upernet_small"``."""
    stem = arch.removesuffix("_small")
    return COLUMNS.get(stem, stem)


def recipe(
    arch: str, data: DataSettings, own: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the settings of a network on some data: its recipe, then its own, then those of all networks.

    Raises
    ------
    SettingsError
        If there is no network of that name; the nearest is given.

    Examples
    --------
    >>> recipe("deeplabv2_small", DataSettings(), {"lr": 0.01}, {"TrainSegmenter": {"steps": 5}})["lr"]
    0.01
    """
    if arch not in RECIPES:
        raise SettingsError(f"unknown network {arch!r}{nearest(arch, RECIPES)}: use {', '.join(RECIPES)}")
    steps = {"steps": COCO_STEPS[arch]} if data.name == "coco14" and arch in COCO_STEPS else {}
    return {**RECIPES[arch], **steps, **own, **settings.get("TrainSegmenter", {})}


def networks(
    maps: Mapping[str, Sequence[MapStage]],
    archs: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    advcam_images: int = 0,
) -> dict[str, list[TrainSegmenter]]:
    """Return the cells of Table 3 as stages, with the seeds of the maps, named as the paper's columns are.

    Parameters
    ----------
    maps
        Rows of Table 2 (:func:`recamlib.studies.table2.systems`), as many of them as wanted.
    archs
        Networks by name, each with settings of its own; see `recipe`.
    settings
        Those of all networks, ``TrainSegmenter``.
    advcam_images
        Size of the random part of the training images that AdvCAM's rows learn from, 0 for all.
    """
    rows: dict[str, list[TrainSegmenter]] = {}
    for arch, own in archs.items():
        for name, stages in maps.items():
            method, kind = name.removesuffix("_miou").split(".")
            how = recipe(arch, stages[0].dataset, own, settings)
            if method.startswith("advcam"):
                how["limit"] = advcam_images
            rows[f"{method}.{column(arch)}_{kind}_val"] = [
                TrainSegmenter(masks=masks_of(stage, settings), arch=arch, seed=stage.seed, **how)
                for stage in stages
            ]
    return rows


def masks_of(maps: MapStage, settings: Mapping[str, Mapping[str, Any]]) -> PseudoMasks:
    """Return the pseudo masks of maps."""
    return make(PseudoMasks, settings, maps=maps)


def upper_bounds(
    data: DataSettings,
    archs: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    seeds: Sequence[int],
) -> dict[str, list[TrainUpperBound]]:
    """Return the same networks trained on true masks, one per seed, by the paper's name of the network."""
    return {
        f"upper_bound.{column(arch)}": [
            TrainUpperBound(dataset=data, arch=arch, seed=seed, **recipe(arch, data, own, settings))
            for seed in seeds
        ]
        for arch, own in archs.items()
    }


def evaluations(scores: Mapping[str, SegmentationScore], *, limit: int = 0) -> pd.DataFrame:
    """Return how much the kind of evaluation changes the number: one row per kind, one column per network.

    mIoU in percent on the images of the given scores, or on `limit` random ones of them: at one scale and at
    the published six with mirror images, without and with the CRF. All scales are times that of the scores
    if they have one: a network trained on small pictures does not know objects at their full size.
    """
    first = next(iter(scores.values()))
    scale = first.scales[0] if len(first.scales) == 1 else 1.0
    kinds = [{"scales": (scale,), "mirror": False, "crf": False},
             {"scales": tuple(scale * s for s in MULTI_SCALES), "mirror": True, "crf": False}]  # fmt: skip
    kinds += [{**kind, "crf": True} for kind in kinds if usable(True)]
    found = {}
    for name, score in scores.items():
        common = {**dict(score), "infra": {}, "limit": limit or score.limit}
        found[name] = [SegmentationScore(**{**common, **kind}) for kind in kinds]
    labels = [score.label for score in next(iter(found.values()))]
    return pd.DataFrame({name: [s.miou for s in row] for name, row in found.items()}, index=labels)


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


def title(cell: str) -> str:
    """Return the title of a cell: ``"DeepLabV2, IRN, ReCAM"`` of ``"irn.deeplabv2_recam_val"``."""
    method, _, what = cell.partition(".")
    network, *rest = what.split("_")
    if method == "upper_bound":
        return f"{NETWORKS[network]}, TRUE MASKS"
    return f"{NETWORKS[network]}, {TITLES[method]}, {'ReCAM' if 'recam' in rest else 'CAM'}"


def recipe_frame(
    data: DataSettings, archs: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Mapping[str, Any]]
) -> pd.DataFrame:
    """Return the settings that each network is trained with, one row per network."""
    rows = {arch: recipe(arch, data, own, settings) for arch, own in archs.items()}
    usual = {name: TrainSegmenter.model_fields[name].default for name in ("optimizer", "jitter", "power")}
    return pd.DataFrame.from_dict(rows, orient="index").fillna(usual)


def balance_frame(shares: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Return the share of pixels of every class, and ignored, in percent: one row per set of pseudo masks.

    `shares` are keyed as the cells of Table 2 are.
    """
    frame = 100 * pd.DataFrame.from_dict(shares, orient="index")
    names = [name.removesuffix("_miou").split(".") for name in frame.index]
    frame.index = [f"{TITLES[m]}, {'ReCAM' if kind == 'recam' else 'CAM'}" for m, kind in names]
    return frame


def cost_frame(rows: Mapping[str, Any]) -> pd.DataFrame:
    """Return what every network cost: seconds, share of them spent waiting for data (%), memory (MiB)."""
    found = {
        title(name): {
            "training, s": row["cost"]["train_seconds"],
            "waiting for data, %": 100 * row["cost"]["waited_share"],
            "peak memory, MiB": row["cost"]["peak_memory_mib"], "scoring, s": row["cost"]["score_seconds"],
            "trained on": row["trained_on"],
        }
        for name, row in rows.items()
    }  # fmt: skip
    return pd.DataFrame.from_dict(found, orient="index")


def frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return Table 3, paper beside measured: one row per network and refinement, mIoU in percent."""
    data = result["parameters"]["dataset"]
    where = data if data in ("voc12", "coco14") else "voc12"
    paper = {claim.id: claim.value for claim in all_claims()}
    rows = []
    for name, row in result["rows"].items():
        method, _, what = name.partition(".")
        if method == "upper_bound":
            rows.append({
                "network": NETWORKS[what], "pseudo masks": "TRUE MASKS (upper bound)",
                "CAM here": row["mean"],
                "CAM low": row["low"], "CAM high": row["high"], "trained on": row["trained_on"],
            })  # fmt: skip
        elif "_recam_" in what:
            network = what.split("_")[0]
            cam = result["rows"][name.replace("recam", "cam")]
            rows.append({
                "network": NETWORKS[network], "pseudo masks": TITLES[method],
                "CAM paper": paper.get(f"table3.{name.replace('recam', 'cam')}.{where}"),
                "CAM here": cam["mean"], "CAM low": cam["low"], "CAM high": cam["high"],
                "ReCAM paper": paper.get(f"table3.{name}.{where}"), "ReCAM here": row["mean"],
                "ReCAM low": row["low"], "ReCAM high": row["high"], "difference": row["difference"],
                "difference low": row["difference_interval"][0],
                "difference high": row["difference_interval"][1],
                "% of bound, CAM": cam.get("share_of_upper_bound"),
                "% of bound, ReCAM": row.get("share_of_upper_bound"), "trained on": row["trained_on"],
            })  # fmt: skip
    return pd.DataFrame(rows).set_index(["network", "pseudo masks"])


def margin_of_the_stronger(scores: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Judge ``larger_margin_on_stronger`` on scores of Table 3, one per seed, keyed as its columns are.

    Holds if ReCAM's margin over CAM on UPerNet, less that on DeepLabV2, both without refinement, lies above
    zero; where both upper bounds are there and UPerNet's is not the higher, it is not the stronger network
    and nothing can be told. The other refinements are shown, not judged.
    """
    rule = (
        "margin on UPerNet less margin on DeepLabV2, no refinement, lies above zero; UPerNet is the stronger"
    )
    parts, answer = [], "not run"
    for method in dict.fromkeys(name.split(".")[0] for name in scores):
        names = [
            f"{method}.{net}_{kind}_val" for net in ("upernet", "deeplabv2") for kind in ("recam", "cam")
        ]
        if not all(name in scores for name in names):
            continue
        signs = (1, -1, -1, 1)
        four = [scores[name] for name in names]
        growth = np.asarray(signs) @ np.array([[s.miou for s in row] for row in four])  # (seeds,)
        mean, low, high = seed_interval(growth)
        if len(growth) == 1:
            low, high = (
                100 * end for end in bootstrap_contrast([row[0].counts for row in four], signs, seed=0)
            )
        parts.append(f"{method} {mean:+.1f} [{low:+.1f}, {high:+.1f}]")
        if method == "none":
            answer = verdict((low, high), +1)
    bounds = [np.mean([s.miou for s in scores.get(f"upper_bound.{n}", ())]) for n in ("upernet", "deeplabv2")
              if f"upper_bound.{n}" in scores]  # fmt: skip
    if len(bounds) == 2:
        parts.append(f"upper bounds {bounds[0]:.1f} and {bounds[1]:.1f}")
        if bounds[0] <= bounds[1] and answer != "not run":
            answer = "cannot tell"
    return {"prose.larger_margin_on_stronger": sentence(answer, "; ".join(parts) or "one network", rule=rule)}
