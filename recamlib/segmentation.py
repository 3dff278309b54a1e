"""The systems of Table 3: segmentation networks on the pseudo masks of Table 2, and their upper bound."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from recamlib.claims import all_claims, table_row
from recamlib.errors import SettingsError, nearest
from recamlib.refinement import METHODS, TITLES
from recamlib.stages import (
    DataSettings,
    MapStage,
    PseudoMasks,
    SegmentationScore,
    TrainSegmenter,
    TrainUpperBound,
)
from recamlib.stages.base import Split

_SMALL = {"lr": 0.02, "batch_size": 10, "crop": 96}
RECIPES: dict[str, dict[str, Any]] = {
    "deeplabv2": {"lr": 2.5e-4, "weight_decay": 5e-4, "batch_size": 10, "crop": 321},
    "deeplabv3plus": {"lr": 7e-3, "weight_decay": 1e-4, "batch_size": 10, "crop": 512},
    "upernet_swin": {
        "optimizer": "adamw", "lr": 6e-5, "weight_decay": 0.01, "power": 1.0, "batch_size": 16, "crop": 512,
        "jitter": True,
    },
    "deeplabv2_small": _SMALL,
    "deeplabv3plus_small": _SMALL,
    "upernet_small": _SMALL | {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.01, "power": 1.0},
}  # fmt: skip
"""Settings of each network: those of the paper (Section 5) for the large ones, quick ones for the small."""

COLUMNS = {"deeplabv2": "deeplabv2", "upernet_swin": "upernet", "deeplabv3plus": "deeplabv3plus"}
"""Network to its name in the paper's table; a small one stands in its large one's column."""


def column(arch: str) -> str:
    """Return the paper's name of a network: ``"upernet"`` for ``"upernet_small"``."""
    stem = arch.removesuffix("_small")
    return COLUMNS.get(stem, stem)


def networks(
    maps: Mapping[str, Sequence[MapStage]], archs: Sequence[str], **settings: Any
) -> dict[str, list[TrainSegmenter]]:
    """Return the cells of Table 3 as stages, one per seed, named as the paper's columns are.

    Parameters
    ----------
    maps
        Rows of Table 2 (:func:`recamlib.refinement.systems`), as many of them as wanted.
    archs
        Names of the networks.
    settings
        Override those of :data:`RECIPES`, for example ``steps``; an entry of 0 or ``""`` overrides nothing.
    """
    given = {name: value for name, value in settings.items() if value not in (0, "", None)}
    rows: dict[str, list[TrainSegmenter]] = {}
    for arch in archs:
        if arch not in RECIPES:
            raise SettingsError(f"unknown network {arch!r}{nearest(arch, RECIPES)}: use {', '.join(RECIPES)}")
        for name, stages in maps.items():
            method, kind = name.removesuffix("_miou").split(".")
            rows[f"{method}.{column(arch)}_{kind}_val"] = [
                TrainSegmenter(
                    masks=PseudoMasks(maps=stage), arch=arch, seed=seed, **{**RECIPES[arch], **given}
                )
                for seed, stage in enumerate(stages)
            ]
    return rows


def upper_bounds(
    data: DataSettings, archs: Sequence[str], **settings: Any
) -> dict[str, list[TrainUpperBound]]:
    """Return the same networks trained on true masks, by the paper's name of the network."""
    given = {name: value for name, value in settings.items() if value not in (0, "", None)}
    return {
        f"upper_bound.{column(a)}": [TrainUpperBound(dataset=data, arch=a, **{**RECIPES[a], **given})]
        for a in archs
    }


def scores_of(
    rows: Mapping[str, Sequence[TrainSegmenter | TrainUpperBound]], *, split: Split = "val", **evaluation: Any
) -> dict[str, list[SegmentationScore]]:
    """Return the score stages of some rows; `evaluation` are settings of `SegmentationScore`."""
    return {n: [SegmentationScore(of=s, split=split, **evaluation) for s in row] for n, row in rows.items()}


def table(scores: Mapping[str, Sequence[SegmentationScore]]) -> dict[str, dict[str, Any]]:
    """Score rows and return them for :func:`recamlib.claims.record`, ReCAM's compared with CAM's."""
    found: dict[str, dict[str, Any]] = {}
    for name, mine in tqdm(scores.items(), desc="rows", leave=False, disable=None):
        partner = scores.get(name.replace("recam", "cam")) if "recam" in name else None
        found[name] = table_row(
            [s.miou for s in mine],
            baseline=[s.miou for s in partner] if partner else None,
            interval=mine[0].interval(),
            difference=mine[0].interval_of_difference(partner[0]) if partner else None,
            per_class=mine[0].per_class(), evaluation=mine[0].label, images=mine[0].result["images"],
            loss=np.asarray(mine[0].of.result["history"]["loss"]).tolist(),
        )  # fmt: skip
    for name, row in found.items():
        bound = found.get(f"upper_bound.{name.split('.')[1].split('_')[0]}")
        if bound:
            row["share_of_upper_bound"] = 100 * row["mean"] / bound["mean"]
    return found


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
                "network": what, "pseudo masks": "none: true masks (upper bound)", "CAM here": row["mean"],
                "ReCAM here": row["mean"], "images": row["images"],
            })  # fmt: skip
        elif "_recam_" in what:
            network = what.split("_")[0]
            cam = result["rows"][name.replace("recam", "cam")]
            rows.append({
                "network": network, "pseudo masks": TITLES[method],
                "CAM paper": paper.get(f"table3.{name.replace('recam', 'cam')}.{where}"),
                "CAM here": cam["mean"], "ReCAM paper": paper.get(f"table3.{name}.{where}"),
                "ReCAM here": row["mean"], "difference": row["difference"],
                "difference low": row["difference_interval"][0],
                "difference high": row["difference_interval"][1],
                "% of upper bound": row.get("share_of_upper_bound"), "images": row["images"],
            })  # fmt: skip
    return pd.DataFrame(rows).set_index(["network", "pseudo masks"])


def margins(rows: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return ReCAM's margin over CAM per network, one number per refinement, in the order of Table 2."""
    networks = dict.fromkeys(n.split(".")[1].split("_")[0] for n in rows if "_recam_" in n)
    return {
        network: [
            rows[f"{m}.{network}_recam_val"]["difference"]
            for m in METHODS if f"{m}.{network}_recam_val" in rows
        ]
        for network in networks
    }  # fmt: skip
