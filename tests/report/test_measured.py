"""What is stored with the book: no verdict on photographs without what shows that its run converged."""

import json

import pytest

from recamlib.method.convergence import convergence
from recamlib.paths import book_dir
from recamlib.report.claims import row_verdict

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


def test_a_verdict_without_convergence_is_a_fault():
    good = {"val_map": 70.0, "fc1_map": 68.0, "fc2_accuracy": 97.0, "softmax_accuracy": 98.0}
    row = {
        "mean": 30.0, "difference": 2.0, "difference_interval": [1.0, 3.0], "seeds": 1, "converged": True,
        "records": [good],
    }  # fmt: skip
    assert faults({"rows": {"a": row}}) == [] and faults({"rows": {"a": row | {"records": []}}}) == ["a"]
    assert faults({"rows": {"a": row | {"records": [good | {"fc2_accuracy": 64.0}]}}}) == ["a"]
    late = row | {"converged": False, "records": [good | {"fc2_accuracy": 64.0}]}
    assert faults({"rows": {"a": late}}) == [] and row_verdict(late, +1) == "not converged"
