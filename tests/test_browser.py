"""Every page of the book in Chromium, wide and narrow: what a reader would stumble over fails here."""

import shutil
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from recamlib.book import build_book
from recamlib.chromium import Tab, browser, find_chromium
from recamlib.pages import book_pages
from recamlib.paths import book_dir
from recamlib.profiles import list_notebooks

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium (Debian: apt install chromium)")

CHECKS = (Path(__file__).parent / "browser_checks.js").read_text(encoding="utf-8")
WIDE, NARROW = 1280, 390
NOT_PAGES = ("_static", "_sources", "_downloads", "_images")


@pytest.fixture(scope="session")
def book(executed, tmp_path_factory) -> Path:
    """The book of the smoke runs, built once from a copy of its sources."""
    source = tmp_path_factory.mktemp("book") / "book"
    shutil.copytree(book_dir(), source, ignore=shutil.ignore_patterns("_build", "executed"))
    folder = {executed(notebook).parent for notebook in list_notebooks()}.pop()
    return build_book(source=source, executed=folder, pages=book_pages()).parent


@pytest.fixture(scope="module")
def tab():
    with browser() as tab:
        yield tab


def pages(book: Path) -> list[Path]:
    """Return every page of a built book."""
    return [p for p in sorted(book.rglob("*.html")) if p.relative_to(book).parts[0] not in NOT_PAGES]


def problems(tab: Tab, page: Path, *, width: int, dark: bool = False) -> list[str]:
    """Open a page and return what is wrong with it."""
    tab.open(page.as_uri(), width=width, dark=dark)
    found = tab.evaluate(f"({CHECKS})({width})")
    return found + spoken(tab)


def spoken(tab: Tab) -> list[str]:
    """Return what a page has said on the console, asked of others, or not found."""
    found = []
    for event in tab.events:
        kind, what = event["method"], event["params"]
        if kind == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            found.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
        elif kind == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            found.append(f"console: {[part.get('value') for part in what['args']]}")
        elif kind == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            found.append(f"log: {what['entry']['text']} {what['entry'].get('url', '')}")
        elif kind == "Network.requestWillBeSent":
            if urlsplit(what["request"]["url"]).scheme not in ("file", "data", "blob"):
                found.append(f"leaves the page: {what['request']['url']}")
        elif kind == "Network.loadingFailed" and not what.get("canceled"):
            found.append(f"not loaded: {what['type']} {what['errorText']}")
    return found


@pytest.mark.parametrize(("width", "dark"), [(WIDE, False), (NARROW, False), (WIDE, True)])
def test_no_page_has_anything_to_stumble_over(tab, book, width, dark):
    found = {
        page.relative_to(book).as_posix(): wrong
        for page in pages(book)
        if (wrong := problems(tab, page, width=width, dark=dark))
    }
    text = "\n".join(f"{page}: {line}" for page, lines in found.items() for line in lines)
    assert not found, f"at {width} pixels{', dark' if dark else ''}:\n{text}"


def test_every_link_leads_somewhere(tab, book):
    names, links = {}, {}
    for page in pages(book):
        tab.open(page.as_uri())
        names[page] = set(tab.evaluate("[...document.querySelectorAll('[id], a[name]')].map(e => e.id || e.name)"))
        links[page] = tab.evaluate("[...document.querySelectorAll('a[href]')].map(e => e.href)")
    dead = []
    for page, addresses in links.items():
        for address in addresses:
            target, anchor = urldefrag(address)
            if urlsplit(target).scheme != "file":
                continue
            path = Path(unquote(urlsplit(target).path))
            if not path.is_file() or (anchor and path in names and unquote(anchor) not in names[path]):
                dead.append(f"{page.relative_to(book)}: {address}")
    assert sum(map(len, links.values())) > 100
    assert not dead
