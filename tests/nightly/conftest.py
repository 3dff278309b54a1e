"""For the nightly tests: a browser, and every notebook's smoke run, once, with its pictures."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium: ``$RECAM_CHROMIUM``, or the first of its names on the PATH."""
    program = os.environ.get("RECAM_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium (Debian: apt install chromium)")
    options = ["--disable-gpu", "--hide-scrollbars", "--disable-background-networking"]
    options += ["--disable-dev-shm-usage"]
    options += ["--no-sandbox"] * (os.geteuid() == 0)  # its sandbox refuses root, which containers run as
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def executed(tmp_path_factory) -> Callable[[Path], Path]:
    """Return a function that gives a notebook's executed smoke run, running it the first time."""
    from recamlib.book.run import run_notebook

    folder, done = tmp_path_factory.mktemp("executed"), {}

    def run(notebook: Path) -> Path:
        if notebook not in done:
            done[notebook] = run_notebook(notebook.stem, profile="smoke", output_dir=folder)
        return done[notebook]

    return run
