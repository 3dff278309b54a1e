"""Every page of the book in Chromium, wide and narrow: what a reader would stumble over fails here."""

import html
import re
import shutil
import time
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from bs4 import BeautifulSoup
from typer.testing import CliRunner

from recamlib.book.build import build_book, toc_files
from recamlib.book.chromium import Tab, browser, find_chromium
from recamlib.book.explorer import iou_of, latest
from recamlib.book.pages import book_pages
from recamlib.book.parameters import list_notebooks
from recamlib.book.pdf import one_document, print_book
from recamlib.cli import app
from recamlib.paths import book_dir
from recamlib.report.claims import all_claims
from recamlib.report.kept import load_results

pytestmark = pytest.mark.timeout(1800)  # the first test runs every notebook that has not run yet
chromium = pytest.mark.skipif(find_chromium() is None, reason="no Chromium (Debian: apt install chromium)")

CHECKS = Path(__file__).with_name("browser_checks.js").read_text(encoding="utf-8")
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
    "<p id='a'>one</p><p id='a'>two</p>": "two elements are called a",
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


def dead_links(book: Path) -> list[str]:
    """Return every link of a book to a page or a place on it that is not there."""
    texts = {page: page.read_text(encoding="utf-8") for page in pages(book)}
    names = {
        page: set(map(html.unescape, re.findall(r'\sid="([^"]+)"', text))) for page, text in texts.items()
    }
    dead = []
    for page, text in texts.items():
        for address in map(html.unescape, re.findall(r'<a\b[^>]*?\shref="([^"]+)"', text)):
            target, anchor = urldefrag(address)
            if urlsplit(target).scheme:
                continue
            path = (page.parent / unquote(target)).resolve() if target else page
            if not path.is_file() or (anchor and path in names and unquote(anchor) not in names[path]):
                dead.append(f"{page.relative_to(book)}: {address}")
    return dead


def test_every_link_leads_somewhere(book):
    assert len(pages(book)) > 10 and dead_links(book.resolve()) == []


def test_a_dead_link_is_seen(tmp_path):
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html">b</a> <a href="#y">y</a> <a href="#x">x</a>')
    assert len(dead_links(tmp_path)) == 2


def test_every_page_of_the_contents_is_built_and_every_section_has_its_boxes(book):
    names = toc_files(book_dir() / "_toc.yml")
    assert [name for name in names if not (book / f"{name}.html").is_file()] == []
    for notebook in list_notebooks():
        page = (book / "notebooks" / f"{notebook.stem}.html").read_text(encoding="utf-8")
        text = re.sub(r"<[^>]*>", "", page)
        assert f"recam run {notebook.stem[:2]} --profile smoke\n" in text
        assert "Run this page again" in text and "Where these numbers come from" in text
        files = {path.name for path in (book / "_static" / "sections" / notebook.stem).iterdir()}
        assert {"result.json", "rows.csv", "table_1.csv", "figure_1.svg"} <= files
        assert all(f"{notebook.stem}/{name}" in page for name in files)


def press(tab: Tab, key: str, times: int = 1) -> None:
    """Press a key on what has the focus."""
    codes = {"Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "Enter": 13, " ": 32}
    for _ in range(times):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r" if key == "Enter" else " "} if key in ("Enter", " ") else {}
            tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key],
                     **(text if kind == "keyDown" else {}))  # fmt: skip


def place(tab: Tab, selector: str) -> dict[str, float]:
    """Scroll to an element and return where it is on the screen."""
    return tab.evaluate(
        f"(() => {{ const e = document.querySelector({selector!r}); e.scrollIntoView({{block: 'center'}});"
        "const b = e.getBoundingClientRect(); return {x: b.x, y: b.y, width: b.width, height: b.height} })()"
    )


def mouse(tab: Tab, kind: str, x: float, y: float) -> None:
    tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)


def click(tab: Tab, selector: str) -> None:
    """Press and let go of the mouse in the middle of an element."""
    box = place(tab, selector)
    for kind in ("mousePressed", "mouseReleased"):
        mouse(tab, kind, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def wait(tab: Tab, script: str) -> None:
    """Wait until an expression is true on the page."""
    end = time.monotonic() + 20
    while not tab.evaluate(script):
        assert time.monotonic() < end, f"waited in vain for {script}"
        time.sleep(0.02)


@pytest.fixture
def explorer(tab, book):
    """The explorer page, open, and the data it was made of."""
    tab.open((book / "explorer.html").as_uri())
    wait(tab, "document.querySelector('#explorer')?.dataset.ready === 'yes'")
    return latest(load_results())


def expect_iou(tab: Tab, found: dict, scene: int, method: str, threshold: float) -> None:
    """Wait until the page shows what this library counts for the same maps."""
    wanted = iou_of(found, found["scenes"][scene], method, threshold)
    text = f"IoU {wanted:.1f} %"
    wait(tab, f"document.querySelector('#explorer-iou').textContent === {text!r}")
    assert tab.evaluate("Number(document.querySelector('#threshold').value)") == pytest.approx(threshold)


@chromium
def test_the_explorer_by_mouse(tab, explorer):
    thresholds = explorer["thresholds"]
    expect_iou(tab, explorer, 0, "CAM", thresholds["CAM"])
    click(tab, ".scenes label:nth-of-type(9) img")
    expect_iou(tab, explorer, 8, "CAM", thresholds["CAM"])
    click(tab, ".methods label:nth-of-type(2)")
    expect_iou(tab, explorer, 8, "ReCAM", thresholds["ReCAM"])
    painted = "document.querySelector('#explorer-mask').toDataURL()"
    before, box = tab.evaluate(painted), place(tab, "#threshold")
    start, end = (box["x"] + box["width"] * share for share in (thresholds["ReCAM"], 0.8))
    y = box["y"] + box["height"] / 2
    mouse(tab, "mousePressed", start, y)
    for step in range(1, 6):
        mouse(tab, "mouseMoved", start + (end - start) * step / 5, y)
    mouse(tab, "mouseReleased", end, y)
    moved = tab.evaluate("Number(document.querySelector('#threshold').value)")
    assert moved == pytest.approx(0.8, abs=0.05)
    expect_iou(tab, explorer, 8, "ReCAM", moved)
    assert tab.evaluate(painted) != before
    assert spoken(tab) == []


@chromium
def test_the_explorer_by_keyboard(tab, explorer):
    tab.evaluate("document.querySelector('.scenes input').focus()")
    press(tab, "ArrowRight", 6)
    expect_iou(tab, explorer, 6, "CAM", explorer["thresholds"]["CAM"])
    press(tab, "Tab")
    press(tab, "ArrowRight", 3)
    expect_iou(tab, explorer, 6, "ReCAM + IRN", explorer["thresholds"]["ReCAM + IRN"])
    press(tab, "Tab")
    press(tab, "ArrowLeft", 2)
    expect_iou(tab, explorer, 6, "ReCAM + IRN", round(explorer["thresholds"]["ReCAM + IRN"] - 0.02, 2))


def test_the_explorer_is_small(book):
    assert (book / "explorer.html").stat().st_size < 2**20


@chromium
def test_the_scoreboard_is_filtered_and_sorted_by_keyboard(tab, book):
    tab.open((book / "index.html").as_uri())
    rows = "[...document.querySelectorAll('.claims tbody tr')].filter(r => !r.hidden)"
    every = len(all_claims())
    assert tab.evaluate(f"{rows}.length") == every
    tab.evaluate("document.querySelector('.filters select').focus()")
    press(tab, "Tab", 3)
    tab.call("Input.insertText", text="bce_only")
    assert tab.evaluate(f"{rows}.map(r => r.cells[0].textContent)") == [
        "Table 1 bce_only.voc12", "Table 1 bce_only.coco14",
    ]  # fmt: skip
    assert tab.evaluate("document.querySelector('.filters output').textContent") == f"2 of {every} claims"
    press(tab, "Tab")
    press(tab, "Enter")  # show all
    wait(tab, f"{rows}.length === {every}")
    press(tab, "Tab", 2)  # past the first column
    press(tab, "Enter")
    papers = tab.evaluate(f"{rows}.map(r => r.cells[1].dataset.value)")
    numbers = [float(value) for value in papers if value]
    assert len(numbers) > 100 and numbers == sorted(numbers) and "" not in papers[: len(numbers)]
    press(tab, " ")
    papers = tab.evaluate(f"{rows}.map(r => r.cells[1].dataset.value)")
    assert [float(v) for v in papers if v] == sorted(numbers, reverse=True) and papers[0]


def test_the_whole_book_is_one_document_whose_links_stay_inside(book):
    document = BeautifulSoup(one_document(book, toc_files(book_dir() / "_toc.yml")), "html.parser")
    ids = [element["id"] for element in document.find_all(id=True)]
    assert len(ids) == len(set(ids))
    inside = [a["href"][1:] for a in document.find_all("a", href=re.compile("^#"))]
    assert len(inside) > 100 and set(inside) <= set(ids)
    for element in document.find_all(src=re.compile("^(?!data:)")):
        assert (book / unquote(element["src"])).is_file(), element["src"]


@chromium
def test_the_report_is_printed(book, tmp_path):
    names = ["index", "method", "notebooks/01_toy_hoofed"]  # all of it takes longer, and shows no more
    toc = tmp_path / "_toc.yml"
    toc.write_text(f"format: jb-book\nroot: index\nchapters: {[{'file': name} for name in names[1:]]}\n")
    target = print_book(book, toc, tmp_path / "report.pdf")
    content = target.read_bytes()
    assert content.startswith(b"%PDF-") and content.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type /Page\b", content)) > len(names)
    assert not (book / "whole.html").exists()


def test_without_chromium_the_report_says_what_to_do_before_it_runs(monkeypatch):
    monkeypatch.setenv("RECAM_CHROMIUM", "/no/such/browser")
    monkeypatch.setattr("recamlib.book.run.run_notebook", lambda *_, **__: pytest.fail("a notebook ran"))
    done = CliRunner().invoke(app, ["report", "--pdf"])
    assert done.exit_code == 1
    assert "RECAM_CHROMIUM names /no/such/browser" in done.stderr and "apt install chromium" in done.stderr
