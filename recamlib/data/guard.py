"""The lock on the second door: while training runs, no pixel mask can be read."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from recamlib.errors import MaskAccessError

# The counter lives in the environment so that loader workers, forked or spawned, start with it.
_GUARD = "RECAM_LABELS_ONLY"
_lock = threading.Lock()


def _guard_depth() -> int:
    return int(os.environ.get(_GUARD) or 0)


def _move_guard(step: int) -> None:
    with _lock:
        depth = _guard_depth() + step
        if depth > 0:
            os.environ[_GUARD] = str(depth)
        else:
            os.environ.pop(_GUARD, None)


@contextmanager
def labels_only() -> Iterator[None]:
    """Close the second door: no mask set can be opened, read or sent to a worker inside this block.

    Training runs in it. The guard holds for the whole process and for worker processes started
    inside the block; blocks nest.
    """
    _move_guard(+1)
    try:
        yield
    finally:
        _move_guard(-1)


def masks_allowed() -> bool:
    """Say whether masks may be read at this moment (no `labels_only` block is open)."""
    return _guard_depth() == 0


def check_guard() -> None:
    if not masks_allowed():
        raise MaskAccessError(
            "a pixel mask was asked for while training on image-level labels; masks are for metrics only, "
            "so score after the training block has ended"
        )
