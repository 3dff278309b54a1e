"""The same function on many inputs in several processes: results in order, bounded memory, no hangs."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import ModuleType
from typing import TypeVar

from recamlib.errors import RecamError, SettingsError

Item, Result = TypeVar("Item"), TypeVar("Result")


def default_processes() -> int:
    """Return ``$RECAM_WORKERS``, or the number of cores this process may use."""
    wanted = os.environ.get("RECAM_WORKERS", "")
    if wanted:
        if not wanted.isdecimal():
            raise SettingsError(f"RECAM_WORKERS is {wanted!r}, expected a number of processes")
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], *, processes: int | None = None
) -> Iterator[Result]:
    """Yield ``function(item)`` for every item, in order.

    Parameters
    ----------
    function
        A function of an importable module, or a `functools.partial` of one; quick to import is best.
    items
        May be a generator: at most twice as many items as there are processes are held at a time.
    processes
        None for `default_processes`; 0 and 1 stay in this process.

    Raises
    ------
    RecamError
        If a worker process dies. What `function` or `items` raise comes through as it is.

    Examples
    --------
    >>> list(map_in_order(abs, [-2, 1], processes=1))
    [2, 1]
    """
    processes = default_processes() if processes is None else processes
    if processes < 0:
        raise SettingsError(f"processes is {processes}, expected 0 or more")
    if processes < 2 or multiprocessing.current_process().daemon:  # a daemon may not start processes
        return map(function, items)
    return _map_in_processes(function, items, processes)


def _map_in_processes(
    function: Callable[[Item], Result], items: Iterable[Item], processes: int
) -> Iterator[Result]:
    # spawn: a fork of a process that runs torch's threads may hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=start_worker)
    waiting: deque[Future] = deque()
    try:
        for item in items:
            with hidden_main():
                waiting.append(pool.submit(function, item))
            if len(waiting) == 2 * processes:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise RecamError(
            "a worker process died (killed, or out of memory?): run again with RECAM_WORKERS=1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def hidden_main() -> Iterator[None]:
    """Keep new workers from running the user's script again: what they run is in the library."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
