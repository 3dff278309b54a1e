"""Figures of the page on what was found: the paper's differences beside measured ones, and costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from recamlib.report.plots import BLUE, GREEN, GREY, ORANGE, PURPLE, RED

RUNS = ((BLUE, "o"), (GREEN, "s"), (PURPLE, "^"), (RED, "v"))


def differences(rows: Sequence[Mapping[str, Any]], *, ax: Axes) -> Axes:
    """Draw the paper's differences as diamonds, measured ones as points with intervals, one row a claim.

    Parameters
    ----------
    rows
        ``table``, ``title``, ``paper`` (points of mIoU) and ``here``: run to (difference, low, high), the
        ends nan where there is no interval; a row without a run says so.
    ax
        Where to draw.
    """
    runs = list(dict.fromkeys(run for row in rows for run in row["here"]))
    places, ticks, place, table = [], [], 0.0, ""
    for row in rows:
        place += 1.0 if row["table"] == table else 1.8
        if row["table"] != table:
            table = row["table"]
            ax.annotate(table, (0, place - 0.85), xycoords=("axes fraction", "data"), xytext=(-6, 0),
                        textcoords="offset points", ha="right", va="center", weight="bold")  # fmt: skip
        places.append(place)
        ticks.append(row["title"])
        for number, run in enumerate(runs):
            if run not in row["here"]:
                continue
            value, low, high = row["here"][run]
            colour, marker = RUNS[number % len(RUNS)]
            y = place + 0.2 * (number - (len(runs) - 1) / 2)
            ax.plot([low, high], [y, y], color=colour, lw=2)
            ax.plot(value, y, marker, color=colour, ms=6)
        if not row["here"]:
            ax.annotate("not run", (1, place), xycoords=("axes fraction", "data"), xytext=(4, 0),
                        textcoords="offset points", va="center", fontsize="small", color=GREY)  # fmt: skip
    for number, run in enumerate(runs):
        colour, marker = RUNS[number % len(RUNS)]
        ax.plot([], [], marker, color=colour, label=run)
    ax.plot([row["paper"] for row in rows], places, "D", color=ORANGE, mec="black", ms=6, label="paper")
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(places, ticks)
    ax.set_ylim(place + 0.7, 0.4)
    ax.set_xlabel("difference to its baseline (points of mIoU)")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, -0.07), ncols=2, fontsize="small")
    return ax


def starts(runs: Mapping[str, Sequence[tuple[float, float]]], *, ax: Axes) -> Axes:
    """Draw mIoU (%) of ReCAM against that of the CAM it starts from: run to a pair for each training."""
    for number, (name, pairs) in enumerate(runs.items()):
        colour, marker = (*RUNS, (GREY, "o"), (ORANGE, "P"))[number % (len(RUNS) + 2)]
        ax.plot(*np.reshape(pairs, (-1, 2)).T, marker, color=colour, ms=6, alpha=0.8, label=name)
    top = 1.08 * max(value for pairs in runs.values() for pair in pairs for value in pair)
    ax.plot([0, top], [0, top], ":", color="black", lw=1)
    ax.set(xlim=(0, top), ylim=(0, top), xlabel="mIoU of CAM (%)", ylabel="mIoU of ReCAM (%)")
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.14))
    return ax


def times(rows: Mapping[str, Mapping[str, float]], *, ax: Axes) -> Axes:
    """Draw the time of each system in units of the CAM baseline's, log scale: title to ``paper, here``."""
    y = np.arange(len(rows))
    for key, colour, marker in (("paper", ORANGE, "D"), ("here", BLUE, "o")):
        ax.plot([row.get(key, np.nan) for row in rows.values()], y, marker, color=colour, mec="black", ms=7,
                label=key)  # fmt: skip
    for place, row in zip(y, rows.values()):
        ax.plot([row["paper"], row.get("here", row["paper"])], [place, place], color=GREY, lw=0.8, zorder=0)
    ax.set(xscale="log", xlabel="time (the CAM baseline takes 1)")
    ax.set_yticks(y, list(rows))
    ax.invert_yaxis()
    ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return ax
