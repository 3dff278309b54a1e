"""Runs of notebooks that the core suite has no time for."""

import json

import pytest

from recamlib.book.parameters import find_notebook
from recamlib.book.run import run_notebook
from recamlib.paths import results_dir
from tests.replay import compare_with_stored, replay

pytestmark = pytest.mark.timeout(1800)


def test_the_last_notebook_gives_what_it_shows():
    notebook = find_notebook("06")
    compare_with_stored(notebook, replay(notebook))


@pytest.mark.parametrize("number, others", [("03", {"none"}), ("04", {"upper_bound"})])
def test_one_refinement_alone_can_be_run_again(number, others, executed, tmp_path):
    notebook = find_notebook(number)
    executed(notebook)  # leaves stages that this run reads back
    latest = results_dir() / notebook.stem / "latest_smoke.json"
    before = latest.read_bytes()
    run_notebook(number, profile="smoke", parameters={"methods": ["irn"]}, output_dir=tmp_path)
    rows = json.loads(latest.read_text())["rows"]
    latest.write_bytes(before)
    assert {name.split(".")[0] for name in rows} == {"irn"} | others
