"""Pages of the book that are made from results when it is built: no number in them is typed."""

import json
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from recamlib import paths
from recamlib.book.api_pages import api_pages
from recamlib.book.explorer import explorer_page, latest
from recamlib.book.pages_cost import cost_pages
from recamlib.book.pages_found import found_pages
from recamlib.book.pages_trust import trust_pages
from recamlib.book.plots_method import method_picture
from recamlib.book.scoreboard import scoreboard_page
from recamlib.report import plots_refine
from recamlib.report.compare import RULE, compare_page
from recamlib.report.figures import to_svg
from recamlib.report.kept import load_results
from recamlib.report.plots import set_style
from recamlib.report.tables import escaped

FALLBACK = """\
```{figure} _static/hero.png
:alt: Rows of scenes; columns image, CAM, ReCAM, the mask of each, and the true mask
Embedded scenes, a small network from scratch, one seed: the two images whose IoU gains most by reactivation
and the two that lose most, chosen by that rule. The scenes are synthetic.
```
"""


def book_pages() -> dict[str, str]:
    """Return the text of all such pages and pictures, by their path inside the book."""
    set_style()
    results = load_results()
    found = latest(results)
    return {
        **_opening(found),
        **api_pages(),
        "scoreboard.md": scoreboard_page(results),
        "explorer_data.md": explorer_page(found),
        "compared.md": compare_page(results),
        "compare_rule.md": RULE,
        "measured_walk.md": walk_page(),
        **found_pages(),
        **trust_pages(),
        **cost_pages(),
        "_static/walk_sparsity.svg": _svg(plots_refine.sparsity),
        "_static/walk_cost.svg": _svg(plots_refine.cost_line),
    }


def _opening(found: dict[str, Any] | None) -> dict[str, str]:
    """Return the picture that the book opens with, and its file if it is drawn from what the explorer has."""
    if found is None or found.get("profile") == "smoke":  # which shows that all runs, and explains nothing
        return {"picture.md": FALLBACK}
    fig, caption = method_picture(found)
    text = to_svg(fig)
    plt.close(fig)
    alt = "Above an image of two animals, the activation map of each class and the pseudo mask; below the " \
        "true mask, the maps after reactivation and their mask"  # fmt: skip
    return {
        "_static/method.svg": text,
        "picture.md": f"```{{figure}} _static/method.svg\n:alt: {alt}\n{caption}\n```\n",
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
    text = to_svg(fig)
    plt.close(fig)
    return text
