"""How stages are computed: once per key, by one process at a time, checked when read, mended if damaged."""

import os
import shutil
import signal
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import exca.map
import psutil
from exca.cachedict.inflight import InflightRegistry, Liveness, Pid, WorkerInfo
from submitit.core.utils import FailedSubmissionError, UncompletedJobError

from recamlib import paths
from recamlib.engine.processes import even_share, group_size, in_group, rank, run_together, wanted_processes
from recamlib.engine.progress import bar
from recamlib.errors import ResultsError
from recamlib.files import storage_errors
from recamlib.stages.cache import CheckedCache, DamagedEntry
from recamlib.stages.cluster import Work, in_job, job_settings, offer_gpus, take_gpus
from recamlib.stages.jobs import cancel, job_error

_STALE = 10  # seconds after which a part file of exca's is nobody's


class Process(Liveness):
    """A process told from a later one of the same number, as after a restart, by its time of start."""

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


class _Claims(InflightRegistry):
    """Who computes what; claims of processes that are dead are cleared away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.jobs: list[Liveness] = []

    def update_liveness(self, item_uids: list[str], liveness: Liveness) -> None:
        """Note the job that items were sent to."""
        super().update_liveness(item_uids, liveness)
        self.jobs.append(liveness)

    def release(self, item_uids: list[str]) -> None:
        """Remove own claims, and those of dead processes."""
        super().release(item_uids)
        self.clear_dead()

    def clear_dead(self) -> None:
        """Remove claims that a killed run left, on what it had completed as well."""
        dead: dict[WorkerInfo, list[str]] = {}
        for uid, worker in self.get().items():
            dead.setdefault(worker, []).append(uid)
        for worker, uids in dead.items():
            if not worker.is_alive():
                with InflightRegistry(self.db_path.parent, worker=worker) as others:
                    others.release(uids)


def _counted(items: Sequence[Any], total: int | None = None) -> Iterable[Any]:
    """Return items under a bar, if there are several."""
    count = len(items) if total is None else total
    return bar(items, total=count, desc="images") if count > 1 else items


exca.map._set_tqdm = _counted  # exca's own is text on stderr, in a notebook too


class StageCache(exca.MapInfra):
    """What a stage keeps: computed once per key, checked whenever it is read.

    ``work`` says how the stage is sent to a cluster (:mod:`recamlib.stages.cluster`); like the cluster, it is
    no part of the key.
    """

    work: Work = "images"

    @property
    def cache_dict(self) -> CheckedCache:
        """The entries of this stage."""
        state = self._state
        if state.cache_dict is None:
            kind = self._infra_method.cache_type
            state.cache_dict = CheckedCache(self.uid_folder(create=True), self.keep_in_ram, kind)
        return state.cache_dict

    def _inflight_registry(self) -> InflightRegistry:
        live = Liveness.here()
        if isinstance(live, Pid):
            started = psutil.Process(live.pid).create_time()
            live = Process(host=live.host, pid=live.pid, started=started)
        claims = _Claims(self.uid_folder(), WorkerInfo(os.urandom(16).hex(), live))
        self._state.claims = claims  # exca's scratch space, which is no part of a pickle
        return claims

    def _check_configs(self, write: bool = True) -> None:
        if not self._state.checked_configs:
            for part in self.uid_folder(create=True).glob("save-tmp-*"):  # left by a killed run
                if time.time() - part.stat().st_mtime > _STALE:
                    part.unlink(missing_ok=True)
            with self._inflight_registry() as claims:
                if os.access(claims.db_path, os.W_OK):
                    claims.clear_dead()
        try:
            super()._check_configs(write)
        except RuntimeError as error:  # another stage's settings, other defaults, or a damaged file
            reason = " ".join(str(error).split("(this is for")[0].split())
            raise ResultsError(f"delete {self.uid_folder()}, it cannot be used: {reason}") from None

    def _method_override(self, items: Sequence[Any]) -> Iterator[Any]:
        self._compute(items)
        return self._read(list(items))

    def _compute(self, items: Sequence[Any]) -> None:
        """Make what is missing: here, or in other processes after all that it is made from."""
        with storage_errors():
            settings = job_settings(self.work, processes=self.processes)
            if not (settings or in_group() or self.processes > 1):
                super()._method_override(items)
                return
            key_of = self._infra_method.item_uid
            missing = list(self._find_missing({key_of(item): item for item in items}).values())
            if missing:  # what trains comes first: nobody may claim what waits for a group
                self._obj.prepare(missing)
            if missing and rank() > 0:
                self._join(missing)
            with self._sent(settings, len(missing)) if missing and settings else nullcontext():
                super()._method_override(items)

    @contextmanager
    def _sent(self, settings: dict[str, Any], count: int) -> Iterator[None]:
        """Put the settings of a run's jobs in for one call; no job outlives an error or an interruption."""
        name = type(self._obj).__name__
        folder = paths.results_dir() / "jobs" / f"{name}-{uuid.uuid4().hex[:8]}"
        before = {field: self.__dict__[field] for field in (*settings, "logs")}
        self.__dict__.update(settings, logs=folder)  # past the freeze of the key, which they are no part of
        self._state.claims.jobs.clear()
        offer_gpus()
        print(f"{name}: {count} missing, sent to {settings['cluster']}; logs in {folder}")
        try:
            yield
        except BaseException as error:
            cancel(self._state.claims.jobs)
            if isinstance(error, UncompletedJobError | FailedSubmissionError):
                raise job_error(name, error, folder) from None
            raise
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            self.__dict__.update(before)

    @contextmanager
    def _work_env(self) -> Iterator[None]:
        place = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
        with super()._work_env():  # which takes all that begins with SLURM_ away
            os.environ.update(place)
            yield

    @property
    def processes(self) -> int:
        """In how many processes it is computed: 1, unless it trains and more are wanted."""
        if self.work != "training":
            return 1
        parts = getattr(self._obj, "accumulate", 1)
        wanted = group_size() if in_group() else wanted_processes()
        return even_share(self._obj.batch_size, parts=parts, wanted=wanted)

    def _call_and_store(self, items: Sequence[Any], use_cache_dict: bool = True) -> dict[str, Any]:
        if in_job():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit ignores it; all that is stored is whole
            if self.cluster == "local":
                take_gpus(self.work)
        if self.processes == 1 or in_group():
            return super()._call_and_store(items, use_cache_dict)
        settings = self.config(uid=False, exclude_defaults=True)
        run_together(partial(_member, type(self._obj), settings, items), processes=self.processes)
        return {}

    def _join(self, items: Sequence[Any]) -> None:
        """Compute as one of several processes; the first of them stores."""
        if rank() == 0:
            self._call_and_store(items)
        else:
            deque(self._run_method(items), maxlen=0)

    def _read(self, items: list[Any]) -> Iterator[Any]:
        """Yield the entries in order; at a damaged one all that follow are looked over and made again."""
        cache, key_of = self.cache_dict, self._infra_method.item_uid
        for position, item in enumerate(items):
            key = key_of(item)
            try:
                value = cache[key]
            except DamagedEntry as error:
                damaged = [i for i in items[position:] if not _sound(cache, key_of(i))]
                print(f"{error}; {len(damaged)} of {len(items)} entries are made again")
                with storage_errors():
                    cache.forget([key_of(i) for i in damaged])
                self._compute(damaged)
                value = cache[key]
            yield value


def _member(kind: type, settings: dict[str, Any], items: Sequence[Any]) -> None:
    """Compute items of a stage as one of several processes."""
    kind(**settings).infra._join(items)


def _sound(cache: CheckedCache, key: str) -> bool:
    try:
        cache[key]
    except DamagedEntry:
        return False
    return True
