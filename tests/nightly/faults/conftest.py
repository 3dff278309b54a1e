"""What an unbroken run of two stages gives, once a session, and a copy of its results for a test to spoil."""

import shutil
from pathlib import Path

import pytest
import small_stages as small

from recamlib.stages import maps


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", str(folder))
        patch.setattr(maps, "WINDOW", 1)
        return folder, small.digests()


@pytest.fixture
def whole(kept, monkeypatch) -> dict[str, str]:
    monkeypatch.setattr(maps, "WINDOW", 1)  # as there: in other company an image's last bit may be another
    return kept[1]


@pytest.fixture
def copied(kept, results) -> Path:
    return Path(shutil.copytree(kept[0], results))
