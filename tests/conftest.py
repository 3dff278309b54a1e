"""For every test: results of its own session, one thread, no figure left open."""

import atexit
import os
import shutil
import sys
import tempfile

import pytest

# Two processes run tests with one thread each, and a thread that waits sleeps instead of spinning.
# Set before torch is imported; kernels and child processes inherit it.
for name, value in {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}.items():
    os.environ.setdefault(name, value)

# Cached stages of an earlier run must not answer for today's code; kernels and child processes inherit this.
if "RECAM_RESULTS" not in os.environ:
    os.environ["RECAM_RESULTS"] = tempfile.mkdtemp(prefix="recam-results-")
    atexit.register(shutil.rmtree, os.environ["RECAM_RESULTS"], ignore_errors=True)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture(scope="session")
def model():
    """A small classifier of four classes with running statistics that are not the initial ones."""
    import torch

    from recamlib.models.backbones import build_backbone
    from recamlib.models.classifier import CamClassifier

    torch.manual_seed(0)
    model = CamClassifier(build_backbone("resnet_small"), 4)
    model(torch.randn(8, 3, 64, 64))
    return model.eval()


@pytest.fixture
def kit(tmp_path):
    """A devkit of eight pictures of three classes with masks of class numbers, six of them to train on."""
    from tests.data.devkits import write_kit

    return write_kit(tmp_path)


@pytest.fixture
def recam():
    from typer.testing import CliRunner

    from recamlib.cli import app

    return lambda *words: CliRunner().invoke(app, list(map(str, words)))


def pytest_collection_modifyitems(items):
    """Start the notebooks first: they take longest, and nothing waits for them at the end."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")
