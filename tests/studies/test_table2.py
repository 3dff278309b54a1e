"""What the report shows of Table 2: figures, frames, benchmarks that were stored."""

import json

import pytest

import recamlib as rc
from recamlib.errors import RecamError
from tests.made_up import result, row


def test_table_two_is_paper_beside_measured():
    rows = {}  # ReCAM one point above CAM, IRN ten above none
    for number, method in enumerate(rc.cells.METHODS):
        for side, kind in enumerate(rc.table2.KINDS):
            rows[f"{method}.{kind}_miou"] = row(40.0 + 10 * number + side, side)
            rows[f"{method}.{kind}_ut"] = {"mean": 1.0 + side + number, "seconds": 11.0, "parts": {}}
    made_up = result("03_table2_refinement", rows)
    frame = rc.table2.frame(made_up)
    assert frame.loc["no refinement", "CAM paper"] == 48.8 and frame.loc["AdvCAM", "ReCAM ut paper"] == 317.2
    assert frame.loc["IRN", "ReCAM here"] == 51.0
    board = rc.tables.scoreboard([made_up]).set_index("claim")
    columns = ("recam_miou.voc12", "cam_miou.voc12", "recam_ut.voc12", "recam_miou.coco14")
    verdicts = board.loc[[f"table2.irn.{column}" for column in columns], "verdict"]
    assert verdicts.tolist() == ["holds", "reference", "reference", "not run"]
    assert board.loc["table2.irn.recam_ut.voc12", "here"] == 3.0


def test_benchmarks_are_stored(results, tmp_path, monkeypatch):
    monkeypatch.setattr("recamlib.paths.book_dir", lambda: tmp_path / "book")
    (tmp_path / "book" / "measured").mkdir(parents=True)
    with pytest.raises(RecamError, match="make bench"):
        rc.results.store_benchmarks()
    (results / "benchmarks").mkdir(parents=True)
    literal = {"seconds": 5.0, "memory_ratio": 0.1, "difference": 1e-5}
    report = {"note": "47 x 62 cells; bars", "device": "cpu", "date": "2026-11-23",
              "forms": {"ours": {"seconds": 0.1}, "literal": literal}}  # fmt: skip
    (results / "benchmarks" / "walk.json").write_text(json.dumps(report))
    assert json.loads(rc.results.store_benchmarks().read_text())["walk"] == report
