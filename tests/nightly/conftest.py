"""For the nightly tests: every notebook's smoke run, once, with its pictures."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def executed(tmp_path_factory) -> Callable[[Path], Path]:
    """Return a function that gives a notebook's executed smoke run, running it the first time."""
    from recamlib.book.run import run_notebook

    folder, done = tmp_path_factory.mktemp("executed"), {}

    def run(notebook: Path) -> Path:
        if notebook not in done:
            done[notebook] = run_notebook(notebook.stem, profile="smoke", output_dir=folder, progress=False)
        return done[notebook]

    return run
