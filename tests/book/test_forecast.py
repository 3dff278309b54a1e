"""What `recam plan` says: the stages that a notebook runs, work by the stated rule, time from records."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from recamlib import paths
from recamlib.book import forecast, profiles
from recamlib.book import run as runner
from recamlib.book.planned import planned_stages
from recamlib.book.upstream import jobs_of
from recamlib.book.workload import activation_bytes, backbone_flops, work_of
from recamlib.cli import app

TINY = {"train_images": 24, "epochs": 1, "reactivation_epochs": 1, "seeds": [0]}
CPU, GPU = "cpu (x86_64, 2 threads)", "NVIDIA something"


def entry(kind, *, rate=2.0, device=CPU, backbone="", precision="", **more):
    common = {"work": 10.0, "seconds": 10.0 * rate, "units": 1.0, "bytes": 5.0, "activations": 0, "items": 1}
    named = {"kind": kind, "device": device, "backbone": backbone, "precision": precision}
    return common | named | {"peak_memory_mib": 900.0, "notebook": "03", "profile": "smoke"} | more


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setattr(paths, "book_dir", lambda: tmp_path)
    monkeypatch.setattr(forecast.paths, "book_dir", lambda: tmp_path)
    (tmp_path / "measured").mkdir()
    return tmp_path


def test_a_plan_names_the_stages_that_the_notebook_runs_and_no_others(place):
    before = jobs_of(planned_stages("02", profile="smoke", extra=TINY))
    assert all(forecast.recorded(job) is None for job in before)
    assert not list((place / "results").rglob("*.jsonl"))  # planning makes no cache
    runner.run_notebook("02", parameters=TINY, output_dir=place / "executed", progress=False)
    folders = {file.parent for file in (place / "results" / "stages").rglob("config.yaml")}
    assert {job.stage.infra.uid_folder() for job in before} == folders
    for job in jobs_of(planned_stages("02", profile="smoke", extra=TINY)):
        assert forecast.recorded(job)["items"] == len(job.items) > 0
    entries = forecast.entries_of("smoke", ["02"], extra=TINY)
    frame = forecast.forecast(["02"], profile="smoke", extra=TINY, entries=entries)
    assert (frame["done"] == 1).all() and (frame["left"] == 0).all()
    found = forecast.check(frame)
    assert 0.2 < found.loc["all", "ratio"] < 5  # medians of the same records, on a machine that may be busy
    (place / "measured" / "costs.json").write_text(json.dumps({"entries": entries}))
    kept = json.loads(forecast.keep_check(frame, what="this").read_text())
    assert kept["rows"][-1]["stage"] == "all" and kept["from"] == ["02 smoke"]


@pytest.mark.parametrize("notebook", [path.stem for path in profiles.list_notebooks()])
@pytest.mark.parametrize("profile", ["voc12", "coco14"])
def test_every_notebook_can_be_planned_without_its_data(place, notebook, profile):
    extra = {"sections": ["sign", "walk", "methods"]} if notebook.startswith("06") else {}
    jobs = jobs_of(planned_stages(notebook, profile=profile, nominal=True, extra=extra))
    assert len({job.stage.infra.uid() for job in jobs}) == len(jobs) > 5
    assert all(work_of(job) > 0 for job in jobs if not job.backbone.startswith(("timm/", "upernet")))


def test_the_full_profiles_train_networks_for_their_own_steps(place):
    jobs = jobs_of(planned_stages("04", profile="voc12", nominal=True))
    assert {job.stage.steps for job in jobs if job.kind == "TrainSegmenter"} == {20_000, 40_000}


def test_work_is_in_proportion_to_what_the_rule_says(place):
    def work(kind, **more):
        jobs = jobs_of(planned_stages("03", profile="smoke", extra={"climb_images": 0, **more}))
        return next(work_of(job) for job in jobs if job.kind == kind)

    for kind, changes, times in (
        ("TrainClassifier", {"epochs": 8}, 2), ("TrainClassifier", {"crop": 192}, 4),
        ("ExtractCams", {"scales": [1.0, 2.0]}, 5), ("Walk", {"train_images": 256}, 2),
    ):  # fmt: skip
        assert work(kind, **changes) / work(kind) == pytest.approx(times, rel=0.05), kind
    # two operations for each of the 4.1e9 products that ResNet-50 is known for
    assert backbone_flops("resnet50", 32, (224, 224)) == pytest.approx(8.2e9, rel=0.02)
    one, four = (activation_bytes("resnet_small", 16, (side, side)) for side in (64, 128))
    assert four / one == pytest.approx(4, rel=0.03)


def test_rates_come_from_the_nearest_record_and_say_so(place):
    jobs = {job.kind: job for job in jobs_of(planned_stages("03", profile="smoke"))}
    job, walk = jobs["TrainClassifier"], jobs["Walk"]
    own = entry("TrainClassifier", backbone="resnet_small", precision="32-true")
    other = entry("TrainClassifier", backbone="resnet50", precision="32-true", rate=7.0)
    half = entry("TrainClassifier", backbone="resnet_small", precision="bf16-mixed", rate=5.0)
    passes = entry("ExtractCams", backbone="resnet_small", rate=3.0)
    for entries, rate, basis in (
        ([own, other, half], 2.0, "measured"), ([other, half], 5.0, "measured, other precision"),
        ([other, passes], 7.0, "measured with another backbone"),
        ([passes], 3.0, "measured on other passes of networks"),
    ):  # fmt: skip
        seconds, said = forecast.Rates(entries).seconds(job)
        assert (seconds, said) == (pytest.approx(rate * work_of(job)), basis)
    assert forecast.Rates([own]).seconds(walk)[1] == "never measured"
    assert np.isnan(forecast.Rates([own]).seconds(walk)[0])
    on_gpu = forecast.Rates([own, entry("Walk")], gpu=True)
    assert on_gpu.seconds(job)[1] == "assumed: the paper's hours"
    assert on_gpu.seconds(walk) == (pytest.approx(2 * work_of(walk)), "measured, on the processor")
    assert forecast.Rates([own | {"device": GPU}], gpu=True).seconds(job)[1] == "measured"
    assert forecast.Rates([own | {"device": GPU}]).seconds(job)[1] == "never measured"


def test_the_papers_hours_imply_one_rate_for_both_data_sets():
    assert forecast.paper_rate("voc12") == pytest.approx(forecast.paper_rate("coco14"), rel=0.3)


def test_the_command_adds_up_divides_by_gpus_and_names_the_nearest(place):
    run = CliRunner().invoke
    missing = run(app, ["plan", "03"])
    assert missing.exit_code == 1 and "recam keep costs" in missing.output
    costs = {"date": "2026-01-02", "versions": {}, "entries": [entry("TrainClassifier", rate=1e-9)]}
    (place / "measured" / "costs.json").write_text(json.dumps(costs))
    one, eight = (run(app, ["plan", "03", "--profile", "coco14", "--gpus", n]) for n in "18")
    assert one.exit_code == eight.exit_code == 0, eight.output
    assert "on 8 GPUs that share it evenly" in eight.output and "official numbers" in eight.output
    frames = [forecast.forecast(["03"], profile="coco14", gpus=n, nominal=True)["left"].sum() for n in (1, 8)]
    assert frames[0] / frames[1] == pytest.approx(8)
    for words, hint in (
        (["plan", "--profile", "coc14"], "did you mean 'coco14'?"),
        (["plan", "02_table1_ablation"], "did you mean '02_table1_ablations'?"),
        (["plan", "02", "-p", "epoch=3"], "did you mean 'epochs'?"),
    ):
        found = run(app, words)
        assert found.exit_code == 1 and hint in found.output.replace("\n", " "), found.output
    nothing = run(app, ["plan", "02", "--keep"])
    assert nothing.exit_code == 1 and "has run here" in nothing.output
    assert "no stage of profile smoke has run" in run(app, ["keep", "costs", "--profile", "smoke"]).output
