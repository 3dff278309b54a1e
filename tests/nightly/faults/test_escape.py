"""Names from data, files and parameters reach the report as text: no tag, link or formula of theirs works."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

import recamlib as rc
from recamlib.book.scoreboard import scoreboard_page
from recamlib.report import plots, plots_segment
from recamlib.report.claims import table_row
from recamlib.report.tables import describe_data, discussion, escaped, shown

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a | b", "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)", "`code` and ``more``", "*bold* and _slanted_", "$\\frac$",
    "$x$ and $y$",
    "{raw}`<b>x</b>`", "line\nbreak", "\x1b[31mred", "a\u202etxt.exe", "&lt;b&gt;", "</td></table>",
    "```{eval-rst}",
    "\\| pipe", "~~gone~~", "%s {0} {x!r}", "'quoted' \"twice\"",
]  # fmt: skip


def visible(markdown: str) -> str:
    """Return the text that a Markdown renderer shows of a table; it must be text alone."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    inner = [t for token in tokens if token.type == "inline" for t in token.children]
    allowed = {"text", "text_special", "softbreak"}
    assert {t.type for t in inner} <= allowed, {t.type for t in inner} - allowed
    assert not [t for t in tokens if t.type in ("html_block", "fence", "code_block")]
    return " ".join(t.content for t in inner)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_shows_the_text_and_nothing_else(text):
    row = f"| a | b |\n|---|---|\n| {escaped(text)} | end |"
    seen = visible(row)
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    assert " ".join(seen.split()) == f"a b {plain} end"
    assert "$" not in escaped(text) and "{" not in escaped(text), "MyST would read a formula or a role"


@pytest.mark.parametrize("text", HOSTILE[::3])
def test_hostile_parameters_and_claims_are_text_in_notebook_and_scoreboard(tmp_path, monkeypatch, text):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    parameters = {"profile": "smoke", "dataset": text, "backbone": text, "seeds": [0]}
    content = {
        "rows": {text: table_row([40.0])},
        "claims": {text: rc.claims.sentence("holds", text, rule=text),
                   "prose.any_option_beats_cam": rc.claims.sentence("holds", text)},
    }  # fmt: skip
    path = rc.claims.record("02_table1_x", parameters=parameters, images={text: 3, "scored": 3}, **content)
    result = rc.claims.read(path)
    result["provenance"] |= {"device": text, "commit": text}
    block = discussion(result).data
    page = scoreboard_page([result])  # HTML, which Markdown leaves alone
    assert not BeautifulSoup(page, "html.parser").find(["script", "img", "a", "iframe", "b", "i"])
    for part in (block,):
        for token in MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(part):
            kinds = {t.type for t in token.children or ()}
            code = [t.content for t in token.children or () if t.type == "code_inline"]
            assert token.type not in ("html_block", "fence")
            assert not kinds & {"html_inline", "link_open", "image", "s_open"}, (kinds, part)
            assert all(re.fullmatch(r"[\w.+-]+", name) for name in code)  # ids of our own claims
        assert "<script" not in part and "$" not in part
    assert "<script" not in page
    assert describe_data(result)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.filterwarnings("ignore:Glyph")  # a control character has no picture
def test_hostile_names_are_text_in_tables_and_figures(text):
    table = shown(pd.DataFrame({"mIoU here": [1.0], "name": [text]}, index=[text]))
    page = table.to_html()
    assert "<script" not in page and "<img" not in page and "</td></table>" not in page.replace("</tr>", "")
    picture = np.zeros((4, 4, 3), np.uint8)
    fig = plots.gallery([{"caption": f"{text}\nIoU +1", "image": picture}])
    fig.canvas.draw()
    _, ax = plt.subplots()
    plots_segment.class_bars({"CAM": {text: 1.0}, "ReCAM": {text: 2.0}}, ax=ax).figure.canvas.draw()
    _, ax = plt.subplots()
    frame = pd.DataFrame([{"group": text, "loss": "bce", "acc": 1.0, "low": 0.5, "high": 1.5}])
    plots.loss_bars(frame, y="acc", ax=ax).figure.canvas.draw()
    plt.close("all")
