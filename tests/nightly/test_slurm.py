"""Stages as jobs of a real Slurm on this machine: same bytes, logs that reach the user."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

import recamlib as rc
from recamlib.book.run import NotebookError, run_notebook
from recamlib.stages.infra import StageCache
from tests.stages import chain

SCRIPT = Path(__file__).with_name("slurm_daemons.sh")
DATA = {"train_count": 10, "val_count": 6, "size": 48}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory) -> Iterator[Path]:
    """A Slurm of one node; all of its processes are gone afterwards."""
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([SCRIPT, "start", folder], capture_output=True, text=True)
    try:
        if started.returncode:
            pytest.skip(f"no Slurm could be started: {(started.stdout + started.stderr).strip()}")
        os.environ["SLURM_CONF"] = started.stdout.strip().removeprefix("SLURM_CONF=")
        yield folder
    finally:
        os.environ.pop("SLURM_CONF", None)
        pids = [int(file.read_text()) for file in folder.glob("*.pid")]
        subprocess.run([SCRIPT, "stop", folder], check=True, timeout=60)
    assert len(pids) == 3 and not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.fixture
def results(slurm, tmp_path, monkeypatch) -> Path:
    """An empty results folder, and stages sent to Slurm."""
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    settings = "partition=short,timeout_min=10,min_samples_per_job=5,cpus_per_task=1"
    monkeypatch.setenv("RECAM_CLUSTER", f"slurm,{settings}")
    return tmp_path / "results"


def classifier() -> rc.TrainClassifier:
    return chain.classifier(dataset=rc.DataSettings(**DATA), epochs=10, crop=32)


def maps() -> rc.ExtractCams:
    return chain.cams(classifier())


def entries(stage: rc.ExtractCams) -> list:
    requests = [("train", name) for name in stage.images("train").ids]
    return [(item["classes"], [m.tobytes() for m in item["scales"]]) for item in stage.items(requests)]


def jobs() -> list[str]:
    asked = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]


def test_jobs_give_the_bytes_of_a_local_run(results, monkeypatch, tmp_path):
    trained = classifier().result
    sent = entries(maps())
    array = [line for line in jobs() if "_" in line]
    assert len(array) == 2, "not an array of five images a job"
    assert not list((results / "jobs").iterdir()), "logs of what went well are cleared away"

    monkeypatch.delenv("RECAM_CLUSTER")
    with monkeypatch.context() as closed:  # what jobs made is found by a run without them
        closed.setattr(StageCache, "_call_and_store", None)
        assert entries(maps()) == sent
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "local"))
    assert classifier().result["weights"] == trained["weights"] and entries(maps()) == sent


def test_the_log_of_a_failed_job_reaches_the_error_of_the_notebook(results, tmp_path, monkeypatch):
    settings = f"dataset=rc.DataSettings(**{DATA}), epochs=1, batch_size=4, crop=32, lr=1e30, momentum=0.9"
    cells = [
        nbformat.v4.new_code_cell('profile: str = "smoke"  # [smoke]', metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(f"import recamlib as rc\nrc.TrainClassifier({settings}).result"),
    ]
    (tmp_path / "notebooks" / "profiles").mkdir(parents=True)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "notebooks" / "07_fails.ipynb")
    with pytest.raises(NotebookError, match="RecamError: a job of TrainClassifier failed:.*the loss became"):
        run_notebook("07", folder=tmp_path / "notebooks", output_dir=tmp_path)
    (log,) = (results / "jobs").glob("TrainClassifier-*/*_log.err")
    assert "TrainingError" in log.read_text()
    assert str(log.parent) in (tmp_path / "07_fails.failed.ipynb").read_text()


def test_processes_of_this_machine_give_the_bytes_of_one(tmp_path, monkeypatch):
    data = rc.DataSettings(**DATA)
    requests = [("train", name) for name in data.images("train").ids]
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "one"))
    here = [item["png"].tobytes() for item in rc.SaliencyMaps(dataset=data).items(requests)]
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "two"))
    monkeypatch.setenv("RECAM_CLUSTER", "local,max_jobs=2,min_samples_per_job=5")
    stage = rc.SaliencyMaps(dataset=data)
    assert [item["png"].tobytes() for item in stage.items(requests)] == here
    assert len(list(stage.folder.glob("*-info.jsonl"))) == 2, "one index a job"
    assert stage.folder.name == rc.SaliencyMaps(dataset=data, infra={"cluster": None}).folder.name
    assert not any((tmp_path / "two" / "jobs").iterdir())
