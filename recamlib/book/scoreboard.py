"""The paper's tables cell by cell: what it prints, what was measured here, and the verdict in a word."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from recamlib.report.cells import BLOCKS, TABLES, laid_out, place, titled, words
from recamlib.report.claims import MARKS, RULE
from recamlib.report.tables import scoreboard


def scoreboard_page(results: Iterable[dict[str, Any]]) -> str:
    """Return the scoreboard as lines of HTML, which Markdown leaves alone."""
    frame = scoreboard(results)
    runs = {data: chr(97 + number) for number, data in enumerate(filter(None, frame["data"].unique()))}
    printed = frame[frame["where"].str.startswith("Table")]
    tables = laid_out(((cell["claim"], _cell(cell, runs)) for _, cell in printed.iterrows()), "<td></td>")
    counts = {name: int((frame["verdict"] == name).sum()) for name in MARKS}
    named = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    parts = [
        f"<p><strong>{len(frame) - counts['not run']} of {len(frame)}</strong> claims of the paper were "
        f"measured: {named}. In each cell the paper's number stands first, then the one measured here.</p>",
        RULE,
    ]
    for table, title in TABLES.items():
        blocks = (_table(cells, BLOCKS[block]) for (name, block), cells in tables.items() if name == table)
        parts += [f"### {title}", *blocks]
    prose = frame[frame["claim"].str.startswith("prose.")]
    lines = "".join(_sentence(row, runs) for _, row in prose.iterrows())
    parts += ["### Claims made in sentences", f'<ul class="claims">{lines}</ul>']
    parts += ["### As one list, to sort", _list(printed, runs)]
    if runs:
        legend = "".join(f"<li>{html.escape(data)}</li>" for data in runs)
        parts += ["### The runs behind the letters", f'<ol class="runs" type="a">{legend}</ol>']
    return "\n\n".join(parts) + "\n"


def _table(cells: pd.DataFrame, title: str) -> str:
    head = "".join(f'<th scope="col">{html.escape(words(name))}</th>' for name in cells)
    body = "".join(
        f'<tr><th scope="row">{html.escape(words(name))}</th>{"".join(row)}</tr>'
        for name, *row in cells.itertuples()
    )
    top = f"<caption>{title}</caption>" * bool(title) + f"<thead><tr><td></td>{head}</tr></thead>"
    return wide(f'<table class="paper">{top}<tbody>{body}</tbody></table>')


def wide(table: str) -> str:
    """Return a table in a box that scrolls, by keyboard too, where the page is too narrow."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="Table">{table}</div>'


def _list(cells: pd.DataFrame, runs: Mapping[str, str]) -> str:
    # a script sorts the lines by a click on a column's head
    heads = ("table", "row", "column", "paper", "here", "verdict")
    head = "".join(f'<th scope="col"><button type="button">{name}</button></th>' for name in heads)
    body = ""
    for _, cell in cells.iterrows():
        _, block, row, column = place(cell["claim"])
        here = "" if pd.isna(cell["here"]) else f"{cell['here']:.1f}{_letter(cell, runs)}"
        texts = (f"{cell['where']}, {BLOCKS[block]}".rstrip(", "), words(row), words(column))
        body += (
            f'<tr class="{_css(cell["verdict"])}">' + "".join(f"<td>{html.escape(t)}</td>" for t in texts)
            + f"<td>{cell['paper']:.1f}</td><td>{here}</td><td>{MARKS[cell['verdict']]}</td></tr>"
        )  # fmt: skip
    table = wide(f'<table class="paper sorted"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')
    return f"<details><summary>All {len(cells)} printed numbers</summary>{table}</details>"


def _cell(cell: pd.Series, runs: Mapping[str, str]) -> str:
    here = "" if pd.isna(cell["here"]) else f" <strong>{cell['here']:.1f}</strong>{_letter(cell, runs)}"
    word = "" if cell["verdict"] == "reference" else f" <small>{MARKS[cell['verdict']]}</small>"
    return f'<td class="{_css(cell["verdict"])}">{cell["paper"]:.1f}{here}{word}</td>'


def _sentence(row: pd.Series, runs: Mapping[str, str]) -> str:
    paper = f" ({row['paper']:g})" if pd.notna(row["paper"]) else ""
    found = "" if pd.isna(row["here"]) else f": {html.escape(titled(str(row['here'])))}{_letter(row, runs)}"
    word = f"<small>{MARKS[row['verdict']]}</small>"
    return f'<li class="{_css(row["verdict"])}">{html.escape(row["where"])}{paper}. {word}{found}</li>'


def _letter(row: pd.Series, runs: Mapping[str, str]) -> str:
    return f"<sup>{runs[row['data']]}</sup>" if row["data"] in runs else ""


def _css(verdict: str) -> str:
    return "v-" + verdict.replace(" ", "-")
