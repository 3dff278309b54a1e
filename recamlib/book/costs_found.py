"""What a full run would cost: the paper's own hours, and seconds measured here, scaled and so labelled."""

import math
from collections.abc import Sequence

from recamlib.book.found import Result
from recamlib.book.pages_trust import markdown_table
from recamlib.report.claims import load_paper, paper_value
from recamlib.report.tables import describe_data, escaped
from recamlib.studies import table3 as segment_tables
from recamlib.studies.table2 import KINDS, METHODS, title
from recamlib.studies.table3 import COCO_STEPS, COLUMNS, RECIPES

FULL = {"voc12": 10582, "coco14": 82783}  # VOC with SBD, and COCO 2014
CELLS = tuple(f"{method}.{kind}_ut" for method in METHODS for kind in KINDS)
WHOLE = tuple(f"{method}.{kind}_ut" for method in ("irn", "advcam_irn") for kind in KINDS)  # hold all steps


def _timed(results: Sequence[Result]) -> Result | None:
    """Return the first result that has times of Table 2."""
    return next((r for r in results if "seconds" in r["rows"].get(CELLS[0], {})), None)


def unit_times(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Return the time of each system, ``paper`` and ``here``, in units of the CAM baseline's, by title."""
    result = _timed(results)
    if result is None:
        return {}
    data = _data(result)
    return {
        title(cell): {"paper": paper_value(f"table2.{cell}.{data}"), "here": result["rows"][cell]["mean"]}
        for cell in CELLS if cell in result["rows"]
    }  # fmt: skip


def _data(result: Result) -> str:
    return "coco14" if result["parameters"]["dataset"] == "coco14" else "voc12"


def cost_parts(results: Sequence[Result]) -> list[str]:
    """Return the section on cost as Markdown: Table 2's systems, then networks, each with its label."""
    hours = load_paper()["table2"]["unit_time_hours"]
    measured = _timed(results)
    rows_here, images = (measured["rows"], measured["images"]["train"]) if measured else ({}, 1)
    head = ["system", *(f"paper, {data}" for data in FULL)]
    if measured:
        head += [f"here, {images:,} images", *(f"scaled to the {n:,} of {data}" for data, n in FULL.items())]
    rows = []
    for name, cells in [*((title(cell), (cell,)) for cell in CELLS), ("every step of the table", WHOLE)]:
        row = [name, *(_time(sum(paper_value(f"table2.{c}.{d}") for c in cells) * hours[d]) for d in FULL)]
        if measured:
            spent = sum(rows_here.get(cell, {}).get("seconds", math.nan) for cell in cells) / 3600
            row += [_time(spent), *(_time(spent * count / images) for count in FULL.values())]
        rows.append(row)
    text = (
        "The paper's hours are its unit times, on hardware that it does not name. The last row adds the "
        "rows with IRN, whose steps hold all others; the classifier, which they share, is counted in each."
    )
    if measured:
        text += (
            f" Hours here were measured on {escaped(describe_data(measured))}, "
            f"{escaped(measured['provenance']['device'])}; AdvCAM's by the image. The scaled ones are "
            "arithmetic and not a measurement: those hours times the ratio of training images, for the "
            "backbone and the crop of this run, on this device. The paper's are larger (see the end of this "
            "page), a GPU is faster."
        )
    parts = ["## What would a full run cost?", markdown_table(head, rows), text]
    return [*parts, *_networks(results)]


def _networks(results: Sequence[Result]) -> list[str]:
    """Return what a network of Table 3 takes, from the steps that were timed, provisional runs too."""
    rows = []
    for result in results:
        given = result["parameters"]
        for name, row in result["rows"].items():
            if not name.startswith("none.") or "cam_val" not in name or "cost" not in row:
                continue
            network = name.split(".")[1].split("_")[0]
            arch = next((a for a in given["archs"] if a.startswith(network)), "")
            steps = given["segment_steps"] or RECIPES.get(arch, {}).get("steps", 0)
            if arch in COLUMNS and steps:  # a small network has no published steps
                usual = RECIPES[arch]["steps"]
                published = COCO_STEPS.get(arch, usual) if _data(result) == "coco14" else usual
                each = row["cost"]["train_seconds"] / steps
                rows.append((segment_tables.title(name), result["provenance"]["device"], f"{steps:,}",
                             f"{each:.2f} s", f"{published:,}", _time(each * published / 3600)))  # fmt: skip
    if not rows:
        return []
    head = ("one network of Table 3", "device", "steps", "a step", "published steps", "these, at that pace")
    return [markdown_table(head, rows), "The pace is that of the crop, batch and backbone of the run."]


def _time(hours: float) -> str:
    """Return hours as people say them.

    Examples
    --------
    >>> _time(0.7), _time(221.4), _time(float("nan"))
    ('0.70 h', '221 h (9.2 days)', '')
    """
    if math.isnan(hours):
        return ""
    days = f" ({hours / 24:.1f} days)" if hours > 48 else ""
    return f"{hours:,.0f} h{days}" if hours >= 10 else f"{hours:.2f} h"
