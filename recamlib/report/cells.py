"""Cells of Tables 2 to 4: what a number is of, its name where it is stored, its number in the paper."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recamlib.report.claims import all_claims

METHODS = {"none": "no refinement", "irn": "IRN", "advcam": "AdvCAM", "advcam_irn": "AdvCAM + IRN"}
KINDS = {
    "cam": "CAM", "recam": "ReCAM", "eps": "EPS", "recam_e": "ReCAM-E", "edam": "EDAM's merge",
    "recam_m": "ReCAM-M",
}  # fmt: skip
"""Systems by name. Of EDAM it is the merge alone, of CAM, not its classifier."""

NETWORKS = {"deeplabv2": "DeepLabV2", "deeplabv3plus": "DeepLabV3+", "upernet": "UPerNet"}
PARTNERS = {"recam": "cam", "eps": "cam", "recam_e": "eps", "edam": "cam", "recam_m": "edam"}
"""System to the one it is compared with, the same one without reactivation, or CAM."""

TRUE_MASKS = "upper_bound"  # in place of a method: a network that learnt from true masks


@dataclass(frozen=True)
class Cell:
    """One cell of a table: maps of a kind after a refinement, or a network that learnt from their masks.

    `table` is ``"table2"``, ``"table3"`` or ``"table4"``, `method` one of `METHODS` or `TRUE_MASKS`, `kind`
    one of `KINDS` (empty for true masks), `network` one of `NETWORKS`, empty where maps are scored.
    """

    table: str
    method: str
    kind: str = ""
    network: str = ""

    @property
    def row(self) -> str:
        """Name of its row in a stored result.

        Examples
        --------
        >>> Cell("table2", "irn", "recam").row, Cell("table3", "irn", "cam", "deeplabv2").row
        ('irn.recam_miou', 'irn.deeplabv2_cam_val')
        >>> [Cell("table4", method, "recam", "deeplabv2").row for method in ("irn", "none")]
        ['without_saliency.ReCAM', 'without_saliency.ReCAM without IRN']
        """
        if self.method == TRUE_MASKS:
            return f"{TRUE_MASKS}.{self.network}"
        if self.table == "table3":
            return f"{self.method}.{self.network}_{self.kind}_val"
        if not self.network:
            return f"{self.method}.{self.kind}" + ("_miou" if self.table == "table2" else "")
        if self.kind not in ("cam", "recam"):  # with saliency; the paper does not say whether with IRN
            return f"with_saliency.{KINDS[self.kind]}"
        names = {("irn", "cam"): "IRN", ("irn", "recam"): "ReCAM", ("none", "cam"): "CAM"}
        return f"without_saliency.{names.get((self.method, self.kind), 'ReCAM without IRN')}"

    @property
    def time_row(self) -> str:
        """Name of the row of its time."""
        return f"{self.method}.{self.kind}_ut"

    @property
    def title(self) -> str:
        """What people call it: ``"IRN, ReCAM"``, ``"DeepLabV2, IRN, ReCAM"``, ``"ReCAM-E with IRN"``."""
        if self.method == TRUE_MASKS:
            return f"{NETWORKS[self.network]}, TRUE MASKS"
        if self.table == "table4":
            return KINDS[self.kind] + (" with IRN" if self.method == "irn" else "")
        parts = [NETWORKS[self.network]] if self.network else []
        return ", ".join([*parts, METHODS[self.method], KINDS[self.kind]])

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
    """Return columns of a stored row: a number and a difference, each with the ends of its interval.

    They are named so that :func:`recamlib.report.tables.shown` puts an interval beside its number; what a row
    does not have is nan.
    """
    low, high = row.get("difference_interval", (np.nan, np.nan))
    return {
        f"{number} here": row.get("mean", np.nan), f"{number} low": row.get("low", np.nan),
        f"{number} high": row.get("high", np.nan), difference: row.get("difference", np.nan),
        f"{difference} low": low, f"{difference} high": high,
    }  # fmt: skip


def cam_beside_recam(cam: Cell, recam: Cell, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return columns of a row of a table, paper beside measured; none if a cell is not in the result."""
    stored, row = result["rows"], {}
    paper = {claim.id: claim.value for claim in all_claims()}
    if cam.row in stored and recam.row in stored:
        for place in (cam, recam):
            name = KINDS[place.kind]
            row[f"{name} paper"] = paper.get(place.claim_id(result["parameters"]["dataset"]))
            row |= columns(stored[place.row], name, "difference")  # ReCAM's, which comes last
    return row
