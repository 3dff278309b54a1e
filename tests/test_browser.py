"""Every page of the book in Chromium, wide and narrow: what a reader would stumble over fails here."""

import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from recamlib.book import build_book, toc_files
from recamlib.chromium import Tab, browser, find_chromium
from recamlib.pages import book_pages
from recamlib.paths import book_dir
from recamlib.profiles import list_notebooks

pytestmark = pytest.mark.timeout(1800)  # the first test runs every notebook that has not run yet
chromium = pytest.mark.skipif(find_chromium() is None, reason="no Chromium (Debian: apt install chromium)")

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


# What a page may do wrong, and what is then said; each is planted in an otherwise good page.
FAULTS = {
    "<img src='gone.png' alt='A horse beside a cow'>": "is missing",
    "<img src='{pixel}'>": "image without alternative text",
    "<img src='{pixel}' alt='_images/0f3a.png'>": "alternative text is a file name",
    "<img src='{pixel}' alt='Two white cows'><img src='{pixel}#' alt='Two white cows'>": "one alternative",
    "<p>so that $x^2$ falls</p>": "mathematics left as source",
    "<span class='math'>\\(x^2\\)</span>": "mathematics not set",
    "<div style='width: 2000px'>wide</div>": "the page is 20",
    "<div style='overflow-x: auto'><div style='width: 2000px'>wide</div></div>": "not by keyboard",
    "<p style='color: #999'>grey on white</p>": "contrast 2.85 of 4.5",
    "<p style='opacity: 0.4'>pale</p>": "contrast",
    "<button></button>": "nothing says what this is for",
    "<canvas></canvas>": "drawing without a name",
    "<script>throw new Error('broken')</script>": "exception: Error: broken",
    "<script>console.error('unwell')</script>": "console: ['unwell']",
    "<script src='gone.js'></script>": "not loaded: Script",
    "<img src='https://example.org/a.png' alt='A horse beside a cow'>": "leaves the page: https://example.org",
}


@chromium
@pytest.mark.parametrize(("fault", "said"), FAULTS.items(), ids=FAULTS.values())
def test_the_checks_see_each_fault(tab, tmp_path, fault, said):
    from PIL import Image

    Image.new("RGB", (2, 2)).save(tmp_path / "pixel.png")
    page, frame = tmp_path / "page.html", "<!doctype html><meta charset=utf-8><meta name=viewport " \
        "content='width=device-width'><title>t</title><body><article>{}</article></body>"  # fmt: skip
    page.write_text(frame.format("<p>Nothing is wrong here.</p>"))
    assert problems(tab, page, width=NARROW) == []
    page.write_text(frame.format(fault.replace("{pixel}", "pixel.png")))
    assert any(said in line for line in problems(tab, page, width=NARROW))


@chromium
@pytest.mark.parametrize(("width", "dark"), [(WIDE, False), (NARROW, False), (WIDE, True)])
def test_no_page_has_anything_to_stumble_over(tab, book, width, dark):
    found = {
        page.relative_to(book).as_posix(): wrong
        for page in pages(book)
        if (wrong := problems(tab, page, width=width, dark=dark))
    }
    text = "\n".join(f"{page}: {line}" for page, lines in found.items() for line in lines)
    assert not found, f"at {width} pixels{', dark' if dark else ''}:\n{text}"


@chromium
def test_every_link_leads_somewhere(tab, book):
    names, links = {}, {}
    for page in pages(book):
        tab.open(page.as_uri())
        names[page] = set(tab.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)"))
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


def test_every_page_of_the_contents_is_built_and_every_section_has_its_boxes(book):
    names = toc_files(book_dir() / "_toc.yml")
    assert [name for name in names if not (book / f"{name}.html").is_file()] == []
    for notebook in list_notebooks():
        page = (book / "notebooks" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        number = re.search(r'recam <span class="n">run</span>|recam run \S+', page)
        assert number and "Run this page again" in page and "Where these numbers come from" in page
        files = {path.name for path in (book / "_static" / "sections" / notebook.stem).iterdir()}
        assert {"result.json", "rows.csv", "table_1.csv", "figure_1.svg"} <= files
        assert all(f"{notebook.stem}/{name}" in page for name in files)
