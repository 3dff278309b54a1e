"""README and RESULTS.md say what is stored with the book, and nothing stored has a verdict unconverged."""

import json

import pytest

from recamlib.method.convergence import convergence
from recamlib.paths import ROOT, book_dir
from recamlib.report.claims import row_verdict
from recamlib.report.results import load_measured
from recamlib.report.summary import BEGIN, END, beside, readme_table, results_page
from tests import made_up

FILES = sorted((book_dir() / "measured").glob("[0-9]*.json"))
ANSWERS = {"holds", "does not hold", "cannot tell"}


def faults(result: dict) -> list[str]:
    """Return the rows with a verdict whose convergence is not stored, or is not what the rule says of it."""
    found = []
    for name, row in result["rows"].items():
        if "difference_interval" not in row:
            continue
        records = row.get("records", [])
        converged = row.get("converged", True) and all(convergence(r).converged for r in records)
        judged = row_verdict(row, +1) in ANSWERS
        if len(records) != row["seeds"] or "converged" not in row or (judged and not converged):
            found.append(name)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_stored_verdict_has_its_convergence_beside_it(file):
    assert faults(json.loads(file.read_text())) == []


def test_a_verdict_without_convergence_is_a_fault_and_a_row_that_has_not_converged_says_so():
    good = {"val_map": 70.0, "fc1_map": 68.0, "fc2_accuracy": 97.0, "softmax_accuracy": 98.0}
    row = made_up.row(30.0, 2.0, converged=True, records=[good])
    assert faults({"rows": {"a": row}}) == [] and faults({"rows": {"a": row | {"records": []}}}) == ["a"]
    assert faults({"rows": {"a": row | {"records": [good | {"fc2_accuracy": 64.0}]}}}) == ["a"]
    late = row | {"converged": False, "records": [good | {"fc2_accuracy": 64.0}]}
    assert faults({"rows": {"a": late}}) == [] and row_verdict(late, +1) == "not converged"
    late |= {"convergence": "FC2 64 % of 93 %"}
    run = made_up.result("02_table1_ablations", {"recam_w_times_w_prime": late}, dataset="voc12")
    assert "not converged: FC2 64 % of 93 %" in readme_table([run])
    page = results_page([run])
    assert "not converged |" in page and "holds |" not in page


def test_a_notebook_begins_with_every_stored_run_that_has_rows_of_its_own():
    assert all(text in beside("03").data for text in ("| photographs (2) |", "| AdvCAM: ReCAM |"))
    assert "photographs (2)" not in beside("02").data


def test_readme_and_results_are_in_step_with_what_is_stored():
    results = load_measured()
    between = (ROOT / "README.md").read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    page = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    assert between.strip() == readme_table(results), "run: recam results"
    assert page == results_page(results), "run: recam results"
