"""Run the forms of one computation, each in a process of its own, and set them side by side."""

import argparse
import datetime
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from recamlib.engine.device import device_name, versions
from recamlib.paths import results_dir

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
THREADS = min(2, CORES)

_steps: dict[str, dict[str, float]] = {}


@contextmanager
def step(name: str, *, images: int = 1, of: int = 1) -> Iterator[None]:
    """Time one step of a form's work; of a form with steps, nothing but these counts.

    A step that is too long for all images takes `images` of the `of` there are: its time is extrapolated in
    proportion to them, and the report says so.
    """
    start, before = time.perf_counter(), _processor_seconds()
    yield
    seconds, processor = time.perf_counter() - start, _processor_seconds() - before
    _steps[name] = {"seconds": seconds * of / images, "cpu_seconds": processor * of / images}
    if images < of:
        _steps[name] |= {"images": images, "of": of}


def _processor_seconds() -> float:
    """Return the time of the processors that this process and the processes it started have had."""
    return sum(os.times()[:4])


def _peak_bytes() -> int:
    """Return the most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextmanager
def busy_loop() -> Iterator[None]:
    """Keep one core busy with a loop of another process, as a colleague's job would."""
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        loop.kill()
        loop.wait()


def run_form(work: Callable[[], Any], *, repeats: int) -> dict[str, Any]:
    """Return the shortest time of a form's work, the memory it added, its steps and its results.

    The first run warms up, unless it is the only one.
    """
    before = _peak_bytes()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        results = work()
        times.append(time.perf_counter() - start)
    measured = {"seconds": min(times[1:] or times), "peak_mb": (_peak_bytes() - before) / 1e6}
    if _steps:
        for key in ("seconds", "cpu_seconds"):
            measured[key] = sum(found[key] for found in _steps.values())
        measured["steps"] = dict(_steps)
    return measured | {"results": results}


def network() -> Any:
    """Return a MobileNetV2 classifier of 20 classes, with ImageNet weights if they are there."""
    from recamlib.models.backbones import build_backbone
    from recamlib.models.classifier import CamClassifier
    from recamlib.paths import weights_dir

    weights = "mobilenet_v2_imagenet"  # random ones are as fast
    weights = weights if (weights_dir() / f"{weights}.safetensors").is_file() else None
    return CamClassifier(build_backbone("mobilenet_v2", weights=weights), 20).eval()


def photographs(sizes: Iterable[tuple[int, int]]) -> list:
    """Return images (3, H, W), uint8: smooth colours with some grain, as photographs have."""
    import torch
    from torch.nn.functional import interpolate

    images = []
    for height, width in sizes:
        rough = interpolate(torch.rand(1, 3, 9, 9), (height, width), mode="bicubic")[0]
        images.append((255 * (rough + 0.1 * torch.randn(3, height, width))).clamp(0, 255).byte())
    return images


def compare(
    name: str,
    forms: dict[str, Callable[[], Callable[[], Any]]],
    *,
    repeats: int = 3,
    rounds: int = 1,
    busy: bool = True,
    note: str = "",
    sizes: Mapping[str, Mapping[str, float]] | None = None,
) -> dict:
    """Run every form of a benchmark in a fresh process, print and save times, memory and differences.

    The forms that are compared run once more beside a busy loop: with one core less, the ratio has to be at
    least half of what it is without (a thread that spins loses more than its share).

    Parameters
    ----------
    name
        Name of the benchmark, and of its JSON file below the results folder.
    forms
        Name of a form -> function that builds the inputs and returns the work to be measured; the work
        returns tensors, a list of them or by name. ``"ours"`` is compared with every form whose name does not
        begin with it, in whatever results both have.
    repeats
        Measured runs after one that warms up; 0 for one run that nothing warms up.
    rounds
        Times that all forms are gone through, the shortest time counts: a machine is seldom busy throughout.
    busy
        Whether there is a run beside the busy loop: not where one takes an hour.
    note
        Printed and saved with the numbers.
    sizes
        Name of a form -> what it is larger or smaller by, for example ``{"cells": 2914}``: the page on cost
        draws time against them.
    """
    parser = argparse.ArgumentParser(description=note)
    parser.add_argument("--form", choices=forms, help="run one form in this process (used internally)")
    parser.add_argument("--into", type=Path, help="file for its results (used internally)")
    args = parser.parse_args()
    if args.form:
        import torch

        torch.set_num_threads(THREADS)
        measured = run_form(forms[args.form](), repeats=repeats)
        results = measured.pop("results")
        named = results if isinstance(results, dict) else {f"r{i}": r for i, r in enumerate(results)}
        np.savez(args.into, **{name: np.asarray(r.detach()) for name, r in named.items()})
        print(json.dumps(measured))
        raise SystemExit
    report: dict = {
        "name": name, "threads": THREADS, "note": note, "date": datetime.date.today().isoformat(),
        "device": device_name(), "versions": versions(), "forms": {},
    }  # fmt: skip
    print(f"{name}: {note}")
    with tempfile.TemporaryDirectory() as folder:
        for form in list(forms) * rounds:
            row = _measured(form, Path(folder) / f"{form}.npz")
            row["seconds"] = min(row["seconds"], report["forms"].get(form, row)["seconds"])
            report["forms"][form] = row | ({"sizes": dict(sizes[form])} if form in (sizes or {}) else {})
        ours = report["forms"]["ours"]
        if busy:
            with busy_loop():
                for form in [f for f in forms if f == "ours" or not f.startswith("ours")]:
                    row = _measured(form, Path(folder) / "busy.npz")
                    report["forms"][form]["busy_seconds"] = row["seconds"]
        for form, row in report["forms"].items():
            line = f"  {form:32s} {row['seconds'] * 1e3:10.1f} ms {row['peak_mb']:9.0f} MB"
            if not form.startswith("ours"):
                row["times_faster"] = row["seconds"] / ours["seconds"]
                row["memory_ratio"] = ours["peak_mb"] / max(row["peak_mb"], 0.1)
                gaps = _differences(Path(folder) / "ours.npz", Path(folder) / f"{form}.npz")
                row["difference"] = max(gaps.values())
                row |= {"differences": gaps} if "steps" in row else {}
                line += f"   ours: {row['times_faster']:.1f} times faster, {row['memory_ratio']:.3f} of the"
                line += f" memory, difference {row['difference']:.1e}"
                if busy:
                    row["times_faster_busy"] = row["busy_seconds"] / ours["busy_seconds"]
                    line += f"; beside a busy loop {row['times_faster_busy']:.1f} times"
                    line += " (LESS THAN HALF)" * (row["times_faster_busy"] < row["times_faster"] / 2)
            print(line)
            for part, found in row.get("steps", {}).items():
                times = f"{found['seconds']:10.2f} s {found['cpu_seconds']:10.2f} s of the processor"
                scaled = f", from {found['images']} of {found['of']} images" if "of" in found else ""
                print(f"    {part:28s} {times}{scaled}")
            for part, gap in row.get("differences", {}).items():
                print(f"    difference of {part}: {gap:.1e}")
    path = results_dir() / "benchmarks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"  saved {path}")
    return report


def _measured(form: str, into: Path) -> dict[str, Any]:
    """Run one form in a process of its own and return what it measured; its results go into a file."""
    command = [sys.executable, sys.argv[0], "--form", form, "--into", str(into)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _differences(ours: Path, other: Path) -> dict[str, float]:
    """Return how much results differ, by name: of whole numbers the share that differs, of others the largest
    difference relative to the largest number.
    """
    with np.load(ours) as a, np.load(other) as b:
        if not set(b.files) <= set(a.files):
            raise SystemExit("the forms do not return the same results")
        return {
            k: float((a[k] != b[k]).mean()) if a[k].dtype.kind in "iu"
            else float(np.abs(a[k] - b[k]).max() / np.abs(b[k]).max())
            for k in b.files
        }  # fmt: skip
