"""What fault tests share: one server of runs, and results that are whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import small_stages as small
from server import Server


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """Return a folder with the results of a classifier and its maps, and the digests of both."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", str(folder))
        return folder, small.digests()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A process that starts runs of stages in processes of their own."""
    running = Server()
    yield running
    running.close()
