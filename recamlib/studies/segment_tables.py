"""Tables of segmentation: Table 3 beside the paper, settings, what the networks are given, what they cost."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from recamlib.report.claims import all_claims
from recamlib.stages import DataSettings, TrainSegmenter
from recamlib.studies.table2 import TITLES
from recamlib.studies.table3 import recipes

NETWORKS = {"deeplabv2": "DeepLabV2", "deeplabv3plus": "DeepLabV3+", "upernet": "UPerNet"}


def title(cell: str) -> str:
    """Return the title of a cell: ``"DeepLabV2, IRN, ReCAM"`` of ``"irn.deeplabv2_recam_val"``."""
    method, _, what = cell.partition(".")
    network, *rest = what.split("_")
    if method == "upper_bound":
        return f"{NETWORKS[network]}, TRUE MASKS"
    return f"{NETWORKS[network]}, {TITLES[method]}, {'ReCAM' if 'recam' in rest else 'CAM'}"


def recipe_frame(data: DataSettings, archs: Sequence[str], **settings: Any) -> pd.DataFrame:
    """Return the settings that each network is trained with, one row per network."""
    rows = recipes(archs, data, **settings)
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
