"""What the book adds to an executed notebook: how to run it again, where its numbers come from, downloads."""

import html
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element  # a type only: parsing is defusedxml's

import defusedxml.ElementTree
import nbformat
import pandas as pd

from recamlib.book.parameters import DEFAULT, find_notebook, profile_parameters, read_parameters
from recamlib.errors import SettingsError
from recamlib.report.claims import read, result_path

SPAN = re.compile(r"(-?[\d.,]+) \[(-?[\d.,]+), (-?[\d.,]+)\]")  # a number with its interval, as shown


def dress(notebook: Path, static: Path) -> str:
    """Return an executed notebook with boxes and downloads, as JSON; files to download go to `static`.

    Added are the command that runs it again and its parameters (below the title), its provenance and result
    (at the end), a CSV file beside every table, and an SVG file with its description for every figure.

    Parameters
    ----------
    notebook
        The executed copy.
    static
        The book's ``_static``; files land in ``sections/NOTEBOOK/``.
    """
    content = nbformat.read(notebook, as_version=4)
    stem = notebook.stem
    folder = static / "sections" / stem
    folder.mkdir(parents=True, exist_ok=True)
    ran = content.metadata.get("papermill", {})
    known = read_parameters(notebook)
    given = dict(ran.get("parameters", {}))
    parameters = {name: item.default for name, item in known.items()} | given
    _replace_outputs(content, folder, f"../_static/sections/{stem}")
    content.metadata.pop("widgets", None)  # bars that nobody will move
    box = _run_again(stem, parameters, {name: item.comment for name, item in known.items()})
    content.cells.insert(1, nbformat.v4.new_markdown_cell(box))
    found = result_path(stem, parameters)
    if found.is_file():
        result = read(found)
        (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        (folder / "rows.csv").write_text(rows_csv(result), encoding="utf-8")
        text = _provenance(result, f"../_static/sections/{stem}", ran.get("duration"))
        content.cells.append(nbformat.v4.new_markdown_cell(text))
    return nbformat.writes(content)


def command(stem: str, parameters: dict[str, Any]) -> str:
    """Return the command that runs a notebook with these parameters: profile, then what differs from it."""
    profile = parameters.get("profile", DEFAULT)
    try:
        defaults = {name: item.default for name, item in read_parameters(find_notebook(stem)).items()}
        usual = defaults | profile_parameters(profile, stem)
    except SettingsError:  # the profile is gone, or the notebook has changed since: everything is said
        usual = {}
    words = ["recam", "run", stem[:2], "--profile", profile]
    changed = {name: value for name, value in parameters.items() if name not in ("profile", "settings")}
    settings = usual.get("settings", {})
    for stage, block in parameters.get("settings", {}).items():
        usual |= {f"{stage}.{field}": value for field, value in settings.get(stage, {}).items()}
        changed |= {f"{stage}.{field}": value for field, value in block.items()}
    for name, value in changed.items():
        if name not in usual or usual[name] != value:
            words += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def _run_again(stem: str, parameters: dict[str, Any], comments: dict[str, str]) -> str:
    """Return the box with the command and every parameter, as MyST Markdown."""
    rows = [[name, json.dumps(value), comments.get(name, "")] for name, value in parameters.items()]
    table = _table(["parameter", "value", "what it is"], rows)
    return (
        "::::{admonition} Run this page again\n:class: rerun\n\n"
        f"```bash\n{command(stem, parameters)}\n```\n\n"
        f":::{{dropdown}} All {len(rows)} parameters of this run\n{table}\n:::\n::::\n"
    )


def _provenance(result: dict[str, Any], folder: str, seconds: float | None) -> str:
    """Return the box that says where the numbers of a result come from, as MyST Markdown."""
    where, parameters = result["provenance"], result["parameters"]
    images = ", ".join(f"{count} {name}" for name, count in result["images"].items())
    seeds = parameters.get("seeds", [parameters.get("seed", 0)])
    rows = [
        ["commit", where["commit"] + (" (with changes since)" if where["commit"].endswith("+") else "")],
        ["date", where["date"]],
        ["device", where["device"]],
        ["versions", ", ".join(f"{name} {number}" for name, number in where["versions"].items())],
        ["data", f"{parameters['dataset']}: {images}"],
        ["seeds", ", ".join(map(str, seeds))],
        ["settings", "the parameters at the top of this page"],
    ]  # fmt: skip
    if seconds is not None:
        rows.append(["seconds", f"{seconds:.0f}, reading back the steps that had been run before"])
    links = " · ".join(
        f'<a href="{folder}/{name}" download>{what}</a>'
        for name, what in (("rows.csv", "every row as CSV"), ("result.json", "the whole result as JSON"))
    )
    return (
        ":::{admonition} Where these numbers come from\n:class: provenance\n"
        f'{_table([], rows)}\n<p class="download">Download {links}</p>\n:::\n'
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return an HTML table on one line, which Markdown leaves alone; the first column names its row."""
    top = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{html.escape(str(first))}</th>'
        + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in others) + "</tr>"
        for first, *others in rows
    )  # fmt: skip
    thead = f"<thead><tr>{top}</tr></thead>" if head else ""
    return wide(f'<table class="facts">{thead}<tbody>{body}</tbody></table>')


def wide(table: str) -> str:
    """Return a table in a box of its own that scrolls, by keyboard too, where the page is too narrow."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="Table">{table}</div>'


def _replace_outputs(content: nbformat.NotebookNode, folder: Path, address: str) -> None:
    """Write every figure and table to a file of its own; the page shows it with a link to that file."""
    figures = tables = 0
    for cell in content.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/svg+xml" in data:
                figures += 1
                name, picture = f"figure_{figures}.svg", data.pop("image/svg+xml")
                (folder / name).write_text(picture, encoding="utf-8")
                data["text/html"] = _figure(f"{address}/{name}", picture)
            elif 'class="dataframe"' in data.get("text/html", ""):
                tables += 1
                name, table = f"table_{tables}.csv", _only_table(data["text/html"])
                (folder / name).write_text(table_csv(table), encoding="utf-8")
                data["text/html"] = f"{wide(table)}{_link(f'{address}/{name}', 'Table as CSV')}"


def _figure(address: str, picture: str) -> str:
    """Return the HTML of a figure; what it shows is read from the title of its file."""
    title = re.search(r"<title>(.*?)</title>", picture, flags=re.DOTALL)
    alt = html.escape(html.unescape(title[1])) if title else ""
    return f'<figure class="plot"><img src="{address}" alt="{alt}">{_link(address, "Figure as SVG")}</figure>'


def _link(address: str, what: str) -> str:
    return f'<p class="download"><a href="{address}" download>{what}</a></p>'


def _only_table(text: str) -> str:
    """Return the table of what pandas shows, without its style, its two lines of headings made one."""
    table = re.search(r"<table.*?</table>", text, flags=re.DOTALL)[0].replace(' border="1"', "")
    name = re.search(r"</tr>\s*<tr>\s*<th>([^<]*)</th>(?:\s*<th></th>)*\s*</tr>\s*</thead>", table)
    if name:
        table = table.replace(name[0], "</tr></thead>").replace("<th></th>", f"<th>{name[1]}</th>", 1)
    return table


def table_csv(table: str) -> str:
    """Return an HTML table as CSV; a number shown with its interval becomes three columns.

    Examples
    --------
    >>> print(table_csv("<table><thead><tr><th>row</th><th>here</th></tr></thead>"
    ...                 "<tbody><tr><th>a</th><td>5.0 [4.1, 6.2]</td></tr></tbody></table>").strip())
    row,here,here low,here high
    a,5.0,4.1,6.2

    Headings in two lines are joined, and a heading over several rows is repeated in each of them:

    >>> head = "<tr><th></th><th>here</th></tr><tr><th>net</th><th></th></tr>"
    >>> body = "<tr><th rowspan='2'>a</th><td>1</td></tr><tr><td>2</td></tr>"
    >>> print(table_csv(f"<table><thead>{head}</thead><tbody>{body}</tbody></table>").strip())
    net,here
    a,1
    a,2
    """
    tree = defusedxml.ElementTree.fromstring(table)
    head = [" ".join(filter(None, parts)) for parts in zip(*_cells(tree.iter("thead")))]
    body = _cells(tree.iter("tbody"))
    columns: dict[str, list[str]] = {}
    for index, name in enumerate(head):
        cells = [row[index] for row in body]
        parts = [SPAN.fullmatch(cell) for cell in cells]
        columns[name] = [part[1] if part else cell for part, cell in zip(parts, cells)]
        if any(parts):
            for number, end in ((2, "low"), (3, "high")):
                columns[f"{name} {end}"] = [part[number] if part else "" for part in parts]
    return pd.DataFrame(columns).to_csv(index=False)


def _cells(parts: Iterable[Element]) -> list[list[str]]:
    """Return the text of a table's cells by row; a cell over several rows is repeated in each of them."""
    rows, open_cells = [], {}  # column to how many more rows, and the text
    for line in (line for part in parts for line in part.iter("tr")):
        row: list[str] = []
        cells = iter(line)
        while True:
            left, text = open_cells.pop(len(row), (0, ""))
            if not left:
                cell = next(cells, None)
                if cell is None:
                    break
                left, text = int(cell.get("rowspan", 1)), "".join(cell.itertext())
            if left > 1:
                open_cells[len(row)] = (left - 1, text)
            row.append(text)
        rows.append(row)
    return rows


def rows_csv(result: dict[str, Any]) -> str:
    """Return every row of a result as CSV, with all digits; lists longer than ten numbers are left out."""
    rows = {name: _flat(row) for name, row in result["rows"].items()}
    return pd.DataFrame(rows).T.to_csv(index_label="row")


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name} ")
        elif isinstance(value, list):
            ends = ("low", "high") if name.endswith("interval") else range(len(value))
            flat |= {f"{prefix}{name} {end}": item for end, item in zip(ends, value) if len(value) <= 10}
        else:
            flat[prefix + name] = value
    return flat
