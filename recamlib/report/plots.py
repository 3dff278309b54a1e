"""Every figure of the report: takes numbers and an axis, returns the axis, computes and prints nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recamlib.data.labels import LabelSpace
from recamlib.report.figures import show_as_svg

# Okabe and Ito's colours, told apart with every kind of colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#6E6E6E"
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442")
LOSS_COLOURS = {"bce": BLUE, "sce": RED}
KIND_COLOURS = {"CAM": GREY, "ReCAM": BLUE}


def set_style() -> None:
    """Set fonts and lines for the whole report, once per notebook."""
    sns.set_theme(context="notebook", style="ticks", font="DejaVu Sans")
    plt.rcParams.update({
        "figure.dpi": 110, "savefig.dpi": 160, "savefig.bbox": "tight", "axes.spines.top": False,
        "axes.spines.right": False, "axes.titlesize": "medium", "figure.constrained_layout.use": True,
    })  # fmt: skip
    show_as_svg()


def gradient_magnitudes(terms: Mapping[str, np.ndarray], grid: np.ndarray, *, cases: Mapping) -> Figure:
    """Draw the four gradient magnitudes of Section 4.2 over (z_p, z_q), the cases marked.

    Parameters
    ----------
    terms
        Title to magnitudes, each ``(n, n)`` with ``z_q`` along rows and ``z_p`` along columns.
    grid
        The ``n`` values of both logits.
    cases
        Letter to ``(z_p, z_q)``.
    """
    fig, axes = plt.subplots(1, len(terms), figsize=(3.1 * len(terms), 3.4), sharey=True)
    for ax, (title, values) in zip(axes, terms.items()):
        image = ax.imshow(
            values, origin="lower", extent=(grid[0], grid[-1]) * 2, cmap="cividis", vmin=0, vmax=1
        )
        ax.contour(grid, grid, values, levels=[0.25, 0.5, 0.75], colors="white", linewidths=0.6)
        for name, (zp, zq) in cases.items():
            ax.annotate(
                name, (zp, zq), ha="center", va="center", fontsize=10, weight="bold",
                bbox={"boxstyle": "circle,pad=0.25", "fc": "white", "ec": "black", "lw": 0.8},
            )  # fmt: skip
        ax.set(title=title, xlabel="$z_p$")
    axes[0].set_ylabel("$z_q$")
    fig.colorbar(image, ax=axes, label="|gradient|", shrink=0.85)
    return fig


def loss_bars(frame: pd.DataFrame, *, y: str, ax: Axes) -> Axes:
    """Draw one bar per (group, loss) with its 95 % interval; columns ``group, loss, <y>, low, high``."""
    groups, losses = list(dict.fromkeys(frame["group"])), list(dict.fromkeys(frame["loss"]))
    width = 0.8 / len(losses)
    for number, loss in enumerate(losses):
        part = frame[frame["loss"] == loss].set_index("group").loc[groups]
        place = np.arange(len(groups)) + (number - (len(losses) - 1) / 2) * width
        errors = np.abs(np.vstack([part[y] - part["low"], part["high"] - part[y]]))
        ax.bar(place, part[y], width * 0.92, color=LOSS_COLOURS[loss], label=loss.upper(),
               hatch="//" if number else "", edgecolor="white")  # fmt: skip
        ax.errorbar(place, part[y], yerr=errors, fmt="none", ecolor="black", capsize=3, lw=1)
        for x, value in zip(place, part[y]):
            ax.annotate(f"{value:.1f}", (x, 0), xytext=(0, 4), textcoords="offset points", ha="center",
                        color="white", fontsize=9, weight="bold")  # fmt: skip
    ax.set_xticks(range(len(groups)), groups, parse_math=False)  # names of data are no formulas
    ax.set_ylabel(y)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def gradient_curves(curves: Mapping[str, np.ndarray], *, ax: Axes, title: str = "") -> Axes:
    """Draw gradients over epochs (Figure 4), mean and range over seeds: loss to ``(seeds, epochs + 1)``."""
    for loss, values in curves.items():
        epochs = np.arange(values.shape[1])
        ax.plot(epochs, values.mean(0), color=LOSS_COLOURS[loss], label=loss.upper(), lw=2,
                ls="-" if loss == "bce" else "--")  # fmt: skip
        ax.fill_between(epochs, values.min(0), values.max(0), color=LOSS_COLOURS[loss], alpha=0.2, lw=0)
    ax.axhline(0, color="black", lw=0.6)
    ax.set(xlabel="epoch", ylabel="mean gradient", title=title)
    ax.legend(frameon=False)
    return ax


def table_bars(frame: pd.DataFrame, *, ax: Axes, paper: str) -> Axes:
    """Draw a comparison table as horizontal bars with intervals; the paper's numbers are diamonds."""
    y = np.arange(len(frame))
    ax.barh(y, frame["here"], color=[GREY if i == 0 else BLUE for i in y], height=0.66, label="here")
    errors = np.vstack([frame["here"] - frame["low"], frame["high"] - frame["here"]]).astype(float)
    ax.errorbar(frame["here"], y, xerr=np.nan_to_num(errors), fmt="none", ecolor="black", capsize=3, lw=1)
    ax.plot(frame[paper].astype(float), y, "D", color=ORANGE, mec="black", ms=7, label=paper, ls="none")
    ax.axvline(frame["here"].iloc[0], color=GREY, lw=0.8, ls=":")
    ax.set_yticks(y, frame.index)
    ax.invert_yaxis()
    ax.set_xlabel("mIoU of pseudo masks (%)")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def pair_bars(frame: pd.DataFrame, *, ax: Axes) -> Axes:
    """Draw Table 2: CAM beside ReCAM per refinement with intervals; the paper's numbers are diamonds.

    Columns ``CAM here, CAM low, CAM high, CAM paper`` and the same for ReCAM; one row per refinement.
    """
    place = np.arange(len(frame))
    for side, (kind, colour) in enumerate(KIND_COLOURS.items()):
        x = place + (side - 0.5) * 0.4
        here, low, high = (frame[f"{kind} {column}"].astype(float) for column in ("here", "low", "high"))
        ax.bar(x, here, 0.37, color=colour, label=kind, hatch="//" if side else "", edgecolor="white")
        errors = np.nan_to_num(np.abs(np.vstack([here - low, high - here])))
        ax.errorbar(x, here, yerr=errors, fmt="none", ecolor="black", capsize=3, lw=1)
        label = "paper" if side else None
        ax.plot(x, frame[f"{kind} paper"].astype(float), "D", color=ORANGE, mec="black", ms=7, ls="none",
                label=label)  # fmt: skip
    ax.set_xticks(place, frame.index)
    ax.set_ylabel("mIoU of pseudo masks (%)")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def stacked_times(parts: Mapping[str, Mapping[str, float]], *, unit: float, ax: Axes) -> Axes:
    """Draw where the time of each system goes: name to step to seconds, in units of `unit` seconds."""
    longest = max(parts.values(), key=len)  # its steps, in order, hold nearly all
    steps = list(dict.fromkeys([*longest, *(step for row in parts.values() for step in row)]))
    y, left = np.arange(len(parts)), np.zeros(len(parts))
    hatches = ("", "//", "..", "xx")
    for number, step in enumerate(steps):
        width = np.array([row.get(step, 0.0) for row in parts.values()]) / unit
        ax.barh(y, width, left=left, color=CLASS_COLOURS[number % len(CLASS_COLOURS)], label=step,
                hatch=hatches[number // len(CLASS_COLOURS)], edgecolor="white", height=0.7)  # fmt: skip
        left += width
    for place, total in zip(y, left):
        ax.annotate(f"{total:.1f}", (total, place), xytext=(4, 0), textcoords="offset points", va="center",
                    fontsize=9)  # fmt: skip
    ax.margins(x=0.08)
    ax.set_yticks(y, list(parts))
    ax.invert_yaxis()
    ax.set_xlabel("time (ut: the CAM baseline takes 1)")
    ax.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def ratio(value: float) -> str:
    """Return how many times as long, in three digits or whole: ``"2.06"``, ``"9,265"``."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def before_and_after(frame: pd.DataFrame, *, ax: Axes) -> Axes:
    """Draw seconds of the literal and of our form as two points on a log scale; columns ``ours, literal``."""
    y = np.arange(len(frame))  # points: the length of a bar says nothing on a log scale
    ax.hlines(y, frame["ours"], frame["literal"], color=GREY, lw=1, zorder=0)
    ax.scatter(frame["literal"], y, color=GREY, marker="s", label="literal")
    ax.scatter(frame["ours"], y, color=BLUE, label="ours")
    for place, (_, row) in zip(y, frame.iterrows()):
        ax.annotate(f"÷ {ratio(row['literal'] / row['ours'])}", (max(row["literal"], row["ours"]), place),
                    xytext=(8, 0), textcoords="offset points", va="center")  # fmt: skip
    ax.set(xscale="log", xlabel="seconds (same work, same machine)")
    if frame[["ours", "literal"]].max().max() < 10 * frame[["ours", "literal"]].min().min():
        ax.xaxis.set_major_formatter("{x:g}")  # less than a decade has one major tick or none
        ax.xaxis.set_minor_formatter("{x:g}")
    ax.margins(x=0.2, y=0.3)
    ax.set_yticks(y, frame.index)
    ax.invert_yaxis()
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def group_bars(frame: pd.DataFrame, *, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw Figure 6b: one axis per kind of image; columns ``group, method, kind, miou``."""
    for ax, (group, part) in zip(axes, frame.groupby("group", sort=False)):
        table = part.pivot_table(index="method", columns="kind", values="miou", sort=False)
        place = np.arange(len(table))
        for side, (name, kind) in enumerate(zip(KIND_COLOURS, ("cam", "recam"))):
            bars = ax.bar(place + (side - 0.5) * 0.4, table[kind], 0.37, color=KIND_COLOURS[name], label=name,
                          hatch="//" if side else "", edgecolor="white")  # fmt: skip
            ax.bar_label(bars, fmt="%.1f", fontsize=8)
        ax.set_xticks(place, table.index)
        ax.set(title=f"{group}-label images", ylabel="mIoU (%)")
    axes[-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return axes


def sensitivity(curve: pd.DataFrame, *, ax: Axes, baseline: float, x: str = "sce_weight") -> Axes:
    """Draw mIoU against lambda with its interval (Figure 6a); columns ``<x>, mean, low, high``."""
    place = np.arange(len(curve))
    errors = np.abs(np.vstack([curve["mean"] - curve["low"], curve["high"] - curve["mean"]]))
    ax.errorbar(place, curve["mean"], yerr=np.nan_to_num(errors), color=BLUE, marker="o", capsize=3)
    ax.axhline(baseline, color=GREY, ls=":", label="BCE only")
    ax.set_xticks(place, [f"{value:g}" for value in curve[x]])
    ax.set(xlabel="$\\lambda$", ylabel="mIoU (%)")
    ax.legend(frameon=False)
    return ax


def threshold_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, ax: Axes, fixed: float) -> Axes:
    """Draw mIoU against the background threshold, one line per method, the published threshold marked."""
    styles = ("-", "--", "-.", ":")
    for number, (name, (thresholds, miou)) in enumerate(curves.items()):
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        ax.plot(thresholds, miou, color=colour, ls=styles[number % 4], label=name)
        ax.plot(thresholds[np.argmax(miou)], max(miou), "o", color=colour, ms=5)
    ax.axvline(fixed, color=GREY, lw=0.8, ls=":")
    ax.set(xlabel="background threshold", ylabel="mIoU (%)")
    ax.legend(frameon=False, fontsize="small")
    return ax


def overlay(image: np.ndarray, map_: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 under a map (H, W) in [0, 1] as float RGB in [0, 1]."""
    heat = plt.get_cmap("inferno")(np.clip(map_, 0, 1))[..., :3]
    alpha = (0.15 + 0.7 * np.clip(map_, 0, 1))[..., None]
    return (1 - alpha) * (image / 255.0) + alpha * heat


def paint(mask: np.ndarray, space: LabelSpace, image: np.ndarray | None = None) -> np.ndarray:
    """Return a mask (H, W) as float RGB; background shows the image dimmed, ignored pixels are white."""
    if len(space) <= len(CLASS_COLOURS):
        colours = np.array([plt.matplotlib.colors.to_rgb(c) for c in CLASS_COLOURS])
    else:
        colours = space.palette[1 : len(space) + 1] / 255.0
    base = np.full((*mask.shape, 3), 0.12) if image is None else 0.35 * image / 255.0
    for value in np.unique(mask):
        if value == space.ignore:
            base[mask == value] = 1.0
        elif value > 0:
            base[mask == value] = colours[value - 1]
    return base


def gallery(rows: Sequence[Mapping[str, Any]], *, width: float = 1.9) -> Figure:
    """Draw pictures side by side: one row per image, one column per key; values are RGB arrays.

    A row may hold ``"caption"``, written left of it.
    """
    keys = [key for key in rows[0] if key != "caption"]
    height, wide = rows[0][keys[0]].shape[:2]
    size = (width * len(keys) + 0.6, width * height / wide * len(rows) + 0.4)
    fig, axes = plt.subplots(len(rows), len(keys), figsize=size, squeeze=False)
    for line, row in zip(axes, rows):
        for ax, key in zip(line, keys):
            ax.imshow(row[key], interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            sns.despine(ax=ax, left=True, bottom=True)
        line[0].set_ylabel(row.get("caption", ""), rotation=0, ha="right", va="center", fontsize=9,
                           parse_math=False)  # fmt: skip
    for ax, key in zip(axes[0], keys):
        ax.set_title(key, fontsize=10)
    return fig
