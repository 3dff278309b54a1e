"""Every test has results of its own."""

import pytest


@pytest.fixture(autouse=True)
def alone(results):
    pass
