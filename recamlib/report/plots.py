"""Every figure of the report: takes numbers and an axis, returns it; shown as SVG that says what it holds."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from recamlib.data.labels import LabelSpace

# Okabe and Ito's colours, told apart with every kind of colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#6E6E6E"
CLASS_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442")
LOSS_COLOURS = {"bce": BLUE, "sce": RED}
STYLES = ("-", "--", "-.", ":")

LONGEST = 700  # characters of a description
WIDEST = 620.0  # points of a figure; JupyterLab shows it at its own size and cuts off what is wider


def set_style() -> None:
    """Set fonts and lines, once per notebook; its figures appear as SVG that says what it holds."""
    from IPython import get_ipython
    from matplotlib_inline.config import InlineBackend

    sns.set_theme(context="notebook", style="ticks", font="DejaVu Sans")
    plt.rcParams.update({
        "figure.dpi": 110, "savefig.dpi": 160, "savefig.bbox": "tight", "axes.spines.top": False,
        "axes.spines.right": False, "axes.titlesize": "medium", "figure.constrained_layout.use": True,
    })  # fmt: skip
    if shell := get_ipython():
        InlineBackend.instance(parent=shell).figure_formats = set()  # its own formats would win over these
        shell.display_formatter.mimebundle_formatter.for_type(
            Figure, lambda fig, **_: {"image/svg+xml": to_svg(fig), "text/plain": describe(fig)}
        )


def gradient_magnitudes(terms: Mapping[str, np.ndarray], grid: np.ndarray, *, cases: Mapping) -> Figure:
    """Draw magnitudes (n, n), z_q along rows, over n values of a logit; cases are letter to (z_p, z_q)."""
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


def bars(
    frame: pd.DataFrame, *, ax: Axes, label: str, series: Sequence[str] = (), across: bool = False,
    numbers: bool = False,
) -> Axes:  # fmt: skip
    """Draw a bar per row and series with its 95 % interval; the paper's numbers are diamonds.

    `frame` has columns ``X here`` of every series ``X``, and where there are any ``X low``, ``X high`` and
    ``X paper``; a single series may do without the name. Bars lie with `across`.
    """
    stems = [f"{name} " for name in series]
    stems = stems or [str(name).removesuffix("here") for name in frame if str(name).endswith("here")]
    colours = [[GREY] + [BLUE] * (len(frame) - 1)] if len(stems) == 1 else [GREY, BLUE]
    place, width = np.arange(len(frame)), 0.8 / len(stems)
    draw, errors = (ax.barh, "xerr") if across else (ax.bar, "yerr")
    for side, stem in enumerate(stems):
        here = frame[f"{stem}here"].astype(float)
        at = place + (side - (len(stems) - 1) / 2) * width
        drawn = draw(at, here, width * 0.92, color=colours[side], label=stem.strip() or "here",
                     hatch="//" if side else "", edgecolor="white")  # fmt: skip
        if f"{stem}low" in frame:
            points = (here, at) if across else (at, here)
            lengths = _error_bars(here, frame[f"{stem}low"], frame[f"{stem}high"])
            ax.errorbar(*points, **{errors: lengths}, fmt="none", ecolor="black", capsize=3, lw=1)
        if f"{stem}paper" in frame:
            values = frame[f"{stem}paper"].astype(float)
            points = (values, at) if across else (at, values)
            ax.plot(*points, "D", color=ORANGE, mec="black", ms=7, ls="none", label=None if side else "paper")
        if numbers:
            ax.bar_label(drawn, fmt="%.1f", fontsize=8, label_type="center", color="white", weight="bold")
    names = {"labels": [str(name) for name in frame.index], "parse_math": False}  # names are no formulas
    if across:
        ax.set_yticks(place, **names)
        ax.invert_yaxis()
        ax.set_xlabel(label)
    else:
        ax.set_xticks(place, **names, **({"rotation": 60, "ha": "right"} if len(frame) > 8 else {}))
        ax.set_ylabel(label)
    return _legend_beside(ax)


def _error_bars(middle: pd.Series, low: pd.Series, high: pd.Series) -> np.ndarray:
    middle, low, high = (np.asarray(ends, dtype=float) for ends in (middle, low, high))
    return np.nan_to_num(np.abs(np.vstack([middle - low, high - middle])))


def _legend_beside(ax: Axes, **more: Any) -> Axes:
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), **more)
    return ax


def gradient_curves(curves: Mapping[str, np.ndarray], *, ax: Axes, title: str = "") -> Axes:
    """Draw gradients over epochs (Figure 4), mean and range over seeds; a curve is (seeds, epochs + 1)."""
    for loss, values in curves.items():
        epochs = np.arange(values.shape[1])
        ax.plot(epochs, values.mean(0), color=LOSS_COLOURS[loss], label=loss.upper(), lw=2,
                ls="-" if loss == "bce" else "--")  # fmt: skip
        ax.fill_between(epochs, values.min(0), values.max(0), color=LOSS_COLOURS[loss], alpha=0.2, lw=0)
    ax.axhline(0, color="black", lw=0.6)
    ax.set(xlabel="epoch", ylabel="mean gradient", title=title)
    ax.legend(frameon=False)
    return ax


def stacked_times(parts: Mapping[str, Mapping[str, float]], *, unit: float, ax: Axes) -> Axes:
    """Draw where the time of each system goes: name to step to seconds, in units of `unit` seconds."""
    longest = max(parts.values(), key=len)  # its steps, in order, hold nearly all
    steps = dict.fromkeys([*longest, *(step for row in parts.values() for step in row)])
    times = pd.DataFrame.from_dict(parts, orient="index", columns=list(steps)).fillna(0) / unit
    times.plot.barh(stacked=True, ax=ax, width=0.7, color=sns.color_palette("colorblind", len(steps)))
    ax.bar_label(ax.containers[-1], [f"{total:.1f}" for total in times.sum(1)], padding=4, fontsize=9)
    ax.margins(x=0.08)
    ax.invert_yaxis()
    ax.set_xlabel("time (ut: the CAM baseline takes 1)")
    return _legend_beside(ax, fontsize="small")


def sensitivity(curve: pd.DataFrame, *, ax: Axes, baseline: float) -> Axes:
    """Draw mIoU against lambda with its interval (Figure 6a); columns ``sce_weight, mean, low, high``."""
    place = np.arange(len(curve))
    errors = _error_bars(curve["mean"], curve["low"], curve["high"])
    ax.errorbar(place, curve["mean"], yerr=errors, color=BLUE, marker="o", capsize=3)
    ax.axhline(baseline, color=GREY, ls=":", label="BCE only")
    ax.set_xticks(place, [f"{value:g}" for value in curve["sce_weight"]])
    ax.set(xlabel="$\\lambda$", ylabel="mIoU (%)")
    ax.legend(frameon=False)
    return ax


def overlay(image: np.ndarray, map_: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 under a map (H, W) in [0, 1] as float RGB in [0, 1]."""
    heat = plt.get_cmap("inferno")(np.clip(map_, 0, 1))[..., :3]
    alpha = (0.15 + 0.7 * np.clip(map_, 0, 1))[..., None]
    return (1 - alpha) * (image / 255.0) + alpha * heat


def paint(mask: np.ndarray, space: LabelSpace, image: np.ndarray) -> np.ndarray:
    """Return a mask (H, W) as float RGB; background shows the image dimmed, ignored pixels are white."""
    if len(space) <= len(CLASS_COLOURS):
        colours = np.array([plt.matplotlib.colors.to_rgb(c) for c in CLASS_COLOURS])
    else:
        colours = space.palette[1 : len(space) + 1] / 255.0
    base = 0.35 * image / 255.0
    for value in np.unique(mask):
        if value == space.ignore:
            base[mask == value] = 1.0
        elif value > 0:
            base[mask == value] = colours[value - 1]
    return base


def gallery(rows: Sequence[Mapping[str, Any]], *, width: float = 1.9) -> Figure:
    """Draw a row per image, a column per key; values are RGB arrays, ``"caption"`` is written on the left."""
    keys = [key for key in rows[0] if key != "caption"]
    heights = [row[keys[0]].shape[0] / row[keys[0]].shape[1] for row in rows]
    size = (width * len(keys) + 0.6, width * sum(heights) + 0.4)
    fig, axes = plt.subplots(len(rows), len(keys), figsize=size, squeeze=False, height_ratios=heights)
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


def loss_curves(curves: Mapping[str, Sequence[float]], *, ax: Axes) -> Axes:
    """Draw the training loss per pass over the images, one line per network."""
    for number, (name, values) in enumerate(curves.items()):
        ax.plot(np.arange(1, len(values) + 1), values, label=name, lw=1.5, marker=".",
                color=CLASS_COLOURS[number % len(CLASS_COLOURS)], ls=STYLES[number % 4])  # fmt: skip
    ax.set(xlabel="pass over the pseudo masks", ylabel="training loss", yscale="log")
    return _legend_beside(ax, fontsize="x-small")


def margin_points(frame: pd.DataFrame, *, ax: Axes) -> Axes:
    """Draw ReCAM minus CAM with its interval, per network and kind of pseudo mask (Table 3)."""
    part = frame.dropna(subset=["difference"])
    y = np.arange(len(part))
    errors = _error_bars(*(part[f"difference{end}"] for end in ("", " low", " high")))
    ax.errorbar(part["difference"], y, xerr=errors, fmt="o", color=BLUE, capsize=3)
    ax.axvline(0, color=GREY, lw=0.8, ls=":")
    ax.set_yticks(y, [name if isinstance(name, str) else ", ".join(name) for name in part.index])
    ax.invert_yaxis()
    ax.set_xlabel("ReCAM minus CAM (points of mIoU)")
    return ax


def foreground_curve(result: Mapping[str, Sequence[float]], *, ax: Axes, theta: float) -> Axes:
    """Draw the foreground's IoU against the saliency threshold; what all foreground would give is dotted."""
    ax.plot(result["thresholds"], 100 * np.asarray(result["iou"]), color=BLUE, label="saliency")
    ax.axhline(100 * result["share"], color=GREY, ls=":", label="everything foreground")
    ax.axvline(theta, color=ORANGE, ls="--", lw=1, label="theta")
    ax.set(xlabel="threshold", ylabel="IoU of the foreground (%)", ylim=(0, None))
    ax.legend(frameon=False, fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    return ax


def to_svg(fig: Figure) -> str:
    """Return a figure as the text of an SVG file, its description in the file's title."""
    file = io.StringIO()
    text = {"Title": describe(fig), "Date": None, "Creator": None}
    with plt.rc_context({"svg.hashsalt": "recam"}):  # else names inside the file change with every run
        fig.savefig(file, format="svg", bbox_inches="tight", metadata=text)
    return re.sub(r'(?<=data:image/png;base64,)[^"]+', _lighter, _fitting(file.getvalue()))


def _lighter(found: re.Match) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("RGB")
    picture = picture.quantize(128, method=Image.Quantize.FASTOCTREE)
    picture.save(file := io.BytesIO(), "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _fitting(picture: str) -> str:
    size = re.compile(r'width="([\d.]+)pt" height="([\d.]+)pt"')
    width, height = map(float, size.search(picture).groups())
    scale = min(1.0, WIDEST / width)
    return size.sub(f'width="{scale * width:g}pt" height="{scale * height:g}pt"', picture, count=1)


def describe(fig: Figure) -> str:
    """Return in words what a figure shows: its panels, axes, series and categories."""
    axes = [ax for ax in fig.axes if ax.get_label() != "<colorbar>" and ax.get_visible()]
    if axes and all(ax.images and not len(ax.get_xticks()) for ax in axes):
        columns, rows = ([t for t in map(get, axes) if t] for get in (Axes.get_title, Axes.get_ylabel))
        text = f"Grid of pictures. Columns: {_plain(', '.join(columns))}"
        text += f". Rows: {_plain(', '.join(rows))}" * bool(rows)
    else:
        text = ". ".join(filter(None, map(_panel, axes)))
        text = f"Figure of {len(axes)} panels. {text}" if len(axes) > 1 else text or "Figure"
    if title := _plain(fig.get_suptitle()):
        text = f"{title}. {text}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2].rsplit(' ', 1)[0]} …"


def _panel(ax: Axes) -> str:
    across, up = _plain(ax.get_xlabel()), _plain(ax.get_ylabel())
    text = " against ".join(filter(None, (up, across)))
    text = ": ".join(filter(None, (_plain(ax.get_title()), text)))
    legend = ax.get_legend()
    series = [_plain(entry.get_text()) for entry in legend.get_texts()] if legend else []
    ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    labels = [_plain(tick.get_text()) for tick in ticks]  # those of numbers and powers say nothing
    categories = [label for label in labels if re.search(r"[^\W\d_]", re.sub("mathdefault|times", "", label))]
    named = (("series", series), ("for", categories))
    return "; ".join([text, *(f"{what} {', '.join(names)}" for what, names in named if names)]).strip("; ")


def _plain(text: str) -> str:
    return " ".join(text.replace("$", "").replace("\\", "").split())
