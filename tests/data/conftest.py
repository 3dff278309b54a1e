"""A small devkit, laid out by hand."""

import pytest
from devkits import write_kit


@pytest.fixture
def kit(tmp_path):
    """Eight pictures of three classes with masks of class numbers; six to train on, two to look at."""
    return write_kit(tmp_path)
