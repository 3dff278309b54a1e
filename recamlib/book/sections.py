"""What the book adds to an executed notebook: how to run it again, where its numbers come from, downloads."""

import html
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from recamlib.book.parameters import DEFAULT, all_parameters, read_parameters
from recamlib.errors import SettingsError
from recamlib.report.results import read, result_path


def dress(notebook: Path, static: Path) -> str:
    """Return an executed notebook as JSON: its command and parameters on top, its provenance at the end.

    Every figure becomes an SVG file with its description; files land in ``sections/NOTEBOOK/`` of `static`.
    """
    content = nbformat.read(notebook, as_version=4)
    folder, address = static / "sections" / notebook.stem, f"../_static/sections/{notebook.stem}"
    folder.mkdir(parents=True, exist_ok=True)
    ran, known = content.metadata.get("papermill", {}), read_parameters(notebook)
    parameters = {name: item.default for name, item in known.items()} | dict(ran.get("parameters", {}))
    _replace_outputs(content, folder, address)
    content.metadata.pop("widgets", None)  # bars that nobody will move
    box = _run_again(notebook.stem, parameters, {name: item.comment for name, item in known.items()})
    content.cells.insert(1, nbformat.v4.new_markdown_cell(box))
    path = result_path(notebook.stem, parameters)
    if path.is_file():
        result = read(path)
        (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        rows = pd.json_normalize(list(result["rows"].values()), sep=" ").set_index(pd.Index(result["rows"]))
        rows.to_csv(folder / "rows.csv", index_label="row")
        text = _provenance(result, address, ran.get("duration"))
        content.cells.append(nbformat.v4.new_markdown_cell(text))
    return nbformat.writes(content)


def command(stem: str, parameters: dict[str, Any]) -> str:
    """Return the command that runs a notebook with these parameters: profile, then what differs from it."""
    profile = parameters.get("profile", DEFAULT)
    try:
        usual = _assignments(all_parameters(profile, stem))
    except SettingsError:  # the profile is gone, or the notebook has changed since: everything is listed
        usual = {}
    words = ["recam", "run", stem[:2], "--profile", profile]
    for name, value in _assignments(parameters).items():
        if name != "profile" and (name not in usual or usual[name] != value):
            words += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def _assignments(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters with the settings of stages as ``Stage.field``."""
    flat = {name: value for name, value in parameters.items() if name != "settings"}
    for stage, block in parameters.get("settings", {}).items():
        flat |= {f"{stage}.{field}": value for field, value in block.items()}
    return flat


def _run_again(stem: str, parameters: dict[str, Any], comments: dict[str, str]) -> str:
    """Return the box with the command and every parameter, as MyST Markdown."""
    rows = [[name, json.dumps(value), comments.get(name, "")] for name, value in parameters.items()]
    table = _facts(rows, head=["parameter", "value", "what it is"])
    return (
        "::::{admonition} Run this page again\n:class: rerun\n\n"
        f"```bash\n{command(stem, parameters)}\n```\n\n"
        f":::{{dropdown}} All {len(rows)} parameters of this run\n{table}\n:::\n::::\n"
    )


def _provenance(result: dict[str, Any], folder: str, seconds: float | None) -> str:
    """Return the box that says where the numbers of a result come from, as MyST Markdown."""
    where, parameters = result["provenance"], result["parameters"]
    images = ", ".join(f"{count} {name}" for name, count in result["images"].items())
    rows = [
        ["commit", where["commit"] + (" (with changes since)" if where["commit"].endswith("+") else "")],
        ["date", where["date"]], ["device", where["device"]],
        ["versions", ", ".join(f"{name} {number}" for name, number in where["versions"].items())],
        ["data", f"{parameters['dataset']}: {images}"],
        ["seeds", ", ".join(map(str, parameters.get("seeds", [parameters.get("seed", 0)])))],
    ]  # fmt: skip
    if seconds is not None:
        rows.append(["seconds", f"{seconds:.0f}, reading back the steps that had been run before"])
    return (
        ":::{admonition} Where these numbers come from\n:class: provenance\n"
        f'{_facts(rows)}\n<p class="download">Download '
        f'<a href="{folder}/rows.csv" download>every row as CSV</a> · '
        f'<a href="{folder}/result.json" download>the whole result as JSON</a></p>\n:::\n'
    )


def _facts(rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> str:
    """Return an HTML table on one line, which Markdown leaves alone; the first column names its row."""
    top = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(str(first))}</th>'
        + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in others) + "</tr>"
        for first, *others in rows
    )  # fmt: skip
    return wide(f'<table class="facts"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>')


def wide(table: str) -> str:
    """Return a table in a box of its own that scrolls, by keyboard too, where the page is too narrow."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="Table">{table}</div>'


def _replace_outputs(content: nbformat.NotebookNode, folder: Path, address: str) -> None:
    """Write every figure to a file of its own, shown with a link to it; put every table into a box."""
    figures = 0
    for cell in content.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/svg+xml" in data:
                figures += 1
                name, picture = f"figure_{figures}.svg", data.pop("image/svg+xml")
                (folder / name).write_text(picture, encoding="utf-8")
                data["text/html"] = _figure(f"{address}/{name}", picture)
            elif 'class="dataframe"' in data.get("text/html", ""):
                table = re.search(r"<table.*?</table>", data["text/html"], flags=re.DOTALL)[0]
                data["text/html"] = wide(table.replace(' border="1"', ""))


def _figure(address: str, picture: str) -> str:
    """Return the HTML of a figure; what it shows is read from the title of its file."""
    title = re.search(r"<title>(.*?)</title>", picture, flags=re.DOTALL)
    alt = html.escape(html.unescape(title[1])) if title else ""
    link = f'<p class="download"><a href="{address}" download>Figure as SVG</a></p>'
    return f'<figure class="plot"><img src="{address}" alt="{alt}">{link}</figure>'
