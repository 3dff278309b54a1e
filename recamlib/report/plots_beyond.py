"""Figures of notebook 06: planned experiments, the grid over the random walk, classifiers against maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recamlib.report.plots import BLUE, GREY, ORANGE, RED

SIGNS = {"raises": (BLUE, "o"), "lowers": (RED, "s"), "cannot tell": (GREY, "D")}


def forest(frame: pd.DataFrame, *, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw what reactivation does at every level: the difference, and where it comes from.

    Left: thick over seeds (simultaneous), thin over images. Right: change of the shares of pixels wrongly
    given to a class, and wrongly kept from theirs. Columns as `recamlib.studies.reading.table` makes them.
    """
    left, right = axes
    y = np.arange(len(frame))
    for place, (_, row) in zip(y, frame.iterrows()):
        colour, marker = SIGNS[row["sign"]]
        left.plot([row["images low"], row["images high"]], [place, place], color=colour, lw=1)
        left.plot([row["low"], row["high"]], [place, place], color=colour, lw=3.5, alpha=0.55)
        left.plot(row["difference"], place, marker, color=colour, ms=6)
    for name, (colour, marker) in SIGNS.items():
        left.plot([], [], marker, color=colour, label=name)
    left.axvline(0, color="black", lw=0.8)
    left.axvline(frame["difference"].iloc[0], color=GREY, lw=0.8, ls=":")
    left.set_yticks(y, frame.index)
    left.set_xlabel("ReCAM minus CAM (points of mIoU)")
    for column, offset, colour, hatch in (
        ("false_positives", -0.2, ORANGE, ""), ("false_negatives", 0.2, BLUE, "//"),
    ):  # fmt: skip
        right.barh(y + offset, frame[column], 0.36, color=colour, hatch=hatch, edgecolor="white",
                   label=column.replace("_", " "))  # fmt: skip
    right.axvline(0, color="black", lw=0.8)
    right.set_xlabel("change of wrong pixels (% of all)")
    right.set_yticks(y, [""] * len(y))
    for ax in axes:
        ax.set_ylim(len(frame) - 0.5, -0.5)
        ax.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return axes


def walk_heat(
    frame: pd.DataFrame, *, published: tuple[float, int, float], chosen: tuple[float, int, float]
) -> Figure:
    """Draw mIoU over beta and steps, one panel a background threshold; published and chosen setting marked.

    Columns ``beta, steps, threshold, miou``; a setting is (beta, steps, threshold).
    """
    thresholds = sorted(frame["threshold"].unique())
    fig, axes = plt.subplots(
        1, len(thresholds), figsize=(1.5 + 1.9 * len(thresholds), 2.9), sharey=True, squeeze=False
    )
    low, high = frame["miou"].min(), frame["miou"].max()
    for ax, threshold in zip(axes[0], thresholds):
        part = frame[frame["threshold"] == threshold]
        grid = part.pivot_table(index="beta", columns="steps", values="miou")
        image = ax.imshow(grid, cmap="cividis", vmin=low, vmax=high, origin="lower", aspect="auto")
        for (i, j), value in np.ndenumerate(grid.to_numpy()):
            light = value < (low + high) / 2
            ax.annotate(f"{value:.0f}", (j, i), ha="center", va="center", fontsize=8,
                        color="white" if light else "black")  # fmt: skip
        for (beta, steps, at), style in ((published, ":"), (chosen, "-")):
            if at == threshold:
                corner = (list(grid.columns).index(steps) - 0.5, list(grid.index).index(beta) - 0.5)
                ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, ec=RED, lw=2.5, ls=style, clip_on=False))
        ax.set_xticks(range(len(grid.columns)), grid.columns)
        ax.set_yticks(range(len(grid.index)), [f"{beta:g}" for beta in grid.index])
        ax.set(title=f"threshold {threshold:g}", xlabel="steps")
    axes[0, 0].set_ylabel("beta")
    fig.colorbar(image, ax=axes, label="mIoU on train (%)")
    return fig


def precision_scatter(points: Sequence[Mapping[str, Any]], *, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw mIoU against mAP, one axis for CAM and one for ReCAM; a marker a classifier.

    Points are of `recamlib.studies.beyond.precision_points`; intervals are over images, where there are any.
    """
    names = list(dict.fromkeys(point["classifier"] for point in points))
    markers, colours = "osDv^<>PXph*", plt.get_cmap("cividis")(np.linspace(0, 0.95, len(names)))
    for ax, kind in zip(axes, ("cam", "recam")):
        for number, name in enumerate(names):
            for i, point in enumerate(p for p in points if p["classifier"] == name):
                value = (point["map"], point[kind])
                spans = [point.get(f"{key}_interval") for key in ("map", kind)]
                errors = [np.abs(np.array([span]).T - v) if span else None for span, v in zip(spans, value)]
                ax.errorbar(*value, xerr=errors[0], yerr=errors[1], fmt=markers[number % len(markers)],
                            color=colours[number], elinewidth=0.6, alpha=0.9,
                            label=None if i else name)  # fmt: skip
        ax.set(xlabel="mAP on val (%)", ylabel="mIoU on train (%)", title={"cam": "CAM"}.get(kind, "ReCAM"))
    axes[-1].legend(frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return axes
