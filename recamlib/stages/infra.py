"""How stages are computed: exca claims, stores and sends; here is what must hold beyond that."""

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import exca
import psutil
import pydantic
from exca.cachedict import CacheDict, DumpContext
from exca.cachedict.inflight import Liveness, Slurm
from submitit.core.utils import FailedSubmissionError, UncompletedJobError

from recamlib import paths
from recamlib.engine.device import process_group
from recamlib.errors import RecamError, ResultsError, SettingsError
from recamlib.files import storage_errors

# How a stage is sent: as jobs over its images, as a job that trains, as a job, or not at all.
Work = Literal["images", "training", "whole", "here"]

# Its lines hold whole keys; in a notebook that is executed unwatched none may reach the report.
for _name in ("exca", "exca.map"):
    logging.getLogger(_name).setLevel(logging.ERROR if os.environ.get("TQDM_DISABLE") else logging.WARNING)


def read_cluster(text: str) -> dict[str, Any]:
    """Return the settings of ``slurm,NAME=VALUE,...`` or ``local,...``, named as in `exca.MapInfra`."""
    kind, *rest = (part.strip() for part in text.split(","))
    if kind not in ("slurm", "local"):
        raise SettingsError(f"the cluster is {kind!r}, expected slurm or local, then ,NAME=VALUE in {text!r}")
    if kind == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
        raise SettingsError("there is no Slurm here (no sbatch, srun on the PATH): leave it out or use local")
    given: dict[str, Any] = {"cluster": kind, "min_samples_per_job": 16, "timeout_min": 1440}
    given["max_jobs"] = 64 if kind == "slurm" else os.cpu_count()
    for name, _, value in (part.partition("=") for part in rest):
        name = f"slurm_{name}" if f"slurm_{name}" in exca.MapInfra.model_fields else name
        given[name] = [value] if name == "slurm_setup" else value
    if "tasks_per_node" in given:  # exca waits for the first task alone
        raise SettingsError("tasks_per_node: a job is one process; several train together under torchrun")
    try:
        checked = exca.MapInfra(folder=".", **given)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(f"the cluster {text!r}: {*first['loc'], first['msg']}") from None
    return {name: getattr(checked, name) for name in given}


def job_settings(work: Work) -> dict[str, Any] | None:
    """Return exca's settings of the jobs a stage is sent as, or None if it is computed in this process."""
    # a job never sends jobs of its own: one that waits for another could keep it from starting
    text = os.environ.get("RECAM_CLUSTER", "")
    if not text or work == "here" or "SUBMITIT_FOLDER" in os.environ:
        return None
    settings = read_cluster(text)
    return settings if work == "images" else settings | {"min_samples_per_job": 1}


def _cancel(folder: Path) -> None:
    """Stop the jobs whose logs are in a folder; on this machine as Ctrl-C would."""
    for child in psutil.Process().children():
        if str(folder) in child.cmdline():
            child.send_signal(signal.SIGINT)
    if shutil.which("scancel"):
        numbers = [file.name.removesuffix("_submitted.pkl") for file in folder.glob("*_submitted.pkl")]
        subprocess.run(["scancel", *numbers], capture_output=True, check=False)


def job_error(stage: str, error: Exception, folder: Path) -> RecamError:
    """Return what a user needs of a failed job: the last line of its error, and where its logs are."""
    parts = re.split(r"^-{10,}$", str(error), flags=re.MULTILINE)  # what submitit puts around a trace
    reason = parts[1].strip().splitlines()[-1] if len(parts) > 2 else " ".join(str(error).split())
    return RecamError(f"a job of {stage} failed: {reason}; its logs are in {folder}")


class Process(Liveness):
    """A process told from a later one of the same number, and from a zombie; exca's own waits for ever."""

    host: str
    pid: int
    started: float

    @classmethod
    def here(cls) -> "Process | None":
        """Return this process, unless it is a job of Slurm, which exca knows."""
        if Slurm.here() is not None:
            return None
        return cls(host=socket.gethostname(), pid=os.getpid(), started=psutil.Process().create_time())

    def is_alive(self) -> bool | None:
        if self.host != socket.gethostname():
            return None
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - self.started) < 2
        return False


class _Reader(DumpContext):
    """Loads arrays and JSON alone: an index line may name another loader, of pickles say, which runs code."""

    @staticmethod
    def _lookup(name: str) -> Any:
        if name not in ("Auto", "Json", "MemmapArray"):
            raise ResultsError(f"the loader {name!r} is refused, it might run code")
        return DumpContext._lookup(name)

    def cached(self, key: Any, factory: Any) -> Any:
        return factory()  # a map from when another run was writing to the file may end within an entry

    def delete(self, info: Any) -> None:
        pass  # entries share files, and exca removes a file with its last entry


class StageCache(exca.MapInfra):
    """The results of a stage: computed once per key; a damaged one is named and made again."""

    def _factory(self) -> str:  # the folder's name: by the versions of all before it, not by its module
        versions = hashlib.sha256(" ".join(sorted(self._obj.versions())).encode()).hexdigest()[:8]
        return f"{type(self._obj).__name__}-{versions}"

    @property
    def cache_dict(self) -> CacheDict:
        fresh = self._state.cache_dict is None
        cache = super().cache_dict
        if fresh:
            assert cache.folder is not None
            cache._dumper = _Reader(cache.folder)
            for index in cache.folder.glob("*-info.jsonl"):
                _blank_damaged_lines(index)
        return cache

    def _check_configs(self, write: bool = True) -> None:
        try:
            super()._check_configs(write)
        except RuntimeError as error:  # another stage's settings, other defaults, or a damaged file
            reason = " ".join(str(error).split("(this is for")[0].split())
            raise ResultsError(f"delete {self.uid_folder()}, it cannot be used: {reason}") from None

    def _method_override(self, items: Sequence[Any]) -> Iterator[Any]:
        self._compute(items)
        return self._read(list(items))

    def _compute(self, items: Sequence[Any]) -> None:
        """Make what is missing: here, or as jobs after all that it is made from."""
        settings = job_settings(self._obj.work)
        joins = process_group()[0] > 0 and self._obj.work == "training"
        with storage_errors():
            look = settings or joins
            missing = list(self._find_missing({self.item_uid(i): i for i in items}).values()) if look else []
            if missing and joins:  # the first one has the claim and stores; the others train with it
                deque(self._run_method(missing), maxlen=0)
            elif missing:
                self._obj.prepare(missing)
            with self._sent(settings, len(missing)) if missing and settings else nullcontext():
                super()._method_override(items)

    @contextmanager
    def _sent(self, settings: dict[str, Any], count: int) -> Iterator[None]:
        """Put the settings of jobs in for one call; no job outlives an error or an interruption."""
        name = type(self._obj).__name__
        folder = paths.results_dir() / "jobs" / f"{name}-{uuid4().hex[:8]}"
        before = {field: self.__dict__[field] for field in (*settings, "logs")}
        self.__dict__.update(settings, logs=folder)  # past the freeze of the key, which they are no part of
        print(f"{name}: {count} missing, sent to {settings['cluster']}; logs in {folder}")
        try:
            yield
            shutil.rmtree(folder, ignore_errors=True)
        except BaseException as error:
            _cancel(folder)
            if isinstance(error, UncompletedJobError | FailedSubmissionError):
                raise job_error(name, error, folder) from None
            raise
        finally:
            self.__dict__.update(before)

    @contextmanager
    def _work_env(self) -> Iterator[None]:
        place = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
        with super()._work_env():  # which takes all that begins with SLURM_ away
            os.environ.update(place)
            yield

    def _read(self, items: list[Any]) -> Iterator[Any]:
        """Yield the entries in order; at a damaged one all that follow are looked over and made again."""
        for position, item in enumerate(items):
            value = self._entry(item)
            if value is None:
                damaged = [i for i in items[position:] if self._entry(i) is None]
                print(f"{self.uid_folder()}: {len(damaged)} of {len(items)} entries are damaged, made again")
                self.forget(damaged)
                self._compute(damaged)
                value = self.cache_dict[self.item_uid(item)]
            yield value

    def _entry(self, item: Any) -> Any:
        try:
            return self.cache_dict[self.item_uid(item)]
        except Exception:  # whatever numpy and exca say of files that are too short, gone, refused
            return None

    def forget(self, items: Sequence[Any]) -> None:
        cache = self.cache_dict
        with storage_errors(), cache.write():
            for key in {self.item_uid(item) for item in items} & set(cache):
                del cache[key]


def _blank_damaged_lines(index: Path) -> None:
    """Blank lines that are no entries, as exca does deleted ones: for one it refuses the whole index."""

    def is_entry(line: bytes) -> bool:
        with suppress(ValueError, TypeError):
            return not line.strip() or "#key" in json.loads(line)
        return False

    *lines, end = index.read_bytes().split(b"\n")
    good = [line if is_entry(line) else b" " * len(line) for line in lines]
    if good != lines:
        damaged = sum(one != other for one, other in zip(lines, good))
        print(f"{index} has {damaged} damaged lines; what they stood for is made again")
        with index.open("rb+") as file:
            file.write(b"\n".join([*good, end]))
