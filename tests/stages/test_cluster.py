"""Where stages go: settings that are checked, errors that say why."""

import os

import pytest
from submitit.core.utils import FailedJobError, UncompletedJobError

from recamlib.errors import SettingsError
from recamlib.stages.infra import job_error, job_settings, read_cluster


def test_settings_of_jobs_come_from_one_text(tmp_path, monkeypatch):
    for name in ("sbatch", "srun"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    text = "slurm,partition=gpu,gpus_per_node=2,mem_gb=8.5,max_jobs=9,setup=module load cuda"
    monkeypatch.setenv("RECAM_CLUSTER", text)
    wanted = {"slurm_partition": "gpu", "slurm_setup": ["module load cuda"], "gpus_per_node": 2}
    assert job_settings("training").items() >= (wanted | {"mem_gb": 8.5, "min_samples_per_job": 1}).items()
    assert job_settings("images").items() >= {"max_jobs": 9, "min_samples_per_job": 16}.items()


@pytest.mark.parametrize("text, message", [
    ("slrum", "slrum"), ("local,partion=gpu", "partion"), ("local,max_jobs=many", "max_jobs"),
    ("local,tasks_per_node=2", "tasks_per_node"), ("local,gpu", "gpu"),
])  # fmt: skip
def test_wrong_settings_are_named(text, message):
    with pytest.raises(SettingsError, match=message):
        read_cluster(text)


def test_a_job_sends_no_jobs_and_the_command_line_looks_for_slurm_first(recam, monkeypatch):
    monkeypatch.setenv("RECAM_CLUSTER", "local")
    assert job_settings("images")["cluster"] == "local" and job_settings("here") is None
    monkeypatch.setenv("SUBMITIT_FOLDER", "/somewhere")
    assert job_settings("images") is None
    monkeypatch.setenv("PATH", "")
    shown = recam("run", "02", "--cluster", "slurm")
    assert shown.exit_code == 1 and "there is no Slurm here" in shown.output


def test_errors_of_jobs_say_why_and_where_the_logs_are(tmp_path):
    dashes = "-" * 22
    trace = f"Traceback ...\nrecamlib.errors.DataError: 000001 is damaged\n\n{dashes}\nat paths:"
    shown = str(job_error("Walk", FailedJobError(f"Job failed:\n{dashes}\n{trace}"), tmp_path))
    assert shown.startswith("a job of Walk failed: recamlib.errors.DataError: 000001 is damaged; its logs")
    assert shown.endswith(str(tmp_path))
    gone = f"Job 7_1 with path {tmp_path}/7_1_0_result.pkl\nno output (state: OUT_OF_MEMORY)"
    assert "(state: OUT_OF_MEMORY)" in str(job_error("Walk", UncompletedJobError(gone), tmp_path))
