"""The whole report as one PDF: the pages of the built book put into one document, printed by Chromium."""

import base64
import re
from pathlib import Path
from urllib.parse import unquote, urldefrag

from bs4 import BeautifulSoup, Tag

from recamlib.book.build import toc_files
from recamlib.book.chromium import browser
from recamlib.errors import RecamError

PAPER = {"paperWidth": 8.27, "paperHeight": 11.69, "marginTop": 0.6, "marginBottom": 0.6,
         "marginLeft": 0.6, "marginRight": 0.6}  # fmt: skip
FOOTER = (
    '<div style="font-size: 8px; width: 100%; text-align: center">'
    '<span class="pageNumber"></span> / <span class="totalPages"></span></div>'
)


def print_book(book: Path, toc: Path, target: Path) -> Path:
    """Print a built book and return the path of the PDF.

    Parameters
    ----------
    book
        Folder of the built pages.
    toc
        Table of contents, which gives the order.
    target
        The file to write.

    Raises
    ------
    BrowserError
        If there is no Chromium.
    RecamError
        If a page of the contents has not been built.
    """
    together = book / "whole.html"
    together.write_text(one_document(book, toc_files(toc)), encoding="utf-8")
    try:
        with browser() as tab:
            tab.open(together.as_uri())
            tab.evaluate(
                "Promise.all([...document.images].map(i => i.decode().catch(() => 0))).then(() => 1)"
            )
            printed = tab.call(
                "Page.printToPDF", printBackground=True, displayHeaderFooter=True, headerTemplate="<span/>",
                footerTemplate=FOOTER, generateDocumentOutline=True, generateTaggedPDF=True, **PAPER,
            )  # fmt: skip
    finally:
        together.unlink()
    target.write_bytes(base64.b64decode(printed["data"]))
    return target


def one_document(book: Path, names: list[str]) -> str:
    """Return the articles of the pages in one document with the head of the first: styles and mathematics.

    Addresses are made relative to the book's folder, and every ``id`` gets its page's name in front, so that
    links between pages become links inside the document.
    """
    whole = None
    for name in names:
        path = book / f"{name}.html"
        if not path.is_file():
            raise RecamError(f"{name} is not in the built book: recam book")
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        article = page.find("article")
        _move(article, name, names)
        if whole is None:
            whole = page
            place = page.find("body")
            place.clear()
            for script in whole.find_all("script"):
                if "mathjax" not in (script.get("src") or "") and "MathJax" not in script.text:
                    script.decompose()
            style = whole.new_tag("style")
            style.string = PRINTED
            whole.head.append(style)
        place.append(article)
    return str(whole)


PRINTED = """
article.bd-article { break-before: page; padding: 0; }
article.bd-article:first-child { break-before: auto; }
img, figure, table.facts { break-inside: avoid; max-width: 100%; }
pre { white-space: pre-wrap !important; }
.wide, .pst-scrollable-table-container { overflow: visible; }
.headerlink, .filters, .download, #explorer, .copybtn { display: none !important; }
table { font-size: 0.75rem; }
"""


def _move(article: Tag, name: str, names: list[str]) -> None:
    """Rewrite the ids and addresses of one page's article."""
    folder = Path(name).parent
    for element in article.find_all(id=True):
        element["id"] = f"{name}--{element['id']}"
    article["id"] = f"{name}--"
    for details in article.find_all("details"):
        details["open"] = ""
    for script in article.find_all("script"):
        script.decompose()
    for element in article.find_all(href=True):
        element["href"] = _inside(element["href"], folder, name, names)
    for element in article.find_all(src=True):
        if not re.match(r"[a-z]+:", element["src"]):
            element["src"] = _normal(folder / element["src"])


def _inside(address: str, folder: Path, name: str, names: list[str]) -> str:
    """Return a link of a page as a link of the whole document."""
    if re.match(r"[a-z]+:", address):
        return address
    path, anchor = urldefrag(address)
    target = _normal(folder / unquote(path)).removesuffix(".html") if path else name
    return f"#{target}--{anchor}" if target in names else _normal(folder / path)


def _normal(path: Path) -> str:
    """Return a relative path without ``..``."""
    parts: list[str] = []
    for part in path.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)
