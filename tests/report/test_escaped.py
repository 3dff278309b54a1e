"""Names from data, files and parameters reach the report as text: no tag, link or formula of theirs works."""

import pytest
from markdown_it import MarkdownIt

from recamlib.report.tables import escaped

HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a | b", "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)", "`code` and ``more``", "*bold* and _slanted_", "$\\frac$",
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
