"""The systems of Table 4: saliency trained on (EPS, ReCAM-E) or merged into maps (EDAM's merge, ReCAM-M)."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from recamlib.report.claims import all_claims, load_paper, row_verdict, sentence
from recamlib.stages import (
    ExtractCams,
    MapStage,
    Saliency,
    SaliencyMerge,
    SaliencyScore,
    SegmentationScore,
    TrainSegmenter,
)
from recamlib.stages.maps import WeightOption
from recamlib.studies.common import make
from recamlib.studies.table2 import refined
from recamlib.studies.table3 import networks, score_row

ENDS = {"here": "mean", "low": "low", "high": "high"}  # of a number's columns, and their names in a row
Reading = Literal["softmax", "relu"]
METHODS = {"none": "maps", "irn": "with IRN"}
SYSTEMS = {
    "cam": "CAM", "recam": "ReCAM", "eps": "EPS", "recam_e": "ReCAM-E", "edam": "EDAM's merge",
    "recam_m": "ReCAM-M",
}  # fmt: skip
"""What is measured here, by the names of rows. Of EDAM it is the merge alone, of CAM, not its classifier."""

PARTNERS = {"recam": "cam", "eps": "cam", "recam_e": "eps", "edam": "cam", "recam_m": "edam"}
"""System to the one it is compared with, the same one without reactivation, or CAM."""

MERGED = {"edam": "cam", "recam_m": "recam"}
"""System to the one whose maps are merged with saliency."""


def how_read(*, weights: WeightOption, reading: Reading = "softmax") -> dict[str, dict[str, Any]]:
    """Return how the maps of each kind of model are read, as settings of `ExtractCams`.

    Parameters
    ----------
    weights
        Weight option of ReCAM's maps.
    reading
        Of EPS and ReCAM-E: as EPS does, by a softmax with FC1's weights (the background has no others), or as
        CAM and ReCAM, with ReCAM's weight option for ReCAM-E.
    """
    return {
        "cam": {}, "recam": {"weights": weights}, "eps": {"reading": reading},
        "recam_e": {"reading": reading, "weights": "w" if reading == "softmax" else weights},
    }  # fmt: skip


def systems(
    cams: Mapping[str, Sequence[ExtractCams]],
    saliency: Saliency,
    settings: Mapping[str, Mapping[str, Any]],
    *,
    irn: bool = True,
) -> dict[str, list[MapStage]]:
    """Return the six systems without and with IRN as stages, one per seed, named ``"irn.recam_e"`` and so on.

    Parameters
    ----------
    cams
        ``"cam"``, ``"recam"``, ``"eps"`` and ``"recam_e"`` to the maps of one trained model per seed.
    saliency
        What is merged into maps.
    settings
        Those of `SaliencyMerge`, `TrainBoundary` and `Walk`.
    irn
        Whether there are rows with IRN.
    """
    rows: dict[str, list[MapStage]] = {}
    for method in METHODS if irn else ("none",):
        rows |= {f"{method}.{kind}": [refined(maps, method, settings) for maps in found]
                 for kind, found in cams.items()}  # fmt: skip
        for kind, plain in MERGED.items():
            rows[f"{method}.{kind}"] = [
                make(SaliencyMerge, settings, cams=maps, saliency=saliency)
                for maps in rows[f"{method}.{plain}"]
            ]
    return rows


def partners(rows: Sequence[str]) -> dict[str, str]:
    """Return the row that each one is compared with.

    Examples
    --------
    >>> partners(["irn.cam", "irn.recam"])
    {'irn.recam': 'irn.cam'}
    """
    split = (row.split(".") for row in rows)
    return {f"{method}.{kind}": f"{method}.{PARTNERS[kind]}" for method, kind in split if kind in PARTNERS}


def title(row: str) -> str:
    """Return the title of a row, for example ``"ReCAM-E with IRN"`` of ``"irn.recam_e"``."""
    method, kind = row.split(".")
    return f"{SYSTEMS[kind]} {METHODS[method]}" if method == "irn" else SYSTEMS[kind]


def segmenters(
    rows: Mapping[str, Sequence[MapStage]],
    kinds: Sequence[str],
    arch: str,
    settings: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[TrainSegmenter]]:
    """Return networks trained on the masks of some systems, with IRN if there are such rows, named alike."""
    method = "irn" if any(name.startswith("irn.") for name in rows) else "none"
    chosen = {f"{method}.{kind}": rows[f"{method}.{kind}"] for kind in kinds}
    return dict(zip(chosen, networks(chosen, {arch: {}}, settings).values(), strict=True))


def network_table(scores: Mapping[str, Sequence[SegmentationScore]]) -> dict[str, dict[str, Any]]:
    """Score networks, for :func:`recamlib.report.claims.record`, under their rows in Table 4."""
    compared, found = partners(list(scores)), {}
    for name, mine in scores.items():
        partner = scores.get(compared.get(name, ""))
        found[claim_row(name)] = score_row(mine, partner)
    return found


def claim_row(row: str) -> str:
    """Return the row of Table 4 that a network on these masks stands for, or a name that is none of them.

    The paper's IRN and ReCAM are with IRN. Its EDAM is more than the merge, so nothing here stands for it.

    Examples
    --------
    >>> [claim_row(row) for row in ("irn.cam", "none.cam", "irn.recam_e")]
    ['without_saliency.IRN', 'without_saliency.CAM', 'with_saliency.ReCAM-E']
    """
    plain = {
        "irn.cam": "IRN", "irn.recam": "ReCAM", "none.cam": "CAM", "none.recam": "ReCAM without IRN",
    }  # fmt: skip
    if row in plain:
        return f"without_saliency.{plain[row]}"
    return f"with_saliency.{SYSTEMS[row.split('.')[1]]}"


def saliency_row(score: SaliencyScore) -> dict[str, Any]:
    """Return how good the saliency is: foreground IoU, and what calling everything foreground would give."""
    low, high = score.interval()
    return {
        "mean": score.iou, "low": low, "high": high, "everything": 100 * score.result["share"],
        "images": score.result["images"], "theta": score.theta,
    }  # fmt: skip


def mask_frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return the pseudo masks, one row per system: mIoU and differences in percent, without and with IRN."""
    rows = []
    for kind, name in SYSTEMS.items():
        row: dict[str, Any] = {"system": name, "compared with": SYSTEMS.get(PARTNERS.get(kind, ""), "")}
        for method, text in METHODS.items():
            here = result["rows"].get(f"{method}.{kind}")
            row |= _columns(here, text, f"{text}, difference") if here else {}
        rows.append(row)
    return pd.DataFrame(rows).set_index("system")


def frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return Table 4, mIoU of DeepLabV2 in percent: every row of the paper, and what was measured here."""
    paper, measured = {claim.id: claim.value for claim in all_claims()}, result["rows"]
    rows = []
    for side, block in load_paper()["table4"].items():
        own = [name for name in measured if name.startswith(f"{side}.")]
        for name in dict.fromkeys([*(f"{side}.{system}" for system in block), *own]):
            rows.append({
                "system": name.split(".", 1)[1], "saliency": "yes" if side == "with_saliency" else "no",
                "paper val": paper.get(f"table4.{name}.val"), "paper test": paper.get(f"table4.{name}.test"),
                "from": "measured here" if name in measured else "quoted from the paper",
                **_columns(measured.get(name, {}), "val", "difference"),
            })  # fmt: skip
    return pd.DataFrame(rows).set_index("system")


def _columns(row: Mapping[str, Any], number: str, difference: str) -> dict[str, Any]:
    """Return the columns of a measured row, named so that intervals are shown beside their numbers."""
    low, high = row.get("difference_interval", (np.nan, np.nan))
    return {
        **{f"{number} {end}": row.get(key, np.nan) for end, key in ENDS.items()},
        difference: row.get("difference", np.nan), f"{difference} low": low, f"{difference} high": high,
    }  # fmt: skip


def plugged_in(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Judge Table 4: ReCAM against IRN, ReCAM-E against EPS, ReCAM-M against EDAM's merge of CAM.

    Each by the rule of the scoreboard, from rows of networks on val; a row that is not there has not run.
    """
    claims = {}
    for side, name in (("without", "ReCAM"), ("with", "ReCAM-E"), ("with", "ReCAM-M")):
        row, rule = rows.get(f"{side}_saliency.{name}"), "DeepLabV2's difference on val lies above zero"
        answer, text = "not run", "no network of it and of its baseline was trained"
        if row and "difference_interval" in row:
            low, high = row["difference_interval"]
            answer = row_verdict(row, +1)
            text = f"{row['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
            if row["mean"] <= row["floor"]:
                text += f"; at {row['mean']:.1f} no better than all background, {row['floor']:.1f}"
        claims[f"table4.{side}_saliency.{name}.val"] = sentence(answer, text, rule=rule)
    return claims
