"""For every test: results of its own session, and no figure left open."""

import atexit
import os
import shutil
import sys
import tempfile

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
