"""Pages of the book that are made from results when it is built: no number in them is typed."""

import io
import json
from collections.abc import Callable

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from recamlib import paths, plots_refine
from recamlib.pages_trust import trust_pages
from recamlib.plots import set_style
from recamlib.report import escaped, load_results, scoreboard_page


def book_pages() -> dict[str, str]:
    """Return the text of all such pages and pictures, by their path inside the book."""
    set_style()
    return {
        "scoreboard.md": scoreboard_page(load_results()),
        "measured_walk.md": walk_page(),
        **trust_pages(),
        "_static/walk_sparsity.svg": _svg(plots_refine.sparsity),
        "_static/walk_cost.svg": _svg(plots_refine.cost_line),
    }


def walk_page() -> str:
    """Return what the benchmarks that are kept with the book say about the random walk."""
    folder = paths.book_dir() / "measured"
    rows = []
    large, benchmarks = folder / plots_refine.DENSE, folder / "benchmarks.json"
    if benchmarks.is_file() and "walk" in (kept := json.loads(benchmarks.read_text())):
        walk = kept["walk"]
        forms = walk["forms"]
        rows.append((walk["note"].split(";")[0], forms["ours"]["seconds"], forms["literal"]["seconds"],
                     forms["literal"]["difference"], walk["device"], walk["date"]))  # fmt: skip
    if large.is_file():
        run = json.loads(large.read_text())
        height, width = run["grid"]
        rows.append((f"{height} x {width} cells, {run['classes']} classes, {run['steps']} steps",
                     run["seconds"]["ours"], run["seconds"]["literal"], run["difference"], run["device"],
                     run["date"]))  # fmt: skip
    if not rows:
        return "Not measured yet: `make bench`, then `recam keep bench`."
    lines = ["| walk | sparse | dense | ratio | largest difference, of the maximum | device, date |"]
    lines += ["|---|---|---|---|---|---|"]
    lines += [
        f"| {escaped(what)} | {ours:.4g} s | {dense:.4g} s | **{dense / ours:.0f}** | {error:.0e} | "
        f"{escaped(device)}, {escaped(day)} |"
        for what, ours, dense, error, device, day in rows
    ]
    lines += ["", "Both forms of a row ran in one go on one machine; the ratio is what can be compared."]
    return "\n".join(lines)


def _svg(draw: Callable[[Axes], Axes]) -> str:
    """Return a figure as the text of an SVG file."""
    fig, ax = plt.subplots(figsize=(7.5, 3.6))
    draw(ax)
    file = io.StringIO()
    fig.savefig(file, format="svg", metadata={"Date": None})
    plt.close(fig)
    return file.getvalue()
