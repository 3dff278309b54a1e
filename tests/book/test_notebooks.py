"""The stored notebooks give what they show: exact text through nbval, trained numbers within a tolerance.

What a small network gives differs between processors, so means may move by `tests.replay.TOLERANCE` points;
counts, parameters and verdicts of arithmetic may not move at all. ``RECAM_ACCEPT=1`` stores today's numbers.
"""

import pytest

from recamlib.book.parameters import list_notebooks
from tests.replay import compare_with_stored, replay

NOTEBOOKS = [path for path in list_notebooks() if path.stem < "06"]  # the last one is run by `make test-all`


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_gives_what_it_shows(notebook):
    compare_with_stored(notebook, replay(notebook))
