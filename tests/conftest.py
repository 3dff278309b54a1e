"""For every test: results of its own session, and no figure left open."""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

# Cached stages of an earlier run must not answer for today's code; kernels and child processes inherit this.
if "RECAM_RESULTS" not in os.environ:
    os.environ["RECAM_RESULTS"] = tempfile.mkdtemp(prefix="recam-results-")
    atexit.register(shutil.rmtree, os.environ["RECAM_RESULTS"], ignore_errors=True)


@pytest.fixture(autouse=True)
def close_figures():
    """Close the figures of a test, if it drew any."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


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
