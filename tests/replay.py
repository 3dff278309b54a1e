"""One strict run of a stored notebook, and the numbers that this run left compared with stored ones."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recamlib.paths import ROOT, results_dir

TOLERANCE = 8.0  # points of mIoU or accuracy
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
    """Return what is compared: counts, parameters, mean per row, and the claims that are arithmetic."""
    return {
        "images": result["images"],
        "parameters": result["parameters"],
        "claims": {name: c for name, c in result["claims"].items() if name in EXACT},
        # times are not compared: they are the machine's
        "means": {name: r["mean"] for name, r in result["rows"].items() if "mean" in r and "parts" not in r},
    }


def compare_with_stored(notebook: Path, result: dict) -> None:
    """Compare a result with ``tests/baselines``; ``RECAM_ACCEPT=1`` stores it instead."""
    found, stored = summary(result), BASELINES / f"{notebook.stem}_smoke.json"
    if os.environ.get("RECAM_ACCEPT"):
        stored.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    expected = json.loads(stored.read_text(encoding="utf-8"))
    means, wanted = found.pop("means"), expected.pop("means")
    assert found == expected
    assert means.keys() == wanted.keys()
    for name, mean in means.items():
        # scored on two dozen images or fewer, or by a network after a dozen steps
        loose = re.search("^advcam|^methods|_val$|^upper_bound|_saliency", name)
        limit = 2 * TOLERANCE if loose else TOLERANCE
        assert abs(mean - wanted[name]) <= limit, f"{name}: {mean:.1f}, stored {wanted[name]:.1f}"
