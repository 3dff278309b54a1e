"""Where stages go: settings that are checked, jobs that are known to have ended, errors that say why."""

import os
import time
from pathlib import Path

import pytest
from submitit.core.utils import FailedJobError, FailedSubmissionError, UncompletedJobError
from typer.testing import CliRunner

from recamlib import stages as rc
from recamlib.cli import app
from recamlib.errors import SettingsError
from recamlib.stages import cluster as clusters
from recamlib.stages.cluster import Cluster, job_settings, read_cluster
from recamlib.stages.jobs import SlurmStates, job_error

DATA = rc.DataSettings(train_count=10, val_count=6, size=48)


def program(folder: Path, name: str, *lines: str) -> None:
    """Write a shell script that stands for a program of Slurm."""
    (folder / name).write_text("\n".join(["#!/bin/sh", *lines, ""]))
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """A folder of such programs, first on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    for name in ("sbatch", "srun"):
        program(tmp_path, name, "exit 1")
    return tmp_path


def test_settings_of_jobs_come_from_one_text_or_a_file(programs, tmp_path):
    asked = read_cluster("slurm,partition=gpu,gpu=true,cpus=4,memory_gb=8,minutes=60,jobs=9").job(
        "training", processes=2
    )
    assert asked["slurm_partition"] == "gpu"
    assert (asked["gpus_per_node"], asked["cpus_per_task"], asked["mem_gb"]) == (2, 8, 16)
    (tmp_path / "site.yml").write_text("kind: slurm\ncpus: 4\nsetup:\n- module load cuda\n")
    array = read_cluster(f"{tmp_path / 'site.yml'},jobs=9,images=3").job("images", processes=2)
    assert (array["max_jobs"], array["min_samples_per_job"], array["cpus_per_task"]) == (9, 3, 4)
    assert array["slurm_setup"] == ["module load cuda"]
    assert not any(name.startswith("slurm") for name in Cluster(kind="local").job("images", processes=1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slrum", "should be 'slurm' or 'local'"),
        ("local,partion=gpu", "no setting 'partion' .did you mean 'partition'"),
        ("local,jobs=many", "Cluster.jobs: .*integer"),
        ("local,jobs=0", "Cluster.jobs: .*greater than or equal to 1"),
        ("local,gpu", "NAME=VALUE, not 'gpu'"),
        ("nowhere.yml", "cannot be read as YAML"),
    ],
)
def test_wrong_settings_are_named(text, message):
    with pytest.raises(SettingsError, match=message):
        read_cluster(text)


def test_the_command_line_checks_before_anything_runs(monkeypatch):
    monkeypatch.setenv("PATH", "")
    shown = CliRunner().invoke(app, ["run", "02", "--cluster", "slurm"])
    assert shown.exit_code == 1
    assert "there is no Slurm here" in shown.output


def test_a_job_sends_no_jobs_and_counting_stays_here(monkeypatch):
    monkeypatch.setenv("RECAM_CLUSTER", "local")
    assert job_settings("images", processes=1)["cluster"] == "local"
    assert job_settings("here", processes=1) is None
    monkeypatch.setenv("SUBMITIT_FOLDER", "/somewhere")
    assert job_settings("images", processes=1) is None


def test_processes_of_this_machine_give_the_bytes_of_one(tmp_path, monkeypatch):
    requests = [("train", name) for name in DATA.images("train").ids]
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "one"))
    here = [item["png"].tobytes() for item in rc.SaliencyMaps(dataset=DATA).make(requests)]
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "two"))
    monkeypatch.setenv("RECAM_CLUSTER", "local,jobs=2,images=5")
    stage = rc.SaliencyMaps(dataset=DATA)
    assert [item["png"].tobytes() for item in stage.make(requests)] == here
    assert len(list(stage.folder.glob("*-info.jsonl"))) == 2, "one index a job"
    assert stage.folder.name == rc.SaliencyMaps(dataset=DATA, infra={"cluster": None}).folder.name
    assert not any((tmp_path / "two" / "jobs").iterdir())


@pytest.mark.parametrize("accounting", [True, False])
def test_a_job_that_ended_without_a_result_is_not_waited_for(programs, accounting):
    rows = "JobID|State|NodeList\n7_0|RUNNING|a\n7_1|FAILED|a"
    program(programs, "sacct", f"printf '{rows}'" if accounting else "exit 1")
    program(programs, "squeue", "echo '7_0|RUNNING'; echo '7_1|FAILED'")
    states = SlurmStates(delay_s=0)
    assert not states.is_done("7_0", mode="force")
    time.sleep(0.01)
    assert states.is_done("7_1", mode="force")
    if not accounting:
        program(programs, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
        time.sleep(0.01)
        assert states.is_done("7_0", mode="force"), "no longer in the queue"


def test_a_controller_that_does_not_answer_ends_no_job(programs):
    program(programs, "sacct", "exit 1")
    program(programs, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert not SlurmStates(delay_s=0).is_done("7", mode="force")


def test_errors_of_jobs_say_why_and_where_the_log_is(tmp_path):
    log = tmp_path / "7_1_0_log.err"
    log.write_text("\n".join(f"line {i}" for i in range(99)))
    dashes = "-" * 22
    trace = f"Traceback ...\nrecamlib.errors.DataError: 000001 is damaged\n\n{dashes}\nat paths:\n  - {log}"
    shown = str(job_error("Walk", FailedJobError(f"Job failed:\n{dashes}\n{trace}"), tmp_path))
    assert shown.startswith(f"job 7_1 of Walk failed: errors.DataError: 000001 is damaged; its log is {log}")
    assert shown.endswith("line 98")
    gone = f"Job 7_1 with path {tmp_path}/7_1_0_result.pkl\nno output (state: OUT_OF_MEMORY)"
    assert "in state OUT_OF_MEMORY" in str(job_error("Walk", UncompletedJobError(gone), tmp_path))
    refused = job_error("Walk", FailedSubmissionError("sbatch: no"), tmp_path)
    assert "were not accepted: sbatch: no" in str(refused)


def test_each_of_many_jobs_on_one_machine_takes_a_gpu_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(clusters.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("RECAM_GPUS", "4,5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(clusters, "_held", [])
    taken = []
    for _ in range(2):
        clusters.take_gpus("images")
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ["4", "5"]
    clusters.take_gpus("training")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,5"
    clusters._held.pop(0).close()  # a job ends
    clusters.take_gpus("images")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4"
