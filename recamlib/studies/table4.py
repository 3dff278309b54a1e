"""The systems of Table 4: saliency trained on (EPS, ReCAM-E) or merged into maps (EDAM's merge, ReCAM-M)."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from recamlib.report.cells import KINDS as SYSTEMS
from recamlib.report.cells import PARTNERS, Cell, columns, rows_of
from recamlib.report.claims import load_paper, paper_values, row_verdict, sentence, signed
from recamlib.stages.maps import ExtractCams, MapStage, WeightOption
from recamlib.stages.refine import SaliencyMerge
from recamlib.stages.saliency import Saliency
from recamlib.stages.score import SaliencyScore
from recamlib.stages.segment import TrainSegmenter
from recamlib.studies.common import Blocks, make
from recamlib.studies.table2 import refined
from recamlib.studies.table3 import networks

METHODS = {"none": "maps", "irn": "with IRN"}
MERGED = {"edam": "cam", "recam_m": "recam"}  # system to the one whose maps are merged with saliency
cell = functools.partial(Cell, "table4")  # of a method, a kind and, if masks were learnt from, a network


def how_read(*, weights: WeightOption, reading: str = "softmax") -> dict[str, dict[str, Any]]:
    """Return how the maps of each kind of model are read: settings of `ExtractCams`."""
    # by a softmax with FC1's weights, since the background has no others
    return {
        "cam": {}, "recam": {"weights": weights}, "eps": {"reading": reading},
        "recam_e": {"reading": reading, "weights": "w" if reading == "softmax" else weights},
    }  # fmt: skip


def systems(
    cams: Mapping[str, Sequence[ExtractCams]], saliency: Saliency, settings: Blocks, *, irn: bool = True
) -> dict[Cell, list[MapStage]]:
    """Return the six systems without and with IRN as stages, one per seed, from maps of the trained four."""
    rows: dict[Cell, list[MapStage]] = {}
    for method in METHODS if irn else ("none",):
        for kind, stages in cams.items():
            rows[cell(method, kind)] = [refined(maps, method, settings) for maps in stages]
        for kind, plain in MERGED.items():
            rows[cell(method, kind)] = [
                make(SaliencyMerge, settings, cams=maps, saliency=saliency)
                for maps in rows[cell(method, plain)]
            ]
    return rows


def segmenters(
    rows: Mapping[Cell, Sequence[MapStage]], kinds: Sequence[str], arch: str, settings: Blocks
) -> dict[Cell, list[TrainSegmenter]]:
    """Return networks trained on the masks of some systems, with IRN if there are such rows."""
    method = "irn" if any(place.method == "irn" for place in rows) else "none"
    chosen = {cell(method, kind): rows[cell(method, kind)] for kind in kinds}
    rows = networks(chosen, {arch: {}}, settings)
    return {replace(place, table="table4"): nets for place, nets in rows.items()}


def saliency_row(score: SaliencyScore) -> dict[str, Any]:
    """Return how good the saliency is, and what calling everything foreground would give."""
    low, high = score.interval()
    return {
        "mean": score.miou, "low": low, "high": high, "everything": 100 * score.result["share"],
        "images": score.result["images"], "theta": score.theta,
    }  # fmt: skip


def mask_frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return mIoU of pseudo masks and differences, in percent, without and with IRN, one row per system."""
    rows = {}
    for kind, name in SYSTEMS.items():
        rows[name] = {"compared with": SYSTEMS.get(PARTNERS.get(kind, ""), "")}
        for method, text in METHODS.items():
            if here := result["rows"].get(cell(method, kind).row):
                rows[name] |= columns(here, text, f"{text}, difference")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("system")


def frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return Table 4, mIoU of DeepLabV2 in percent: every row of the paper, and what was measured here."""
    paper, measured = paper_values(), result["rows"]
    rows = []
    for side, block in load_paper()["table4"].items():
        own = [name for name in measured if name.startswith(f"{side}.")]
        for name in dict.fromkeys([*(f"{side}.{system}" for system in block), *own]):
            rows.append({
                "system": name.split(".", 1)[1], "saliency": "yes" if side == "with_saliency" else "no",
                "paper val": paper.get(f"table4.{name}.val"), "paper test": paper.get(f"table4.{name}.test"),
                "from": "measured here" if name in measured else "quoted from the paper",
                **columns(measured.get(name, {}), "val", "difference"),
            })  # fmt: skip
    return pd.DataFrame(rows).set_index("system")


def plugged_in(table: Mapping[Cell, Any]) -> dict[str, Any]:
    """Judge Table 4: ReCAM against IRN, ReCAM-E against EPS, ReCAM-M against EDAM's merge of CAM."""
    claims, rows = {}, rows_of(table)
    for side, name in (("without", "ReCAM"), ("with", "ReCAM-E"), ("with", "ReCAM-M")):
        row, rule = rows.get(f"{side}_saliency.{name}"), "DeepLabV2's difference on val lies above zero"
        answer, text = "not run", "no DeepLabV2 of it and of its baseline was trained"
        if row and "difference_interval" in row:
            answer = row_verdict(row, +1)
            text = signed(row["difference"], *row["difference_interval"])
            if row["mean"] <= row["floor"]:
                text += f"; at {row['mean']:.1f} no better than the floor, {row['floor']:.1f}"
        judged = [row] if row else []
        claims[f"table4.{side}_saliency.{name}.val"] = sentence(answer, text, rows=judged, rule=rule)
    return claims
