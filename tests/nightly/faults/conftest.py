"""What an unbroken run of two stages gives, once a session, and a copy of its results for a test to spoil."""

import shutil
from pathlib import Path

import pytest
import small_stages as small


@pytest.fixture(scope="session")
def kept(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", str(folder))
        return folder, small.digests()


@pytest.fixture
def whole(kept) -> dict[str, str]:
    return kept[1]


@pytest.fixture
def copied(kept, results) -> Path:
    return Path(shutil.copytree(kept[0], results))
