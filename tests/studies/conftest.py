"""Every test has results of its own, and computes them in its own process."""

import pytest


@pytest.fixture(autouse=True)
def alone(results, monkeypatch):
    monkeypatch.setenv("RECAM_WORKERS", "0")
