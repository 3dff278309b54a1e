"""Benchmarks at their smallest: benchmarks/gpu.py on the CPU with two images, and the pipeline on scenes."""

import importlib
import itertools
import json
import runpy
import sys

import pytest

from recamlib.book.parameters import all_parameters
from recamlib.paths import ROOT
from recamlib.studies.table1 import BASE_ROWS, OUR_ROWS, ROWS


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """The script; what it sets in the environment goes again."""
    for name in ("RECAM_DEVICE", "RECAM_WORKERS", "RECAM_DATA", "RECAM_WEIGHTS", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    return importlib.import_module("gpu")


def test_it_stops_goes_on_and_is_done(gpu, monkeypatch, tmp_path, capsys):
    out = tmp_path / "gpu.json"
    call = ["--device", "cpu", "--small", "--out", str(out)]
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "clock", itertools.count(0, 60).__next__)  # a minute passes at every look
        gpu.main([*call, "--minutes", "3"])
    report = json.loads(out.read_text())
    assert list(report["steps"]) == ["random walk, 32-true", "class features, 32-true"]
    assert report["table1"] == {} and {"device", "versions", "commit", "date", "threads"} <= set(report)

    report["steps"]["random walk, 32-true"]["mark"] = 1  # what is there is not made again
    out.write_text(json.dumps(report))
    gpu.main(call)
    report = json.loads(out.read_text())
    steps, table = report["steps"], report["table1"]["resnet_small"]
    assert steps["random walk, 32-true"]["mark"] == 1
    for path in ("random walk", "class features", "extraction", "AdvCAM", "training step"):
        step = steps[f"{path}, 32-true"]
        assert step["difference"] < 1e-4
        assert step["times_faster"] == pytest.approx(step["cpu_seconds"] / step["device_seconds"])
    for path in ("extraction", "AdvCAM", "training step"):
        assert 0 < steps[f"{path}, bf16-mixed"]["difference"] < 1
    wanted = {"bce_only", "sce_only", "sce_single_only", "bce_longer (control)", *BASE_ROWS.values()}
    wanted |= {*ROWS.values(), *OUR_ROWS.values()}
    assert set(table["rows"]) == wanted and len(table["claims"]) == 2
    scored = [step for step in steps.values() if "row" in step]
    assert len(scored) == 2 * len(wanted)
    for step in scored:
        assert 0 <= step["miou"] <= 100 and min(step["images"], step["training_images"]) > 0
        assert ("fc2_accuracy" in step["record"]) == (step["row"].startswith("recam_"))
    assert table["rows"]["recam_w"]["per_seed"] == [s["miou"] for s in scored if s["row"] == "recam_w"]

    before = out.read_text()
    monkeypatch.setattr(gpu, "against_cpu", lambda *_: pytest.fail("made again"))
    gpu.main(call)
    assert out.read_text() == before and f"{len(steps)} of {len(steps)} steps" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="another small"):
        gpu.main(["--device", "cpu", "--out", str(out)])
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        gpu.main(["--out", str(out)])


def test_pieces_are_read_as_one_folder_with_the_settings_of_mini(gpu, tmp_path):
    for name in ("one/a/x.txt", "two/a/y.txt", "two/z.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert gpu.joined([tmp_path / "one"], tmp_path / "all") == tmp_path / "one"
    both = gpu.joined([tmp_path / "one", tmp_path / "two"], tmp_path / "all")
    found = {str(path.relative_to(both)): path.read_text() for path in both.rglob("*.txt")}
    assert found == {"a/x.txt": "one/a/x.txt", "a/y.txt": "two/a/y.txt", "z.txt": "two/z.txt"}
    assert gpu.notebook_settings() == all_parameters("mini", "02")["settings"]


def test_the_pipeline_does_what_its_literal_form_does(gpu, results, monkeypatch):
    monkeypatch.setenv("RECAM_BENCH_IMAGES", "16")
    monkeypatch.setattr("sys.argv", [str(ROOT / "benchmarks" / "bench_pipeline.py")])
    runpy.run_path(sys.argv[0], run_name="__main__")
    form = json.loads((results / "benchmarks" / "pipeline.json").read_text())["forms"]["literal"]
    assert max(form["differences"].values()) < 2e-3 and form["times_faster_busy"] > 0
