"""Cells of the tables: what a number is of, its name where it is stored, in the paper and for a reader."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from recamlib.report.claims import paper_values

METHODS = {"none": "no refinement", "irn": "IRN", "advcam": "AdvCAM", "advcam_irn": "AdvCAM + IRN"}
KINDS = {  # systems by name; of EDAM it is the merge alone, of CAM, not its classifier
    "cam": "CAM", "recam": "ReCAM", "eps": "EPS", "recam_e": "ReCAM-E", "edam": "EDAM's merge",
    "recam_m": "ReCAM-M",
}  # fmt: skip
NETWORKS = {"deeplabv2": "DeepLabV2", "deeplabv3plus": "DeepLabV3+", "upernet": "UPerNet"}
# system to the one it is compared with, the same one without reactivation, or CAM
PARTNERS = {"recam": "cam", "eps": "cam", "recam_e": "eps", "edam": "cam", "recam_m": "edam"}
PARTNERS |= {f"recam_w{end}": "cam" for end in ("", "_prime", "_plus_w_prime", "_times_w_prime")}
TRUE_MASKS = "upper_bound"  # in place of a method: a network that learnt from true masks
TABLES = {
    "table1": "Table 1: mIoU of pseudo masks (%)",
    "table2": "Table 2: mIoU of refined pseudo masks (%), and time (CAM takes 1)",
    "table3": "Table 3: mIoU of segmentation networks (%)",
    "table4": "Table 4: mIoU of DeepLabV2 on VOC (%)",
}
BLOCKS = {
    "": "", "voc12": "PASCAL VOC 2012", "coco14": "MS COCO 2014", "without_saliency": "without saliency",
    "with_saliency": "with saliency",
}  # fmt: skip
TITLES = {  # rows of Table 1, and our own, as Markdown
    "bce_only": "CAM: $w$ of BCE", "sce_only": "SCE only", "sce_single_only": "SCE for single-label images",
    "recam_w": "ReCAM, $w$", "recam_w_prime": "ReCAM, $w'$", "recam_w_plus_w_prime": "ReCAM, $w + w'$",
    "recam_w_times_w_prime": "ReCAM, $w \\otimes w'$", "bce_longer (control)": "control: BCE for as long",
    "bce_relu_w (ours)": "CAM, $\\mathrm{ReLU}(w)$, ours",
    "bce_w_times_w (ours)": "CAM, $w \\otimes w$, ours",
    "bce_w_times_random (ours)": "CAM, $w \\otimes$ random, ours",
    "recam_relu_w (ours)": "ReCAM, $\\mathrm{ReLU}(w)$, ours",
    "recam_w_times_w (ours)": "ReCAM, $w \\otimes w$, ours",
    "recam_w_times_random (ours)": "ReCAM, $w \\otimes$ random, ours",
    "recam_relu_w_times_relu_w_prime (ours)":
        "ReCAM, $\\mathrm{ReLU}(w) \\otimes \\mathrm{ReLU}(w')$, ours",
}  # fmt: skip
ROWS = {  # names of rows as plain text
    **{row: re.sub(r"\$|\\mathrm|[{}]", "", title).replace("\\otimes", "⊗") for row, title in TITLES.items()},
    **METHODS, "recam_e": "ReCAM-E", "recam_m": "ReCAM-M", "upper_bound": "true masks (upper bound)",
    "without_saliency": "without saliency", "with_saliency": "with saliency",
}  # fmt: skip
WORDS = {
    "voc12": "VOC", "coco14": "COCO", "deeplabv2": "DeepLabV2", "deeplabv3plus": "DeepLabV3+",
    "upernet": "UPerNet", "cam": "CAM", "recam": "ReCAM", "eps": "EPS", "edam": "EDAM", "miou": "",
    "ut": "time",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One cell of a table: maps of a kind after a refinement, or a network that learnt from their masks."""

    table: str  # table2, table3 or table4
    method: str  # one of METHODS, or TRUE_MASKS
    kind: str = ""  # one of KINDS, or of table1.ROWS in Table 2; empty for true masks
    network: str = ""  # one of NETWORKS, empty where maps are scored

    @property
    def row(self) -> str:
        """Name of its row in a stored result, ``"irn.recam_miou"`` or ``"irn.deeplabv2_cam_val"``."""
        if self.method == TRUE_MASKS:
            return f"{TRUE_MASKS}.{self.network}"
        if self.table == "table3":
            return f"{self.method}.{self.network}_{self.kind}_val"
        if not self.network:
            return f"{self.method}.{self.kind}" + "_miou" * (self.table == "table2" and self.kind in KINDS)
        ours = "" if self.network == "deeplabv2" else f", {NETWORKS[self.network]}"  # the paper has none
        if self.kind not in ("cam", "recam"):  # with saliency; the paper does not say whether with IRN
            return f"with_saliency.{KINDS[self.kind]}{ours}"
        names = {("irn", "cam"): "IRN", ("irn", "recam"): "ReCAM", ("none", "cam"): "CAM"}
        return f"without_saliency.{names.get((self.method, self.kind), 'ReCAM without IRN')}{ours}"

    @property
    def time_row(self) -> str:
        return f"{self.method}.{self.kind}_ut"

    @property
    def title(self) -> str:
        """What people call it: ``"DeepLabV2, IRN, ReCAM"``, ``"ReCAM-E with IRN"``."""
        if self.method == TRUE_MASKS:
            return f"{NETWORKS[self.network]}, TRUE MASKS"
        kind = KINDS.get(self.kind) or ROWS[self.kind]
        if self.table == "table4":
            return kind + (" with IRN" if self.method == "irn" else "")
        parts = [NETWORKS[self.network]] if self.network else []
        return ", ".join([*parts, METHODS[self.method], kind])

    @property
    def partner(self) -> "Cell | None":
        """The cell that it is compared with, if there is one."""
        return replace(self, kind=PARTNERS[self.kind]) if self.kind in PARTNERS else None

    def claim_id(self, dataset: str) -> str:
        """Return the paper's number that it stands beside: COCO's on COCO, VOC's on all other data."""
        if self.table == "table4":
            return f"table4.{self.row}.val"
        return f"{self.table}.{self.row}.{'coco14' if dataset == 'coco14' else 'voc12'}"


def rows_of(table: Mapping[Cell, Any]) -> dict[str, Any]:
    """Return a table by the names that its rows are stored under."""
    return {cell.row: values for cell, values in table.items()}


def columns(row: Mapping[str, Any], number: str, difference: str) -> dict[str, Any]:
    """Return columns of a stored row: a number and a difference, nan if absent, with intervals."""
    low, high = row.get("difference_interval", (np.nan, np.nan))
    return {
        f"{number} here": row.get("mean", np.nan), f"{number} low": row.get("low", np.nan),
        f"{number} high": row.get("high", np.nan), difference: row.get("difference", np.nan),
        f"{difference} low": low, f"{difference} high": high,
    }  # fmt: skip


def cam_beside_recam(cam: Cell, recam: Cell, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of a row of a table, paper beside measured; none if a cell is not in the result."""
    stored, row = result["rows"], {}
    if cam.row in stored and recam.row in stored:
        for place in (cam, recam):
            name = KINDS[place.kind]
            row[f"{name} paper"] = paper_values().get(place.claim_id(result["parameters"]["dataset"]))
            row |= columns(stored[place.row], name, "difference")  # ReCAM's, which comes last
    return row


def place(claim: str) -> tuple[str, str, str, str]:
    """Return table, block, row and column of one printed number."""
    table, first, *rest = claim.split(".")
    if table == "table1":
        return table, "", first, rest[0]
    return (table, first, *rest) if table == "table4" else (table, rest[1], first, rest[0])


def laid_out(texts: Iterable[tuple[str, str]], empty: str = "") -> dict[tuple[str, str], pd.DataFrame]:
    """Return texts by the claims they stand for as the paper's tables, by table and block."""
    blocks: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for claim, text in texts:
        table, block, row, column = place(claim)
        blocks.setdefault((table, block), {}).setdefault(row, {})[column] = text
    return {key: pd.DataFrame.from_dict(rows, orient="index").fillna(empty) for key, rows in blocks.items()}


def words(name: str) -> str:
    """Return the name of a row or column as a reader knows it: ``"IRN: CAM"`` for ``"irn.cam_miou"``."""
    row, dot, column = name.partition(".")
    if dot and row in ROWS:
        return f"{ROWS[row]}: {words(column)}"
    run, colon, row = name.partition(": ")  # of notebook 06
    if colon:
        return f"{run}: {words(row)}"
    if name in ROWS or not re.fullmatch(r"\w+", name):
        return ROWS.get(name) or name.replace("_", " ").replace("miou", "mIoU")
    return ", ".join(filter(None, (WORDS.get(part, part) for part in name.split("_"))))


def titled(evidence: str, names: Mapping[str, str] = ROWS) -> str:
    """Return evidence with the rows of Table 1 as a reader knows them."""
    for name in sorted(names, key=len, reverse=True):
        evidence = evidence.replace(name, names[name]) if "_" in name else evidence
    return evidence
