"""Run the forms of one computation, each in a process of its own, and set them side by side."""

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from recamlib.paths import results_dir
from recamlib.provenance import device_name, versions

THREADS = 2


def _peak_bytes() -> int:
    """Return the most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run_form(work: Callable[[], list], *, repeats: int) -> dict:
    """Return the shortest time of a form's work, the memory it added, and its results."""
    before = _peak_bytes()
    results = work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        results = work()
        times.append(time.perf_counter() - start)
    return {"seconds": min(times), "peak_mb": (_peak_bytes() - before) / 1e6, "results": results}


def compare(
    name: str,
    forms: dict[str, Callable[[], Callable[[], list]]],
    *,
    repeats: int = 3,
    rounds: int = 1,
    note: str = "",
) -> dict:
    """Run every form of a benchmark in a fresh process, print and save times, memory and differences.

    Parameters
    ----------
    name
        Name of the benchmark, and of its JSON file below the results folder.
    forms
        Name of a form -> function that builds the inputs and returns the work to be measured; the work
        returns tensors. ``"ours"`` is compared with every form whose name does not begin with it.
    repeats
        Measured runs after one that warms up.
    rounds
        Times that all forms are gone through, the shortest time counts: a machine is seldom busy throughout.
    note
        Printed and saved with the numbers.
    """
    parser = argparse.ArgumentParser(description=note)
    parser.add_argument("--form", choices=forms, help="run one form in this process (used internally)")
    parser.add_argument("--into", type=Path, help="file for its results (used internally)")
    args = parser.parse_args()
    if args.form:
        import torch

        torch.set_num_threads(THREADS)
        measured = run_form(forms[args.form](), repeats=repeats)
        arrays = [r.detach().numpy() for r in measured.pop("results")]
        np.savez(args.into, **{f"r{i}": a for i, a in enumerate(arrays)})
        print(json.dumps(measured))
        raise SystemExit
    report: dict = {
        "name": name, "threads": THREADS, "note": note, "date": datetime.date.today().isoformat(),
        "device": device_name(), "versions": versions(), "forms": {},
    }  # fmt: skip
    print(f"{name}: {note}")
    with tempfile.TemporaryDirectory() as folder:
        for form in list(forms) * rounds:
            into = Path(folder) / f"{form}.npz"
            command = [sys.executable, sys.argv[0], "--form", form, "--into", str(into)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            row = json.loads(done.stdout.splitlines()[-1])
            row["seconds"] = min(row["seconds"], report["forms"].get(form, row)["seconds"])
            report["forms"][form] = row
        ours = report["forms"]["ours"]
        for form, row in report["forms"].items():
            line = f"  {form:32s} {row['seconds'] * 1e3:10.1f} ms {row['peak_mb']:9.0f} MB"
            if not form.startswith("ours"):
                row["times_faster"] = row["seconds"] / ours["seconds"]
                row["memory_ratio"] = ours["peak_mb"] / row["peak_mb"]
                row["difference"] = _difference(Path(folder) / "ours.npz", Path(folder) / f"{form}.npz")
                line += f"   ours: {row['times_faster']:.1f} times faster, {row['memory_ratio']:.3f} of the"
                line += f" memory, difference {row['difference']:.1e}"
            print(line)
    path = results_dir() / "benchmarks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"  saved {path}")
    return report


def _difference(ours: Path, other: Path) -> float:
    """Return the largest difference between results, relative to the largest number of each."""
    with np.load(ours) as a, np.load(other) as b:
        if a.files != b.files:
            raise SystemExit("the forms do not return the same number of results")
        return max(float(np.abs(a[k] - b[k]).max() / np.abs(b[k]).max()) for k in a.files)
