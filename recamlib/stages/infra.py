"""How stages are computed: once per key, by one process at a time, checked when read, mended if damaged."""

import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import exca.map
import psutil
from exca.cachedict.inflight import InflightRegistry, Liveness, Pid, WorkerInfo

from recamlib.errors import ResultsError
from recamlib.files import storage_errors
from recamlib.progress import bar
from recamlib.stages.cache import CheckedCache, DamagedEntry

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
    """What a stage keeps: computed once per key, checked whenever it is read."""

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
        return _Claims(self.uid_folder(), WorkerInfo(os.urandom(16).hex(), live))

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
        with storage_errors():
            super()._method_override(items)
        return self._read(list(items))

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
                    super()._method_override(damaged)
                value = cache[key]
            yield value


def _sound(cache: CheckedCache, key: str) -> bool:
    try:
        cache[key]
    except DamagedEntry:
        return False
    return True
