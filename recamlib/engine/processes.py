"""One training in several processes: how many, which one this is, how they start, what is added up over all.

A process of such a training is told so by the variables that torchrun sets, whoever started it.
"""

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
from torch import distributed

from recamlib.errors import RecamError, SettingsError
from recamlib.method.parallel import hidden_main, start_worker

VARIABLE = "RECAM_PROCESSES"


def wanted_processes() -> int:
    """Return ``$RECAM_PROCESSES``, the number of processes that a training may use, or 1.

    Raises
    ------
    SettingsError
        If it is no number above 0.
    """
    wanted = os.environ.get(VARIABLE) or "1"
    if not wanted.isdecimal() or int(wanted) < 1:
        raise SettingsError(f"{VARIABLE} is {wanted!r}, expected a number of processes, 1 or more")
    return int(wanted)


def even_share(batch: int, *, parts: int, wanted: int) -> int:
    """Return how many processes, `wanted` at most, can share each of the parts of a batch evenly.

    Shares are even so that the mean of their losses is the loss of the batch.

    Examples
    --------
    >>> [even_share(batch, parts=parts, wanted=8) for batch, parts in ((16, 1), (10, 1), (10, 5))]
    [8, 5, 2]
    """
    return max(n for n in range(1, wanted + 1) if n == 1 or batch % (n * parts) == 0)


def shared_order(order: Sequence[int], *, batch: int, parts: int, rank: int, size: int) -> list[int]:
    """Return the samples of one process: every `size`-th of each part of each batch.

    Examples
    --------
    >>> shared_order(range(8), batch=4, parts=1, rank=1, size=2)
    [1, 3, 5, 7]
    >>> shared_order(range(8), batch=8, parts=2, rank=0, size=2)
    [0, 2, 4, 6]
    """
    step = max(1, batch // parts)
    return [i for start in range(0, len(order), step) for i in order[start : start + step][rank::size]]


def in_group() -> bool:
    """Return whether this process is one of several that train together."""
    return "LOCAL_RANK" in os.environ and group_size() > 1


def group_size() -> int:
    """Return the number of processes that train together with this one, itself included."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """Return the number of this process among them; the one that stores results is 0."""
    return int(os.environ.get("RANK", 0)) if in_group() else 0


def run_together(task: Callable[[], object], *, processes: int) -> None:
    """Run a task in so many new processes of this machine, each of which knows its number.

    They end with this process, and all of them with the first that fails.

    Parameters
    ----------
    task
        A function of an importable module, or a `functools.partial` of one.

    Raises
    ------
    RecamError
        What the task raised, or if a process dies.
    """
    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise SettingsError(
            f"{processes} processes train with one GPU each, and there are {torch.cuda.device_count()} here: "
            f"lower {VARIABLE}"
        )
    # a server that has imported all and touched neither threads nor GPUs starts them, each in a moment
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recamlib.stages"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running: list[tuple[BaseProcess, Connection]] = []
    threads = max(1, torch.get_num_threads() // processes)
    try:
        for number in range(processes):
            place = {"RANK": number, "LOCAL_RANK": number, "GROUP_RANK": 0, "WORLD_SIZE": processes}
            place |= {"LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            environment = os.environ | {name: str(value) for name, value in place.items()}
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_member, args=(task, environment, threads, theirs))
            with hidden_main():
                process.start()
            theirs.close()
            running.append((process, ours))
        _watch(running)
    finally:
        for process, ours in running:
            process.kill()
            process.join()
            ours.close()


def _watch(running: Sequence[tuple[BaseProcess, Connection]]) -> None:
    """Wait until all processes have ended well, or raise what the first to fail said."""
    waiting = {process.sentinel: process for process, _ in running}
    while waiting:
        ended = [waiting.pop(sentinel) for sentinel in wait(list(waiting))]
        for process in ended:
            process.join()
        if any(process.exitcode for process in ended):
            said = [error for _, ours in running if (error := _last_word(ours))]
            died = RecamError(
                "a process of the training died (killed, or out of memory?): run again, it goes on from its "
                "last checkpoint"
            )
            killed = any((process.exitcode or 0) < 0 for process, _ in running)
            # what the others say is only that they lost it
            other = died if killed or not said else said[0]
            raise next((e for e in said if isinstance(e, RecamError)), other)


def _last_word(connection: Connection) -> Exception | None:
    """Return what a process said before it ended, if it did."""
    try:
        return connection.recv() if connection.poll(1) else None
    except EOFError:
        return None


def _member(
    task: Callable[[], object], environment: dict[str, str], threads: int, parent: Connection
) -> None:
    """Run the task as one process of the group; what it raises is told to the parent."""
    os.environ.clear()
    os.environ.update(environment)
    start_worker()
    torch.set_num_threads(threads)
    try:
        task()
    except Exception as error:
        parent.send(error if isinstance(error, RecamError) else RuntimeError(traceback.format_exc()))
        sys.exit(1)
    finally:
        parent.close()
        if distributed.is_initialized():
            distributed.destroy_process_group()
