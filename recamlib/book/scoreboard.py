"""The paper's tables cell by cell: what it prints, what was measured here, and the verdict in a word."""

from collections.abc import Iterable
from typing import Any

from jinja2 import Environment

from recamlib.paths import ROOT
from recamlib.report.cells import BLOCKS, TABLES, place, titled, words
from recamlib.report.claims import MARKS
from recamlib.report.tables import scoreboard

TEMPLATE = ROOT / "book" / "_templates" / "scoreboard.html"


def scoreboard_page(results: Iterable[dict[str, Any]]) -> str:
    """Return the scoreboard as headings and lines of HTML, which Markdown leaves alone."""
    frame = scoreboard(results)
    runs = {data: chr(97 + number) for number, data in enumerate(filter(None, frame["data"].unique()))}
    claims = frame.astype(object).where(frame.notna(), None).to_dict("records")
    tables: dict[str, dict[str, Any]] = {title: {} for title in TABLES.values()}
    for claim in claims:
        claim |= {"css": "v-" + claim["verdict"].replace(" ", "-"), "mark": MARKS[claim["verdict"]]}
        claim["letter"] = runs.get(claim["data"], "")
        if claim["claim"].startswith("prose."):
            claim["here"] = claim["here"] and titled(claim["here"])
            continue
        table, block, row, column = place(claim["claim"])
        claim |= {"block": BLOCKS[block], "row": words(row), "column": words(column)}
        laid = tables[TABLES[table]].setdefault(claim["block"], {"columns": {}, "rows": {}})
        laid["columns"][claim["column"]] = True  # in the order they come
        laid["rows"].setdefault(claim["row"], {})[claim["column"]] = claim
    counts = {name: int((frame["verdict"] == name).sum()) for name in MARKS}
    template = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE.read_text("utf-8"))
    return template.render(
        claims=claims, printed=[c for c in claims if "row" in c], tables=tables, runs=runs,
        counts=", ".join(f"{count} {name}" for name, count in counts.items() if count),
        measured=len(claims) - counts["not run"],
    )  # fmt: skip
