"""Where stages are computed: here, in other processes of this machine, or as Slurm jobs, all through exca.

Nothing of this is part of a stage's settings, so a result is found whoever made it, and where.
"""

import logging
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Literal

import exca
import psutil
import pydantic

from recamlib.errors import RecamError, SettingsError

VARIABLE = "RECAM_CLUSTER"

Work = Literal["images", "training", "whole", "here"]
"""How a stage is sent: as an array of jobs over its images, as a job that trains, as a job, or not at all."""

logging.getLogger("exca.map").setLevel(logging.WARNING)  # its lines hold whole keys


class JobError(RecamError):
    """A job of a cluster failed, or ended without a result."""


def read_cluster(text: str) -> dict[str, Any]:
    """Return the settings of ``slurm,NAME=VALUE,...`` or ``local,...``; names are those of `exca.MapInfra`.

    Of ``slurm_partition`` and the like the end is enough. ``tasks_per_node`` is for trainings alone.

    Raises
    ------
    SettingsError
        If a name or a value is wrong, or there is no Slurm here.

    Examples
    --------
    >>> read_cluster("local,max_jobs=2")
    {'cluster': 'local', 'max_jobs': 2, 'min_samples_per_job': 16, 'timeout_min': 1440}
    """
    kind, *rest = (part.strip() for part in text.split(","))
    if kind not in ("slurm", "local"):
        raise SettingsError(f"the cluster is {kind!r}, expected slurm or local, then ,NAME=VALUE in {text!r}")
    if kind == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise SettingsError("there is no Slurm here (no sbatch, srun on the PATH): leave it out or use local")
    jobs = 64 if kind == "slurm" else os.cpu_count()
    given: dict[str, Any] = {"cluster": kind, "max_jobs": jobs, "min_samples_per_job": 16,
                             "timeout_min": 1440}  # fmt: skip
    for part in rest:
        name, _, value = part.partition("=")
        name = f"slurm_{name}" if f"slurm_{name}" in exca.MapInfra.model_fields else name
        given[name] = [value] if name == "slurm_setup" else value
    if "tasks_per_node" in given:
        given["slurm_use_srun"] = True
    try:
        checked = exca.MapInfra(folder=".", **given)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{name} of " for name in first["loc"])
        raise SettingsError(f"{where}the cluster {text!r}: {first['msg']}") from None
    return {name: getattr(checked, name) for name in given}


def job_settings(work: Work) -> dict[str, Any] | None:
    """Return exca's settings of the jobs a stage is sent as, or None if it is computed in this process.

    A job never sends jobs of its own: one that waits for another could keep it from starting.
    """
    text = os.environ.get(VARIABLE, "")
    if not text or work == "here" or "SUBMITIT_FOLDER" in os.environ:
        return None
    settings = read_cluster(text)
    if work != "training":
        settings.pop("tasks_per_node", None)
    return settings if work == "images" else settings | {"min_samples_per_job": 1}


def cancel(folder: Path) -> None:
    """Stop the jobs whose logs are in a folder; on this machine as Ctrl-C would."""
    for child in psutil.Process().children():
        if str(folder) in child.cmdline():
            child.send_signal(signal.SIGINT)
    if shutil.which("scancel"):
        numbers = [file.name.removesuffix("_submitted.pkl") for file in folder.glob("*_submitted.pkl")]
        subprocess.run(["scancel", *numbers], capture_output=True, check=False)


def job_error(stage: str, error: Exception, folder: Path) -> JobError:
    """Return what a user needs of a failed job: the last line of its error, and where its logs are."""
    parts = re.split(r"^-{10,}$", str(error), flags=re.MULTILINE)  # what submitit puts around a trace
    reason = parts[1].strip().splitlines()[-1] if len(parts) > 2 else " ".join(str(error).split())
    return JobError(f"a job of {stage} failed: {reason}; its logs are in {folder}")
