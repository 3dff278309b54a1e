"""How stages are computed: exca stores and claims, one entry per key; here is what must hold beyond that."""

import hashlib
import json
import os
import shutil
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

import exca
import psutil
from exca.cachedict import CacheDict, DumpContext
from exca.cachedict.inflight import InflightRegistry, Liveness, Pid, WorkerInfo
from submitit.core.utils import FailedSubmissionError, UncompletedJobError

from recamlib import paths
from recamlib.engine.device import process_group
from recamlib.errors import ResultsError
from recamlib.files import storage_errors
from recamlib.stages.cluster import Work, cancel, job_error, job_settings


class Process(Liveness):
    """A process told from a later one of the same number, as after a restart, and from one that is a zombie.

    exca's own kind knows neither: in a container, a claim of a killed run would be waited for for ever.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def here(cls) -> None:
        """Leave exca's own detection as it is."""

    def is_alive(self) -> bool | None:
        """Return whether it runs; None if it is another machine's."""
        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 2
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


class _Reader(DumpContext):
    """Loads arrays and JSON alone: an index line may name another loader, of pickles say, which runs code."""

    @staticmethod
    def _lookup(name: str) -> Any:
        if name not in ("Auto", "Json", "MemmapArray"):
            raise ResultsError(f"the loader {name!r} is refused, it might run code")
        return DumpContext._lookup(name)

    def cached(self, key: Any, factory: Any) -> Any:
        """Map a file anew: one that was mapped while another run wrote to it ends within an entry."""
        return factory()

    def delete(self, info: Any) -> None:
        """Do nothing: entries share files, and exca removes a file with its last entry."""


class StageCache(exca.MapInfra):
    """The results of a stage: computed once per key; a damaged one is named and made again.

    ``work`` says how the stage is sent to a cluster (:mod:`recamlib.stages.cluster`); like the cluster, it is
    no part of the key.
    """

    work: Work = "images"

    def _factory(self) -> str:
        """Name the folder by the versions of the stage and of all it is made from, not by its module."""
        versions = hashlib.sha256(" ".join(sorted(self._obj.versions())).encode()).hexdigest()[:8]
        return f"{type(self._obj).__name__}-{versions}"

    @property
    def cache_dict(self) -> CacheDict:
        """The entries of this stage."""
        fresh = self._state.cache_dict is None
        cache = super().cache_dict
        if fresh:
            assert cache.folder is not None
            cache._dumper = _Reader(cache.folder)
            _blank_damaged_lines(cache.folder)
        return cache

    def _inflight_registry(self) -> InflightRegistry:
        live = Liveness.here()
        if isinstance(live, Pid):
            started = psutil.Process(live.pid).create_time()
            live = Process(host=live.host, pid=live.pid, started=started)
        folder = self.uid_folder()
        assert folder is not None and live is not None
        return InflightRegistry(folder, WorkerInfo(uuid4().hex, live))

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
        settings = job_settings(self.work)
        joins = process_group()[0] > 0 and self.work == "training"
        with storage_errors():
            look = settings or joins
            missing = list(self._find_missing({self.item_uid(i): i for i in items}).values()) if look else []
            if missing and joins:  # before the first one, which has the claim, is waited for
                self._call_and_store(missing)
            elif missing:
                self._obj.prepare(missing)
            with self._sent(settings, len(missing)) if missing and settings else nullcontext():
                super()._method_override(items)

    def _call_and_store(self, items: Sequence[Any], use_cache_dict: bool = True) -> dict[str, Any]:
        if process_group()[0] > 0 and self.work == "training":  # of several, the first one stores
            deque(self._run_method(items), maxlen=0)
            return {}
        return super()._call_and_store(items, use_cache_dict)

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
            cancel(folder)
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
        """Return the entry of an item, or None if it cannot be read."""
        try:
            return self.cache_dict[self.item_uid(item)]
        except Exception:  # whatever numpy and exca say of files that are too short, gone, refused
            return None

    def forget(self, items: Sequence[Any]) -> None:
        """Remove the entries of some items, where there are any."""
        cache = self.cache_dict
        with storage_errors(), cache.write():
            for key in {self.item_uid(item) for item in items} & set(cache):
                del cache[key]


def _blank_damaged_lines(folder: Path) -> None:
    """Blank index lines that are no entries, as exca blanks deleted ones; what they stood for is made again.

    exca refuses a whole index for one such line. A last line without an end is being written, or never was.
    """
    for index in folder.glob("*-info.jsonl"):
        lines = index.read_bytes().split(b"\n")
        damaged = [number for number, line in enumerate(lines[:-1]) if not _is_entry(line)]
        if damaged:
            print(f"{index} has {len(damaged)} damaged lines; what they stood for is made again")
            for number in damaged:
                lines[number] = b" " * len(lines[number])
            with index.open("rb+") as file:
                file.write(b"\n".join(lines))


def _is_entry(line: bytes) -> bool:
    try:
        return not line.strip() or isinstance(json.loads(line)["#key"], str)
    except (ValueError, LookupError, TypeError):
        return False
