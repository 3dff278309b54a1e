"""Where stages are computed: here, in other processes of this machine, or as Slurm jobs.

Nothing of this is part of a stage's settings, so a result is found whoever made it, and where.
"""

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import pydantic
import torch

from recamlib.engine.processes import in_group
from recamlib.errors import SettingsError
from recamlib.files import read_yaml
from recamlib.method.crf import default_processes
from recamlib.stages.base import Settings

VARIABLE = "RECAM_CLUSTER"
_GPUS = "RECAM_GPUS"  # what a job on this machine may use

Work = Literal["images", "training", "whole", "here"]
"""How a stage is sent, as an array of jobs over its images, as one job that trains in one or several
processes, as one job, or not at all."""


class Cluster(Settings):
    """Where jobs go and what each of them asks for.

    ``jobs`` is the size of an array at most, ``images`` what is worth a job of it at least; ``minutes`` is
    the limit of one job. ``cpus``, ``memory_gb`` and ``gpu`` are of one process: a job that trains in several
    asks for as many times that. ``setup`` are shell commands before a job starts.
    """

    kind: Literal["slurm", "local"]
    jobs: int = pydantic.Field(64, ge=1)
    images: int = pydantic.Field(16, ge=1)
    minutes: int = pydantic.Field(1440, ge=1)
    cpus: int | None = pydantic.Field(None, ge=1)
    memory_gb: float | None = pydantic.Field(None, gt=0)
    gpu: bool = False
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    setup: tuple[str, ...] = ()

    def __init__(self, **data: Any) -> None:
        if data.get("kind") == "local":
            data.setdefault("jobs", max(1, default_processes()))  # they all start at once
        super().__init__(**data)

    def job(self, work: Work, *, processes: int) -> dict[str, Any]:
        """Return exca's settings of the jobs of one stage."""
        times = processes if work == "training" else 1
        asked = {
            "cpus_per_task": self.cpus and times * self.cpus,
            "mem_gb": self.memory_gb and times * self.memory_gb,
            "gpus_per_node": times if self.gpu else None, "slurm_setup": list(self.setup) or None,
            "slurm_partition": self.partition, "slurm_account": self.account, "slurm_qos": self.qos,
            "slurm_constraint": self.constraint,
        }  # fmt: skip
        return {
            "cluster": self.kind, "max_jobs": self.jobs, "timeout_min": self.minutes,
            "min_samples_per_job": self.images if work == "images" else 1,
            **(asked if self.kind == "slurm" else {}),
        }  # fmt: skip


def read_cluster(text: str) -> Cluster:
    """Return a cluster from ``KIND,NAME=VALUE,...`` or ``FILE.yml,NAME=VALUE,...``.

    Raises
    ------
    SettingsError
        If a name, a value or the file is wrong, or the cluster cannot be reached from here.

    Examples
    --------
    >>> read_cluster("local,jobs=2").job("images", processes=1)["max_jobs"]
    2
    """
    first, *rest = (part.strip() for part in text.split(","))
    given = {"kind": first}
    if first.endswith((".yml", ".yaml")):
        given = read_yaml(Path(first).expanduser())
        if not isinstance(given, dict) or "kind" not in given:
            raise SettingsError(f"{first} must be a table of settings, with kind slurm or local")
    for part in rest:
        name, equals, value = part.partition("=")
        if not equals:
            raise SettingsError(f"a cluster is KIND or FILE.yml, then NAME=VALUE, not {part!r} in {text!r}")
        given[name.strip()] = (value,) if name.strip() == "setup" else value.strip()
    cluster = Cluster(**given)
    if cluster.kind == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise SettingsError("there is no Slurm here (no sbatch, srun on the PATH): leave it out or use local")
    return cluster


def job_settings(work: Work, *, processes: int) -> dict[str, Any] | None:
    """Return exca's settings of the jobs a stage is sent as, or None if it is computed in this process.

    A job never sends jobs of its own: one that waits for another could keep it from starting. Nor does a
    process that trains together with others.
    """
    text = os.environ.get(VARIABLE, "")
    if not text or work == "here" or in_job() or in_group():
        return None
    return read_cluster(text).job(work, processes=processes)


def in_job() -> bool:
    """Return whether this process is a job, or was started by one."""
    return "SUBMITIT_FOLDER" in os.environ


def offer_gpus() -> None:
    """Write down which GPUs jobs on this machine may use: they start with none to be seen."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ[_GPUS] = ",".join(map(str, range(torch.cuda.device_count()))) if visible is None else visible


def take_gpus(work: Work) -> None:
    """Let a job on this machine see the GPUs it may use; one of many sees one, which it has to itself.

    A job waits while there are more jobs than GPUs. Before anything has touched a GPU.
    """
    gpus = [name for name in os.environ.get(_GPUS, "").split(",") if name]
    while work == "images" and len(gpus) > 1:
        for name in gpus:
            lock = open(Path(tempfile.gettempdir()) / f"recam-gpu-{os.getuid()}-{name}", "w")  # noqa: SIM115
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.close()
                continue
            _held.append(lock)  # until the job ends, however it ends
            gpus = [name]
            break
        else:
            time.sleep(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)


_held: list[Any] = []
