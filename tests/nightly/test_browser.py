"""Every page of the book in Chromium, wide and narrow: what a reader would stumble over fails here."""

import base64
import io
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from playwright.sync_api import Page, expect

from recamlib.book.build import build_book, toc_files
from recamlib.book.explorer import latest
from recamlib.book.parameters import list_notebooks
from recamlib.method.scores import class_counts, iou_from_counts
from recamlib.paths import book_dir
from recamlib.report.results import load_results
from recamlib.stages.segment import to_mask

pytestmark = pytest.mark.timeout(1800)  # the first test runs every notebook that has not run yet

CHECKS = Path(__file__).with_name("browser_checks.js").read_text(encoding="utf-8")
WIDE, NARROW = 1280, 390
LOCAL = ("file", "data", "blob")
NOT_PAGES = ("_static", "_sources", "_downloads", "_images")
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
    "<script>console.error('unwell')</script>": "console: unwell",
    "<script src='gone.js'></script>": "not loaded: script",
    "<img src='https://example.org/a.png' alt='A horse beside a cow'>": "leaves the page: https://example.org",
}


@pytest.fixture(scope="session")
def book(executed, tmp_path_factory) -> Path:
    """The book of the smoke runs, built once from a copy of its sources."""
    source = tmp_path_factory.mktemp("book") / "book"
    shutil.copytree(book_dir(), source, ignore=shutil.ignore_patterns("_build", "executed"))
    folder = {executed(notebook).parent for notebook in list_notebooks()}.pop()
    return build_book(source=source, executed=folder).parent


class Tab:
    """One page of the browser, and what it has put on the console, asked of others, or not found."""

    def __init__(self, page: Page) -> None:
        self.page, self.said = page, []
        bad = ("error", "warning", "assert")
        for event, wrong, what in (
            ("pageerror", lambda e: True, lambda e: f"exception: {e.name}: {e.message}"),
            ("console", lambda m: m.type in bad, lambda m: f"console: {m.text}"),
            ("request", lambda r: urlsplit(r.url).scheme not in LOCAL, lambda r: f"leaves the page: {r.url}"),
            ("requestfailed", lambda r: True, lambda r: f"not loaded: {r.resource_type} {r.failure}"),
        ):
            page.on(event, lambda e, wrong=wrong, what=what: wrong(e) and self.said.append(what(e)))

    def open(self, address: str, *, width: int = WIDE, dark: bool = False) -> None:
        self.said.clear()
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.emulate_media(color_scheme="dark" if dark else "light", reduced_motion="reduce")
        self.page.goto(address)
        ready = "[window.MathJax?.startup?.promise, document.fonts.ready]"
        self.page.evaluate(f"Promise.all({ready}).then(() => 1)")


@pytest.fixture(scope="module")
def tab(browser):
    page = browser.new_page()
    page.set_default_timeout(180_000)  # milliseconds: the machine may be busy
    return Tab(page)


def pages(book: Path) -> list[Path]:
    return [p for p in sorted(book.rglob("*.html")) if p.relative_to(book).parts[0] not in NOT_PAGES]


def problems(tab: Tab, page: Path, *, width: int, dark: bool = False) -> list[str]:
    tab.open(page.as_uri(), width=width, dark=dark)
    return tab.page.evaluate(f"({CHECKS})({width})") + tab.said


@pytest.mark.parametrize(("fault", "said"), FAULTS.items(), ids=FAULTS.values())
def test_the_checks_see_each_fault(tab, tmp_path, fault, said):
    Image.new("RGB", (2, 2)).save(tmp_path / "pixel.png")
    page, head = tmp_path / "page.html", "<!doctype html><meta charset=utf-8><title>t</title><body><article>"
    page.write_text(f"{head}<meta name=viewport content='width=device-width'><p>Nothing is wrong here.</p>")
    assert problems(tab, page, width=NARROW) == []
    page.write_text(page.read_text() + fault.replace("{pixel}", "pixel.png"))
    assert any(said in line for line in problems(tab, page, width=NARROW))


@pytest.mark.parametrize("width, dark", [(WIDE, False), (NARROW, False), (WIDE, True)])
def test_no_page_has_anything_to_stumble_over(tab, book, width, dark):
    lines = [
        f"{page.relative_to(book).as_posix()}: {line}"
        for page in pages(book) for line in problems(tab, page, width=width, dark=dark)
    ]  # fmt: skip
    assert not lines, "\n".join(lines)


def dead_links(book: Path) -> list[str]:
    soups = {page: BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser") for page in pages(book)}
    names, dead = {page: {tag["id"] for tag in soup.select("[id]")} for page, soup in soups.items()}, []
    links = [(page, tag["href"]) for page, soup in soups.items() for tag in soup.select("a[href]")]
    for page, address in links:
        target, anchor = map(unquote, urldefrag(address))
        path = (page.parent / target).resolve() if target else page
        there = path.is_file() and (not anchor or anchor in names.get(path, anchor))
        if not there and not urlsplit(target).scheme:
            dead.append(f"{page.relative_to(book)}: {address}")
    return dead


def test_every_link_leads_somewhere_and_a_dead_one_is_seen(book, tmp_path):
    assert len(pages(book)) > 10 and dead_links(book.resolve()) == []
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
        assert {"result.json", "rows.csv", "figure_1.svg"} <= files
        assert all(f"{notebook.stem}/{name}" in page for name in files)


def pixels(address: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


@pytest.fixture
def explorer(tab, book):
    """The explorer page, open, and the data it was made of."""
    tab.open((book / "explorer.html").as_uri())
    expect(tab.page.locator("#explorer")).to_have_attribute("data-ready", "yes")
    return latest(load_results())


def expect_iou(tab: Tab, found: dict, number: int, method: str, threshold: float) -> None:
    """Wait until the page shows what this library counts for the same maps."""
    scene, classes = found["scenes"][number], len(found["classes"]) + 1
    truth = pixels(scene["truth"])
    maps = pixels(scene["maps"][method]).reshape(-1, *truth.shape) / np.float32(255)
    mask = to_mask(maps, scene["present"], threshold)
    counts = class_counts(mask, truth, num_classes=classes, ignore=found["ignore"])[1:]
    wanted = 100 * iou_from_counts(counts)[counts[:, 2] > 0].mean()
    expect(tab.page.locator("#explorer-iou")).to_have_text(f"IoU {wanted:.1f} %")
    assert float(tab.page.input_value("#threshold")) == pytest.approx(threshold)


def test_the_explorer_by_mouse(tab, explorer, book):
    page, thresholds = tab.page, explorer["thresholds"]
    expect_iou(tab, explorer, 0, "CAM", thresholds["CAM"])
    page.click(".scenes label:nth-of-type(9) img")
    expect_iou(tab, explorer, 8, "CAM", thresholds["CAM"])
    page.click(".methods label:nth-of-type(2)")
    expect_iou(tab, explorer, 8, "ReCAM", thresholds["ReCAM"])
    painted = "document.querySelector('#explorer-mask').toDataURL()"
    before, slider = page.evaluate(painted), page.locator("#threshold")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    start, end = (box["x"] + box["width"] * share for share in (thresholds["ReCAM"], 0.8))
    page.mouse.move(start, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(end, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    moved = float(page.input_value("#threshold"))
    assert moved == pytest.approx(0.8, abs=0.05)
    expect_iou(tab, explorer, 8, "ReCAM", moved)
    assert page.evaluate(painted) != before and tab.said == []
    assert (book / "explorer.html").stat().st_size < 2**20


def test_the_explorer_by_keyboard(tab, explorer):
    def press(*keys: str) -> None:
        for key in keys:
            tab.page.keyboard.press(key)

    tab.page.focus(".scenes input")
    press(*["ArrowRight"] * 6)
    expect_iou(tab, explorer, 6, "CAM", explorer["thresholds"]["CAM"])
    press("Tab", *["ArrowRight"] * 3)
    expect_iou(tab, explorer, 6, "ReCAM + IRN", explorer["thresholds"]["ReCAM + IRN"])
    press("Tab", *["ArrowLeft"] * 2)
    expect_iou(tab, explorer, 6, "ReCAM + IRN", round(explorer["thresholds"]["ReCAM + IRN"] - 0.02, 2))
