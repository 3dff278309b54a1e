"""Figures of the segmentation notebook: losses, classes, and how much ReCAM adds to which network."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from recamlib.report.plots import BLUE, CLASS_COLOURS, GREY, KIND_COLOURS

STYLES = ("-", "--", "-.", ":")


def loss_curves(curves: Mapping[str, Sequence[float]], *, ax: Axes) -> Axes:
    """Draw the training loss per pass over the images, one line per network."""
    for number, (name, values) in enumerate(curves.items()):
        ax.plot(np.arange(1, len(values) + 1), values, label=name, lw=1.5, marker=".",
                color=CLASS_COLOURS[number % len(CLASS_COLOURS)], ls=STYLES[number % 4])  # fmt: skip
    ax.set(xlabel="pass over the pseudo masks", ylabel="training loss", yscale="log")
    ax.legend(frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def class_bars(rows: Mapping[str, Mapping[str, float]], *, ax: Axes) -> Axes:
    """Draw IoU per class, CAM beside ReCAM: ``"CAM"`` and ``"ReCAM"`` to class to percent."""
    frame = pd.DataFrame(rows)
    place = np.arange(len(frame))
    for side, (kind, colour) in enumerate(KIND_COLOURS.items()):
        ax.bar(place + (side - 0.5) * 0.4, frame[kind], 0.37, color=colour, label=kind, edgecolor="white",
               hatch="//" if side else "")  # fmt: skip
    many = len(frame) > 8
    turned = {"rotation": 60, "ha": "right"} if many else {}
    ax.set_xticks(place, frame.index, parse_math=False, **turned)  # names of data are no formulas
    ax.set_ylabel("IoU (%)")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return ax


def margin_points(frame: pd.DataFrame, *, ax: Axes) -> Axes:
    """Draw ReCAM minus CAM with its interval, per network and kind of pseudo mask (Table 3)."""
    part = frame.dropna(subset=["difference"]) if "difference" in frame else frame.iloc[:0]
    y = np.arange(len(part))
    low, high = (part[f"difference {end}"].astype(float) for end in ("low", "high"))
    errors = np.nan_to_num(np.abs(np.vstack([part["difference"] - low, high - part["difference"]])))
    ax.errorbar(part["difference"], y, xerr=errors, fmt="o", color=BLUE, capsize=3)
    ax.axvline(0, color=GREY, lw=0.8, ls=":")
    ax.set_yticks(y, [", ".join(name) for name in part.index])
    ax.invert_yaxis()
    ax.set_xlabel("ReCAM minus CAM (points of mIoU)")
    return ax
