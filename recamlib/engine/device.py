"""What work runs on and what it took: device, processes, progress, seconds, memory, versions, commit."""

import functools
import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import torch
from tqdm.auto import tqdm

from recamlib import paths


def default_device() -> str:
    """Return ``$RECAM_DEVICE``, or the accelerator that is there, or ``"cpu"``."""
    return os.environ.get("RECAM_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")


def process_group() -> tuple[int, int, int]:
    """Return this process's rank, how many torchrun has started in all, and how many here."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1, 1
    rank, size, here = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return rank, size, here


def bar(items: Iterable[Any] | None, *, quiet: bool = False, **settings: Any) -> tqdm:
    """Return a progress bar over items, gone when it is done; none without a terminal or notebook."""
    quiet = quiet or os.environ.get("TQDM_DISABLE", "") not in ("", "0")  # tqdm reads it without `disable`
    return tqdm(items, leave=False, disable=True if quiet else None, **settings)


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Record seconds, peak memory (MiB), device and versions of the work inside, in the dict it yields."""
    cost: dict[str, Any] = {"device": device_name(), "versions": dict(versions())}
    on_gpu = default_device().startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    yield cost
    cost["seconds"] = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    cost["peak_memory_mib"] = (torch.cuda.max_memory_allocated() if on_gpu else peak) / 2**20


def per_image(cost: dict[str, Any], images: int) -> dict[str, Any]:
    """Return the share of one of `images` images in a cost: seconds, peak memory (MiB) and device."""
    peak = round(cost["peak_memory_mib"], 1)
    return {"seconds": cost["seconds"] / images, "peak_memory_mib": peak, "device": cost["device"]}


def device_name() -> str:
    """Return the device stages run on, with threads for a CPU, and the processes that train together."""
    device, size = default_device(), process_group()[1]
    times = f"{size} x " if size > 1 else ""
    if device.startswith("cuda"):
        return times + torch.cuda.get_device_name()
    return f"{times}{device} ({platform.machine()}, {torch.get_num_threads()} threads)"


@functools.cache  # asked for at every image
def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    names = ("torch", "torchvision", "numpy", "pillow")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def commit() -> str:
    """Return the commit results are made from, with ``+`` if tracked files were changed, or ``"unknown"``."""
    try:
        run = functools.partial(
            subprocess.run, cwd=paths.ROOT, capture_output=True, text=True, check=True, timeout=20
        )
        head = run(["git", "rev-parse", "--short=10", "HEAD"]).stdout.strip()
        return head + ("+" if run(["git", "status", "--porcelain", "-uno"]).stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("RECAM_COMMIT", "unknown")
