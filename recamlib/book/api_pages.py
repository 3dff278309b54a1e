"""Pages of the book that say what every module, class and function is for: from the docstrings."""

import ast

import recamlib
from recamlib.paths import ROOT

METHOD = (
    "advcam", "boundary", "cams", "climbing", "counts", "crf", "engine", "extraction", "inference", "losses",
    "metrics", "pairs", "processes", "saliency", "segloss", "segmentation", "sweep", "together", "walk",
)  # fmt: skip
TITLES = {
    "method": "Library: the method", "data": "Library: data", "models": "Library: networks",
    "stages": "Library: stages", "report": "Library: report",
}  # fmt: skip
OPTIONS = "\n".join(
    f"   :{option}"
    for option in (
        "members:",
        "ignore-module-all:",
        "exclude-members: model_config",
        "member-order: bysource",
    )
)


def modules() -> dict[str, list[str]]:
    """Return the modules of the library by page: its rooms, the method, and what notebooks use beside them.

    What is behind the command line alone has no page.
    """
    found: dict[str, list[str]] = {name: [] for name in TITLES}
    for path in sorted((ROOT / "recamlib").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts[1:]
        if parts[-1].startswith("_") and parts[-1] != "__init__":
            continue
        room = parts[0] if parts[0] in TITLES else "method" if parts[0] in METHOD else "report"
        if room == "report" and parts[0] not in (*recamlib.__all__, "errors"):
            continue
        name = ".".join(part for part in ("recamlib", *parts) if part != "__init__")
        if ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))):
            found[room].append(name)
    return found


def api_pages() -> dict[str, str]:
    """Return the text of these pages by their path inside the book."""
    pages = {}
    for room, names in modules().items():
        parts = [f"# {TITLES[room]}\n"]
        for name in names:
            heading = f"## {name.removeprefix('recamlib.')}\n"
            parts += [heading, f"```{{eval-rst}}\n.. automodule:: {name}\n{OPTIONS}\n```\n"]
        pages[f"api/{room}.md"] = "\n".join(parts)
    return pages
