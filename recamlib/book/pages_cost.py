"""Parts of the book's page on cost, from what the benchmarks kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from recamlib.book.pages_trust import NOT_YET, kept, source_line
from recamlib.book.plots_found import RUNS
from recamlib.report.compare import html_table
from recamlib.report.figures import to_svg
from recamlib.report.plots import GREY, ORANGE, before_and_after, ratio
from recamlib.report.tables import escaped

NAMES = {
    "class_features": "class features", "extraction": "maps of photographs", "walk": "random walk",
    "advcam": "AdvCAM", "segment_training": "segmentation, training",
    "segment_prediction": "segmentation, prediction", "pipeline": "whole pipeline",
}  # fmt: skip
"""Hot paths by the name of their benchmark."""
NOT_ON_GPU = "Not run on a GPU: no figure of this page says anything about one."
Kept = Mapping[str, Any]


def cost_pages() -> dict[str, str]:
    """Return the measured parts of the page by their path inside the book."""
    benches = kept("benchmarks.json")
    paths_, pipeline = {n: benches[n] for n in NAMES if n in benches}, benches.get("pipeline")
    curves = growth_curves(paths_)
    pages = {
        "measured_paths.md": paths_table(paths_) if paths_ else NOT_YET,
        "measured_pipeline.md": pipeline_table(pipeline) if pipeline else NOT_YET,
        "measured_growth.md": growth_table(curves) if curves else NOT_YET,
    }
    if pipeline:
        fig, ax = plt.subplots(figsize=(8, 3.4))
        step_points(pipeline, ax=ax)
        pages["_static/pipeline_steps.svg"] = to_svg(fig)
        plt.close(fig)
        pages["measured_pipeline.md"] += _figure(
            "pipeline_steps",
            "Seconds of every step of the pipeline on a logarithmic axis, two points each: literal and ours",
            "Seconds of every step, literal and ours, on the same images.",
        )  # fmt: skip
    if curves:
        fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
        growth_lines(curves, axes=axes)
        pages["_static/growth.svg"] = to_svg(fig)
        plt.close(fig)
        pages["measured_growth.md"] += _figure(
            "growth", "Time and added memory of each hot path against the size of its input on logarithmic "
            "axes, beside a line in proportion to the size", "Time and memory against size, ours."
        )  # fmt: skip
    return pages


def _figure(name: str, alt: str, caption: str) -> str:
    return f"\n\n```{{figure}} _static/{name}.svg\n:alt: {alt}\n{caption}\n```\n"


def paths_table(benches: Mapping[str, Kept]) -> str:
    """Return every hot path: time and added memory of both forms, their ratio, and how far results differ."""
    rows = []
    for name, entry in benches.items():
        ours, literal = entry["forms"]["ours"], entry["forms"]["literal"]
        rows.append((
            NAMES[name], _seconds(literal["seconds"]), _seconds(ours["seconds"]),
            ratio(literal['seconds'] / ours['seconds']), f"{literal['peak_mb']:,.0f} MB",
            f"{ours['peak_mb']:,.0f} MB", f"{literal['difference']:.0e}",
        ))  # fmt: skip
    head = ("hot path", "literal", "ours", "ratio", "memory, literal", "memory, ours", "difference")
    work = "\n".join(
        f"- {NAMES[name]}: {escaped(e['note'])} ({escaped(e['device'])}, {escaped(e['date'])})"
        for name, e in benches.items()
    )
    on_gpu = any(not entry["device"].startswith("cpu") for entry in benches.values())
    versions = source_line(next(iter(benches.values())))
    text = f"{_table(head, rows)}\n\nWhat was computed:\n\n{work}{versions}"
    return text if on_gpu else f"{text}\n{NOT_ON_GPU}\n"


def pipeline_table(entry: Kept) -> str:
    """Return the steps of the whole pipeline in every form, and how far their results differ."""
    forms = entry["forms"]
    ours, literal = forms["ours"], forms["literal"]
    others = {n: f for n, f in forms.items() if n not in ("ours", "literal") and "steps" in f}
    rows = []
    for step, found in literal["steps"].items():
        mine = ours["steps"][step]
        star = f" (from {found['images']} of {found['of']} images)" if "of" in found else ""
        times = ratio(found['seconds'] / mine['seconds'])
        more = [_seconds(f["steps"][step]["seconds"]) if step in f["steps"] else "" for f in others.values()]
        rows.append((step, _seconds(found["seconds"]) + star, _seconds(mine["seconds"]), times, *more))
    whole = [f["seconds"] for f in (literal, ours, *others.values())]
    rows.append(("all", *map(_seconds, whole[:2]), ratio(whole[0] / whole[1]), *map(_seconds, whole[2:])))
    text = _table(("step", "literal", "ours", "ratio", *others), rows)
    text += f"\n\nMeasured on {escaped(entry['note'])}."
    measured = {n: s for n, s in literal["steps"].items() if "of" not in s}
    if len(measured) < len(literal["steps"]):
        both = [sum(f["steps"][n]["seconds"] for n in measured) for f in (literal, ours)]
        text += (
            f" Steps that name a part of the images were run on that part and extrapolated in proportion; of "
            f"what was run on all images alone the ratio is **{ratio(both[0] / both[1])}**."
        )
    gaps = [(name, f"{gap:.1e}") for name, gap in literal["differences"].items()]
    text += "\n\n" + _table(("result", "difference of the two forms"), gaps)
    alone = forms.get("ours, backbone alone")
    if alone:
        share = alone["seconds"] / ours["seconds"]
        text += f"\n\nThe backbone's own passes, and nothing else, take **{share:.0%}** of our time."
    return text + source_line(entry)


Curve = tuple[Sequence[float], Sequence[Kept]]  # sizes, and the form of each


def growth_curves(benches: Mapping[str, Kept]) -> dict[tuple[str, str], Curve]:
    """Return our forms by hot path and by what they were made larger by, of three sizes or more."""
    curves = {}
    for name, entry in benches.items():
        sized = [form for key, form in entry["forms"].items() if key.startswith("ours") and "sizes" in form]
        for what in dict.fromkeys(key for form in sized for key in form["sizes"]):
            points = sorted(((f["sizes"][what], f) for f in sized if what in f["sizes"]), key=lambda p: p[0])
            if len(points) >= 3:
                curves[NAMES[name], what] = tuple(zip(*points))
    return curves


def growth_table(curves: Mapping[tuple[str, str], Curve]) -> str:
    """Return how our time and memory grow from the smallest to the largest size."""
    rows = []
    for (name, what), (sizes, forms) in curves.items():
        power = np.polyfit(np.log(sizes), np.log([f["seconds"] for f in forms]), 1)[0]
        first, last = forms[0], forms[-1]
        rows.append((
            name, f"{sizes[0]:,} to {sizes[-1]:,} {what}", f"{power:.2f}",
            f"{_seconds(first['seconds'])} to {_seconds(last['seconds'])}",
            f"{first['peak_mb']:,.0f} to {last['peak_mb']:,.0f} MB",
        ))  # fmt: skip
    return _table(("hot path", "size", "power", "time", "added memory"), rows)


def growth_lines(curves: Mapping[tuple[str, str], Curve], *, axes: Sequence[Axes]) -> Sequence[Axes]:
    """Draw time (left) and added memory (right) against size, each as a multiple of that of the smallest."""
    for ax, key, title in zip(axes, ("seconds", "peak_mb"), ("time", "added memory")):
        largest = 1.0
        for number, ((name, what), (sizes, forms)) in enumerate(curves.items()):
            times, colour = np.array(sizes) / sizes[0], RUNS[number % len(RUNS)]
            values = [form[key] / forms[0][key] for form in forms]
            ax.plot(times, values, colour[1] + "-", color=colour[0], label=f"{name}, {what}")
            largest = max(largest, times[-1])
        ax.plot([1, largest], [1, largest], ":", color=GREY, label="in proportion")
        ax.set(xscale="log", yscale="log", xlabel="size, times the smallest", ylabel=f"{title}, times",
               title=title)  # fmt: skip
    axes[-1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize="small")
    return axes


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as an HTML table whose first column names them."""
    return html_table(pd.DataFrame(rows, columns=head).set_index(head[0]).rename_axis(None))


def step_points(entry: Kept, *, ax: Axes) -> Axes:
    """Draw seconds of every step in both forms; extrapolated ones are hollow."""
    steps = {name: entry["forms"][name]["steps"] for name in ("ours", "literal")}
    frame = pd.DataFrame({name: pd.DataFrame(found).T["seconds"] for name, found in steps.items()})
    frame = frame.astype(float).loc[list(steps["literal"])]
    before_and_after(frame, ax=ax)
    part = [place for place, found in enumerate(steps["literal"].values()) if "of" in found]
    if part:
        ax.scatter(frame["literal"].iloc[part], part, marker="s", color="white", edgecolor=ORANGE, zorder=3,
                   label="literal, extrapolated")  # fmt: skip
        ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    ax.set(title="The whole pipeline, step by step")
    return ax


def _seconds(value: float) -> str:
    """Return seconds for people.

    Examples
    --------
    >>> _seconds(0.0123), _seconds(4.2), _seconds(250), _seconds(31234)
    ('12.3 ms', '4.2 s', '250 s', '8.7 h')
    """
    if value < 1:
        return f"{1e3 * value:.3g} ms"
    if value >= 10_000:
        return f"{value / 3600:.1f} h"
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"
