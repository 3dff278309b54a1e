"""Figures of refinement: the random walk's matrix and cost, systems with saliency, saliency itself."""

import json
import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from recamlib.method.walk import random_walk
from recamlib.paths import book_dir
from recamlib.report.plots import BLUE, GREY, ORANGE, RED

Grid = tuple[int, int]
GRIDS: tuple[Grid, ...] = ((24, 31), (47, 62), (94, 125), (133, 177))
DENSE = "random_walk.json"  # kept by benchmarks/bench_walk.py --large


def sparsity(ax: Axes, *, grid: Grid = (9, 14)) -> Axes:
    """Draw which entries of the transition matrix of a small grid with one wall are not 0.

    Row and column are cells, counted along the rows of the grid; the wall is the middle column of cells.
    """
    height, width = grid
    cells = height * width
    every = torch.eye(cells).reshape(cells, height, width)  # a walk of one step from each cell is T's row
    wall = torch.zeros(grid)
    wall[:, width // 2] = 0.95
    near = random_walk(every, torch.zeros(grid), steps=1).flatten(1) > 0
    open_ = random_walk(every / (1 - wall), wall, steps=1).flatten(1) > 1e-3
    kinds = near.int() + (near & open_).int()  # (cells, cells): 0 far, 1 behind the wall, 2 reached
    ax.imshow(kinds.numpy(), cmap=ListedColormap(["white", ORANGE, BLUE]), vmin=0, vmax=2)
    share = float(near.float().mean())
    names = {BLUE: "reached in a step", ORANGE: "near, but behind the wall"}
    names["white"] = f"farther than the radius: 0 ({100 * (1 - share):.0f} %)"
    patches = [Patch(facecolor=colour, edgecolor=GREY, label=name) for colour, name in names.items()]
    ax.legend(handles=patches, frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    ax.set(xlabel="to cell", ylabel="from cell", title=f"T of a {height} x {width} grid, radius 5")
    return ax


def walk_seconds(grids: Sequence[Grid] = GRIDS, *, repeats: int = 3) -> dict[Grid, float]:
    """Return the shortest of some times that a walk of 256 steps takes on each grid, one class."""
    seconds = {}
    for grid in grids:
        boundary = torch.rand(grid, generator=torch.Generator().manual_seed(0)) ** 4
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            random_walk(boundary[None], boundary)
            times.append(time.perf_counter() - start)
        seconds[grid] = min(times[1:])  # the first one warms up
    return seconds


def cost_line(ax: Axes, *, seconds: Mapping[Grid, float] | None = None) -> Axes:
    """Draw seconds of a walk against cells, and what the dense matrix would take if its ratio was kept.

    `seconds` are measured here and now (:func:`walk_seconds`) unless given. The dense line is the kept ratio
    of one run times the line measured here, with the cube of the cells as its slope.
    """
    seconds = seconds or walk_seconds()
    cells, taken = np.array([h * w for h, w in seconds]), np.array(list(seconds.values()))
    ax.loglog(cells, taken, "o-", color=BLUE, label="sparse series, measured here")
    ax.loglog(cells, taken[-1] * cells / cells[-1], ":", color=GREY, label="proportional to cells")
    kept = book_dir() / "measured" / DENSE
    if kept.is_file():
        run = json.loads(kept.read_text())
        size = run["grid"][0] * run["grid"][1]
        there = run["times_faster"] * np.exp(np.interp(np.log(size), np.log(cells), np.log(taken)))
        ax.loglog(cells, there * (cells / size) ** 3, "--", color=RED, label="dense matrix, cube of cells")
        ax.plot(size, there, "s", color=RED, label=f"dense, kept ratio {run['times_faster']:.0f}")
    ax.set(xlabel="cells of the grid", ylabel="seconds an image", title="256 steps, one class")
    ax.legend(frameon=False, fontsize="small")
    return ax


def system_bars(frame: pd.DataFrame, *, ax: Axes) -> Axes:
    """Draw the pseudo masks of Table 4's systems with intervals, without and with IRN.

    `frame` is of :func:`recamlib.studies.table4.mask_frame`: columns ``X here, X low, X high`` per kind of
    mask.
    """
    kinds = [name.removesuffix(" here") for name in frame if name.endswith(" here")]
    y = np.arange(len(frame))
    for side, (kind, colour) in enumerate(zip(kinds, (GREY, BLUE))):
        place = y + (side - (len(kinds) - 1) / 2) * 0.4
        here, low, high = (frame[f"{kind} {column}"].astype(float) for column in ("here", "low", "high"))
        ax.barh(place, here, 0.37, color=colour, label=kind, hatch="//" if side else "", edgecolor="white")
        errors = np.nan_to_num(np.abs(np.vstack([here - low, high - here])))
        ax.errorbar(here, place, xerr=errors, fmt="none", ecolor="black", capsize=3, lw=1)
    ax.set_yticks(y, frame.index)
    ax.invert_yaxis()
    ax.set_xlabel("mIoU of pseudo masks (%)")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def foreground_curve(result: Mapping[str, Sequence[float]], *, ax: Axes, theta: float) -> Axes:
    """Draw the foreground's IoU against the saliency threshold; what all foreground would give is dotted."""
    ax.plot(result["thresholds"], 100 * np.asarray(result["iou"]), color=BLUE, label="saliency")
    ax.axhline(100 * result["share"], color=GREY, ls=":", label="everything foreground")
    ax.axvline(theta, color=ORANGE, ls="--", lw=1, label="theta")
    ax.set(xlabel="threshold", ylabel="IoU of the foreground (%)", ylim=(0, None))
    ax.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return ax
