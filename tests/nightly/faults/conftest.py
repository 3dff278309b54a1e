"""One server of runs for all fault tests: what it imports, it imports once."""

from collections.abc import Iterator

import pytest
from server import Server


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A process that starts runs of stages in processes of their own."""
    running = Server()
    yield running
    running.close()
