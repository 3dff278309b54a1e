"""Figures of the page on what was found, from the kept results."""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from recamlib.book import plots_found
from recamlib.book.costs_found import unit_times
from recamlib.book.found import Result, reported
from recamlib.book.scoreboard import part_of
from recamlib.book.wording import cell_title
from recamlib.report import plots_beyond
from recamlib.report.claims import all_claims, paper_difference
from recamlib.report.kept import trained_on
from recamlib.report.tables import row_of

NAMES = {"voc12": "PASCAL VOC 2012", "coco14": "MS COCO 2014"}
CAPTIONS = {
    "differences": "Every difference of the paper's tables that a run can measure (diamonds), and what the "
    "runs here measured, with 95 % intervals. Table 1 is over BCE alone; right of zero is in favour.",
    "advcam": "Time of the eight systems of Table 2, each in units of the CAM baseline of its own machine.",
    "starts": "mIoU of ReCAM against that of the CAM it starts from, a point per training; above the dotted "
    "line reactivation raises it. Drawn after most of the runs to see what they have in common: no verdict.",
    "when": "ReCAM minus CAM at every level of the plan: thick over seeds, thin over images; and which "
    "pixels change.",
}


def found_figures(results: Sequence[Result]) -> dict[str, Figure]:
    """Return the page's figures by name, of those that some result has numbers for."""
    draw: dict[str, Callable[[], Figure | None]] = {
        "advcam": lambda: _times(results), "when": lambda: _levels(results),
        "starts": lambda: _starts(results),
        **{f"differences_{data}": (lambda data=data: _differences(results, data)) for data in NAMES},
    }  # fmt: skip
    drawn = {name: make() for name, make in draw.items()}
    return {name: fig for name, fig in drawn.items() if fig is not None}


def _differences(results: Sequence[Result], data: str) -> Figure | None:
    """Draw all differences of one data set, or nothing where none was measured."""
    rows, mine = [], [r for r in results if (r["parameters"]["dataset"] == "coco14") == (data == "coco14")]
    for claim in all_claims():
        columns = ("voc12", "val") if data == "voc12" else (data,)  # Table 4 is of VOC
        if not claim.baseline or not claim.id.endswith(columns) or "_test." in claim.id:
            continue
        here = {}
        for result in mine:
            row = row_of(claim, result)
            if row and "difference" in row:
                ends = [np.nan if end is None else end for end in row["difference_interval"]]
                here.setdefault(_run_name(result), (row["difference"], *ends))
        part, shared = part_of(claim.id), "ReCAM over CAM, "
        title = cell_title(claim.id)
        rows.append({
            "table": part + f": {shared.strip(', ')}" * title.startswith(shared),
            "title": title.removeprefix(shared), "here": here, "paper": paper_difference(claim),
        })  # fmt: skip
    if not any(row["here"] for row in rows):
        return None
    # the names of the runs below may be wider than the axes: constrained layout would leave these no room
    fig, ax = plt.subplots(figsize=(6, 1.4 + 0.36 * len(rows)), layout="none")
    plots_found.differences(rows, ax=ax).set_title(NAMES[data])
    return fig


def _run_name(result: Result) -> str:
    given = result["parameters"]
    return f"{given['profile']}, {given['backbone']}, {trained_on(result):,} images"


def _times(results: Sequence[Result]) -> Figure | None:
    rows = unit_times(results)
    if not rows:
        return None
    fig, ax = plt.subplots(figsize=(6, 3.4))
    plots_found.times(rows, ax=ax)
    return fig


def _starts(results: Sequence[Result]) -> Figure | None:
    """Draw ReCAM against the CAM it starts from: Table 1's runs, and the plans of notebook 06."""
    runs: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        rows = result["rows"]
        if result["notebook"] == "02_table1_ablations":
            name = f"{NAMES[result['parameters']['dataset']]}: {_run_name(result)}"
            pair = (rows["bce_only"]["per_seed"], rows[reported(result)]["per_seed"])
            runs.setdefault(name, []).extend(zip(*pair, strict=True))
        elif result["notebook"] == "06_beyond":  # its other points are those of Table 1 again
            points = [p for p in result.get("points", ()) if "cam_interval" in p]
            runs.setdefault("planned runs of notebook 06", []).extend((p["cam"], p["recam"]) for p in points)
    if not any(runs.values()):
        return None
    fig, ax = plt.subplots(figsize=(6, 4.6), layout="none")
    plots_found.starts(runs, ax=ax)
    return fig


def _levels(results: Sequence[Result]) -> Figure | None:
    """Draw the study of the sign, if a result has one."""
    for result in results:
        rows = {name.removeprefix("sign: "): row for name, row in result["rows"].items()
                if name.startswith("sign: ")}  # fmt: skip
        if result["notebook"] == "06_beyond" and rows:
            frame: pd.DataFrame = pd.DataFrame.from_dict(rows, orient="index").fillna(np.nan)
            size = (10, 1.4 + 0.34 * len(frame))  # narrower, the legends of the two would meet
            fig, axes = plt.subplots(1, 2, figsize=size, width_ratios=[3, 2], layout="constrained")
            plots_beyond.forest(frame, axes=axes)
            return fig
    return None
