"""One strict run of a stored notebook, and the numbers that this run left compared with stored ones."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recamlib.paths import ROOT, results_dir

# Points. With the instructions of an older processor (ATEN_CPU_CAPABILITY=default) those of notebook 02 moved
# by 0.1, precision by 0.2 and FC2 by 0.5; DeepLabV3+ on ReCAM's masks by 2.1, after half of its steps by 6.5.
TOLERANCE = {"per_seed": 1.5, "fixed": 1.5, "floor": 0.1, "precision": 2.0, "fc2_accuracy": 3.0}
LOOSE = r"^hoofed|^advcam_irn|_scratch|^methods|_val$|^upper_bound|_saliency"  # few images, few steps
BASELINES = Path(__file__).with_name("baselines")
EXACT = ("prose.gradients_c1", "prose.gradients_c2", "prose.single_label_share_coco")


def replay(notebook: Path) -> dict:
    """Run a notebook under nbval, which compares every cell's text, and return the result that it left."""
    options = ["-q", "-p", "no:cacheprovider", "--nbval", "--nbval-current-env"]
    command = [sys.executable, "-m", "pytest", *options, str(notebook)]
    # bars are messages too: more than a thousand of them unread, and the one that ends a cell is dropped
    quiet = {**os.environ, "TQDM_DISABLE": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=quiet)
    if done.returncode:
        pytest.fail(f"{notebook.name} gives another text than is stored:\n{done.stdout[-8000:]}{done.stderr}")
    return json.loads((results_dir() / notebook.stem / "latest_smoke.json").read_text(encoding="utf-8"))


def summary(result: dict) -> dict:
    """Return what is compared: counts, parameters, numbers per row, and the claims that are arithmetic."""
    rows = {name: numbers(r) for name, r in result["rows"].items() if "mean" in r and "parts" not in r}
    return {
        "images": result["images"],
        "parameters": result["parameters"],
        "claims": {name: c for name, c in result["claims"].items() if name in EXACT},
        "rows": rows,  # without times, which are the machine's
        "equal": equal(rows),
    }


def numbers(row: dict) -> dict[str, Any]:
    """Return the numbers of a row that are compared: scores, floor, and what its trainings recorded."""
    records = row.get("records") or []
    found = {"per_seed": row.get("per_seed", [row["mean"]])}
    found |= {name: row[name] for name in ("fixed", "floor") if name in row}
    found["precision"] = [r.get("val_map_after", r["val_map"]) for r in records]
    found["fc2_accuracy"] = [r["fc2_accuracy"] for r in records if "fc2_accuracy" in r]
    return {name: value for name, value in found.items() if value != []}


def equal(rows: dict) -> list[list[str]]:
    """Return the groups of rows whose scores are the same to the digit: are two settings one and the same?"""
    groups: dict[tuple, list[str]] = {}
    for name, row in rows.items():
        groups.setdefault(tuple(row["per_seed"]), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def stored(notebook: Path) -> Path:
    return BASELINES / f"{notebook.stem}_smoke.json"


def moved(rows: dict, wanted: dict) -> dict[str, tuple[float, float]]:
    """Return the numbers of some rows that lie further from the stored ones than rounding takes them.

    A run with fewer seeds than the stored one is compared seed by seed: by nothing that is a mean over seeds.
    A row with a training that collapsed to its floor is left out: on another processor it may not collapse.
    """
    found = {}
    for name, row in rows.items():
        if any(score < wanted[name].get("floor", 0) + 2 for score in wanted[name]["per_seed"]):
            continue
        fewer = len(row["per_seed"]) < len(wanted[name]["per_seed"])
        for key in row:
            many = isinstance(row[key], list)
            pairs = list(zip(row[key], wanted[name][key])) if many else [(row[key], wanted[name][key])]
            if fewer and key == "fixed":
                continue
            limit = TOLERANCE[key] * (3 if re.search(LOOSE, name) else 1)
            for seed, (here, there) in enumerate(pairs):
                if not abs(here - there) <= limit:  # nan is neither
                    found[f"{name}, {key}" + f", seed {seed}" * (len(pairs) > 1)] = (there, here)
    return found


def compare_with_stored(notebook: Path, result: dict) -> None:
    """Compare a result with ``tests/baselines``; ``RECAM_ACCEPT=1`` stores it instead."""
    found = summary(result)
    if os.environ.get("RECAM_ACCEPT"):
        stored(notebook).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    expected = json.loads(stored(notebook).read_text(encoding="utf-8"))
    rows, wanted = found.pop("rows"), expected.pop("rows")
    assert found == expected and rows.keys() == wanted.keys()
    assert moved(rows, wanted) == {}  # what is stored, what came
