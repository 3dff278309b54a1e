"""The scoreboard as a page: every claim of the paper, how much is covered, filters and sorting in it."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from recamlib.report.claims import RULE
from recamlib.report.tables import MARKS, scoreboard

COLUMNS = {"claim": "claim", "paper": "paper", "here": "here", "data": "measured on", "verdict": "verdict"}


def scoreboard_page(results: Iterable[dict[str, Any]]) -> str:
    """Return the scoreboard as lines of HTML, which Markdown leaves alone: bar, rule, filters, one table."""
    frame = scoreboard(results)
    frame["part"] = frame["claim"].map(part_of)
    frame["kind"] = [_kind(row) for _, row in frame.iterrows()]
    counts = frame["verdict"].value_counts()
    verdicts = {name: int(counts.get(name, 0)) for name in MARKS}
    rows = "".join(_row(row) for _, row in frame.iterrows())
    table = f'<table class="claims">{_head()}<tbody>{rows}</tbody></table>'
    board = f'<div id="scoreboard-table">{_filters(frame)}{table}</div>'
    return f"{_bar(verdicts, len(frame))}\n\n{RULE}\n\n{board}\n"


def part_of(claim: str) -> str:
    """Return the part of the paper that a claim stands in.

    Examples
    --------
    >>> part_of("table1.bce_only.voc12"), part_of("prose.lambda_insensitive")
    ('Table 1', 'in words')
    """
    part = claim.split(".")[0]
    return part.replace("table", "Table ").replace("prose", "in words")


def _kind(row: pd.Series) -> str:
    """Return on what kind of data a claim was measured."""
    if row["verdict"] in ("not run", "entered"):
        return str(row["verdict"])
    return str(row["data"]).split(",")[0]


def _bar(verdicts: Mapping[str, int], total: int) -> str:
    """Return the bar of how much of the paper is covered, and what its colours mean."""
    answered = total - verdicts["not run"]
    words = ", ".join(f"{count} {name}" for name, count in verdicts.items())
    parts = "".join(
        f'<span class="{_css(name)}" style="flex-grow: {count}"></span>' for name, count in verdicts.items()
    )
    keys = "".join(
        f'<li><span class="key {_css(name)}"></span>{count} {name}</li>' for name, count in verdicts.items()
    )
    return (
        f"<p><strong>{answered} of {total}</strong> claims of the paper have a number here.</p>"
        f'<div class="covered" role="img" aria-label="Of {total} claims: {words}">{parts}</div>'
        f'<ul class="covered-keys">{keys}</ul>'
    )


def _filters(frame: pd.DataFrame) -> str:
    """Return the choices above the table; a script shows them, since they do nothing without it."""
    choices = "".join(
        f'<label>{label} <select name="{column}"><option value="">all</option>'
        + "".join(f"<option>{html.escape(value)}</option>" for value in dict.fromkeys(frame[column]))
        + "</select></label>"
        for column, label in (("part", "part"), ("verdict", "verdict"), ("kind", "data"))
    )  # fmt: skip
    return (
        f'<form class="filters" hidden>{choices}'
        '<label>name <input type="search" name="text" autocomplete="off"></label>'
        '<button type="reset">show all</button>'
        f'<output aria-live="polite">{len(frame)} of {len(frame)} claims</output></form>'
    )


def _head() -> str:
    cells = "".join(f'<th scope="col" data-column="{name}">{what}</th>' for name, what in COLUMNS.items())
    return f"<thead><tr>{cells}</tr></thead>"


def _row(row: pd.Series) -> str:
    """Return one claim; what is sorted and filtered by stands in its attributes."""
    digits = "g" if row["part"] == "in words" else ".1f"
    paper = f"{row['paper']:{digits}}" if pd.notna(row["paper"]) else row["where"]
    here = "" if row["here"] is None else str(row["here"])
    cells = {
        "paper": (paper, row["paper"] if pd.notna(row["paper"]) else ""),
        "here": (here, here), "data": (row["data"], row["data"]),
        "verdict": (MARKS[row["verdict"]], list(MARKS).index(row["verdict"])),
    }  # fmt: skip
    body = "".join(
        f'<td data-name="{COLUMNS[name]}" data-value="{html.escape(str(key))}">{html.escape(str(text))}</td>'
        for name, (text, key) in cells.items()
    )
    name, part = html.escape(row["claim"].split(".", 1)[1]), row["part"]
    kinds = " ".join(f'data-{key}="{html.escape(row[key])}"' for key in ("part", "verdict", "kind"))
    broken = name.replace("_", "_<wbr>").replace(".", ".<wbr>")  # a narrow column splits it there
    head = f'<th scope="row" data-value="{part} {name}">{part} <code>{broken}</code></th>'
    return f"<tr {kinds}>{head}{body}</tr>"


def _css(verdict: str) -> str:
    return "v-" + verdict.replace(" ", "-")
