"""Where stages go: settings that are checked, errors that say why."""

import os

import pytest
from submitit.core.utils import FailedJobError, UncompletedJobError
from typer.testing import CliRunner

from recamlib.cli import app
from recamlib.errors import SettingsError
from recamlib.stages.infra import job_error, job_settings, read_cluster


@pytest.fixture
def programs(tmp_path, monkeypatch) -> None:
    for name in ("sbatch", "srun"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")


def test_settings_of_jobs_come_from_one_text(programs, monkeypatch):
    text = "slurm,partition=gpu,gpus_per_node=2,mem_gb=8.5,max_jobs=9,setup=module load cuda"
    monkeypatch.setenv("RECAM_CLUSTER", text)
    training, images = job_settings("training"), job_settings("images")
    assert (training["slurm_partition"], training["slurm_setup"]) == ("gpu", ["module load cuda"])
    assert (training["gpus_per_node"], training["mem_gb"]) == (2, 8.5)
    assert (images["max_jobs"], images["min_samples_per_job"], training["min_samples_per_job"]) == (9, 16, 1)


@pytest.mark.parametrize("text, message", [
    ("slrum", "slrum"), ("local,partion=gpu", "partion"), ("local,max_jobs=many", "max_jobs"),
    ("local,tasks_per_node=2", "tasks_per_node"), ("local,gpu", "gpu"),
])  # fmt: skip
def test_wrong_settings_are_named(text, message):
    with pytest.raises(SettingsError, match=message):
        read_cluster(text)


def test_the_command_line_checks_before_anything_runs(monkeypatch):
    monkeypatch.setenv("PATH", "")
    shown = CliRunner().invoke(app, ["run", "02", "--cluster", "slurm"])
    assert shown.exit_code == 1 and "there is no Slurm here" in shown.output


def test_a_job_sends_no_jobs_and_counting_stays_here(monkeypatch):
    monkeypatch.setenv("RECAM_CLUSTER", "local")
    assert job_settings("images")["cluster"] == "local" and job_settings("here") is None
    monkeypatch.setenv("SUBMITIT_FOLDER", "/somewhere")
    assert job_settings("images") is None


def test_errors_of_jobs_say_why_and_where_the_logs_are(tmp_path):
    dashes = "-" * 22
    trace = f"Traceback ...\nrecamlib.errors.DataError: 000001 is damaged\n\n{dashes}\nat paths:"
    shown = str(job_error("Walk", FailedJobError(f"Job failed:\n{dashes}\n{trace}"), tmp_path))
    assert shown.startswith("a job of Walk failed: recamlib.errors.DataError: 000001 is damaged; its logs")
    assert shown.endswith(str(tmp_path))
    gone = f"Job 7_1 with path {tmp_path}/7_1_0_result.pkl\nno output (state: OUT_OF_MEMORY)"
    assert "(state: OUT_OF_MEMORY)" in str(job_error("Walk", UncompletedJobError(gone), tmp_path))
