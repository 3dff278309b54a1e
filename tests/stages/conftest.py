"""A chain of stages that is trained once a session; every test has a copy of its results to itself."""

import shutil
from pathlib import Path

import chain
import pytest

from recamlib.data.access import MaskSet


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("chain") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", str(folder))
        chain.train_all()
    return folder


@pytest.fixture(autouse=True)
def results(trained, tmp_path, monkeypatch) -> Path:
    shutil.copytree(trained, tmp_path / "results")
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "empty"))
    return tmp_path / "empty"


@pytest.fixture
def no_masks(monkeypatch) -> None:
    """Fail the test if a mask is opened."""
    for name in ("mask", "__init__"):
        monkeypatch.setattr(MaskSet, name, lambda *args, **kwargs: pytest.fail("a mask was opened"))
