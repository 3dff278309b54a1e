"""Run against run: what differed, what moved, and what is within noise."""

import pytest

import recamlib as rc
from recamlib.report import compare
from recamlib.report.claims import table_row
from recamlib.report.compare import comparison, results_moved
from tests import made_up

pytestmark = pytest.mark.usefixtures("results")
PARAMETERS = made_up.result("", {}, train_images=9, seeds=[0, 1, 2], lr=0.1)["parameters"]


def run(rows, notebook="02_table1_ablations", answer="holds", **parameters):
    claims = {"prose.any_option_beats_cam": rc.claims.sentence(answer, "drawn up for a test")}
    content = {"rows": rows, "claims": claims, "images": {"train": 9, "scored": 7}}
    return rc.results.read(rc.results.record(notebook, parameters=PARAMETERS | parameters, **content))


def test_only_what_differs_is_listed():
    rows = {"bce_only": table_row([1.0, 2.0, 3.0])}
    a, b, c = run(rows), run(rows, lr=0.2, profile="quick"), run(rows, lr=0.3, answer="cannot tell")
    settings, verdicts = "Settings that differ", "Verdicts that differ"
    changed = comparison(a, b)[settings].T.to_dict("list")
    assert changed == {"profile": ["smoke", "quick"], "lr": ["0.1", "0.2"]}
    assert comparison(a, a)[settings].empty and comparison(a, a)[verdicts].empty
    assert comparison(a, c)[verdicts].loc["prose.any_option_beats_cam"].tolist() == ["holds", "cannot tell"]


def test_same_seeds_are_pairs_and_a_small_steady_gain_is_seen():
    # seeds differ by ten points, the change is one point in each: only pairs can tell
    a = run({"row": table_row([30.0, 40.0, 50.0])})
    b = run({"row": table_row([31.0, 41.1, 51.0])}, lr=0.2)
    moved = results_moved(a, b).loc["row"]
    assert moved["verdict"] == "up" and moved["change low"] > 0.8 and moved["change high"] < 1.3
    other_data = run({"row": table_row([31.0, 41.1, 51.0])}, train_images=12)
    assert results_moved(a, other_data).loc["row", "verdict"] == "within noise"


def test_one_seed_uses_the_intervals_over_images():
    a = run({"row": table_row([40.0], interval=(39.0, 41.0)), "time": {"mean": 2.0}}, seeds=[0])
    near = run({"row": table_row([41.3], interval=(40.3, 42.3)), "time": {"mean": 9.0}}, seeds=[0], lr=0.2)
    moved = results_moved(a, near)
    # half-widths of 1 and 1 add up to 1.414
    assert moved.loc["row", "verdict"] == "within noise" and moved.loc["time", "verdict"] == "no interval"
    assert moved.loc["row", "change high"] == pytest.approx(1.3 + 2**0.5)


def test_the_command_and_what_it_refuses(results, recam):
    run({"row": table_row([30.0, 40.0, 50.0])}, backbone="[red]y")  # no markup
    run({"row": table_row([31.0, 41.1, 51.0])}, profile="quick", answer="cannot tell")
    done = recam("compare", "02/smoke", "02/quick")
    assert done.exit_code == 0, done.stderr
    assert "up" in done.stdout and "[red]y" in done.stdout and compare.RULE in done.stdout
    assert compare.load_run(str(results / "02_table1_ablations" / "latest_smoke.json"))["rows"]
    run({"row": table_row([1.0])}, notebook="01_toy_hoofed")
    (results / "list.json").write_text("[1]")
    (results / "torn.json").write_text('{"notebook": ')
    for name, message in (
        ("02/quikc", "did you mean '02/quick'"), ("gone.json", "gone.json"), ("01/smoke", "one notebook"),
        (str(results / "list.json"), "no result of a notebook"), (str(results / "torn.json"), "is not JSON"),
    ):  # fmt: skip
        failed = recam("compare", name, "02/quick")
        assert failed.exit_code == 1 and message in failed.stderr


def test_an_earlier_run_can_be_stored_by_its_file(results, recam, monkeypatch, tmp_path):
    monkeypatch.setattr(rc.paths, "book_dir", lambda: tmp_path / "book")
    (tmp_path / "book").mkdir()
    rows = {"row": table_row([1.0])}
    run(rows, profile="mini", train_images=7)
    (path,) = results.glob("02_table1_ablations/*/result.json")
    run(rows, profile="mini", train_images=8)
    for name in (path, "02"):
        done = recam("store", name)
        assert done.exit_code == 0, done.output
    parts = [f.stem.rpartition("_")[2] for f in sorted((tmp_path / "book" / "measured").glob("*.json"))]
    assert parts == ["7", "8"]
