"""Two runs of one notebook side by side: what differed in settings, what moved, what is within noise."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recamlib import paths
from recamlib.errors import SettingsError, nearest
from recamlib.report.claims import seed_interval

RULE = (
    "A row has moved if the 95 % interval of its change lies wholly on one side of zero, and is within noise "
    "if it contains zero. Runs of the same seeds on the same data are paired by seed (t over the seeds). "
    "Otherwise the half-widths of both intervals are added as squares, which takes the runs for independent; "
    "two runs on one set of images are not quite, so this errs towards noise."
)
PAIRED = ("dataset", "train_images", "seeds")  # what has to agree for seeds to be pairs


def load_run(name: str) -> dict[str, Any]:
    """Return a result by the path of its file, or as NOTEBOOK/PROFILE such as ``02/quick``."""
    path = Path(name)
    if not path.is_file():
        runs = _runs()
        if name not in runs:
            there = nearest(name, runs) + f"; there are {', '.join(sorted(runs)) or 'none'}"
            raise SettingsError(f"no result.json and no run NOTEBOOK/PROFILE called {name}{there}")
        path = runs[name]
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SettingsError(f"{path} is not JSON ({error})") from None
    if not isinstance(result, dict) or not {"notebook", "parameters", "rows", "provenance"} <= result.keys():
        raise SettingsError(f"{path} is no result of a notebook: it has no notebook, parameters and rows")
    return result


def _runs() -> dict[str, Path]:
    """Return results by NOTEBOOK/PROFILE: the latest run here, else the first stored one."""
    runs: dict[str, Path] = {}
    for file in sorted((paths.book_dir() / "measured").glob("[0-9]*.json")):
        profile = json.loads(file.read_text(encoding="utf-8"))["parameters"]["profile"]
        runs.setdefault(f"{file.stem[:2]}/{profile}", file)
    for file in paths.results_dir().glob("*/latest_*.json"):
        runs[f"{file.parent.name[:2]}/{file.stem.removeprefix('latest_')}"] = file
    return runs


def comparison(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Return the three tables of a comparison, of runs of one notebook, by title."""
    if a["notebook"] != b["notebook"]:
        names = f"{a['notebook']} and {b['notebook']}"
        raise SettingsError(f"{names} have no rows in common: compare runs of one notebook")
    return {
        "Settings that differ": _differing({
            name if what == "parameters" else f"{what}: {name}": [run[what].get(name, "") for run in (a, b)]
            for what in ("parameters", "images", "provenance") for name in {**a[what], **b[what]}
        }),
        "Results": results_moved(a, b),
        "Verdicts that differ": _differing({
            name: [run.get("claims", {}).get(name, {}).get("verdict", "not run") for run in (a, b)]
            for name in {**a.get("claims", {}), **b.get("claims", {})}
        }),
    }  # fmt: skip


def _differing(pairs: Mapping[str, list]) -> pd.DataFrame:
    differing = {name: [str(v) for v in pair] for name, pair in pairs.items() if pair[0] != pair[1]}
    return pd.DataFrame.from_dict(differing, orient="index", columns=["A", "B"])


def results_moved(a: Mapping[str, Any], b: Mapping[str, Any]) -> pd.DataFrame:
    """Return A, B, the change with its interval and a word, for every row that both runs have."""
    paired = all(a["parameters"].get(name) == b["parameters"].get(name) for name in PAIRED)
    rows = {}
    for name, one in a["rows"].items():
        other = b["rows"].get(name, {})
        if "mean" in one and "mean" in other:
            change, seeds = other["mean"] - one["mean"], [row.get("per_seed", []) for row in (one, other)]
            ends = [(row.get("low"), row.get("high")) for row in (one, other)]
            half = np.hypot(*[(top - end) / 2 if None not in (end, top) else np.nan for end, top in ends])
            low, high = float(change - half), float(change + half)
            if paired and len(seeds[0]) == len(seeds[1]) > 1:
                _, low, high = seed_interval(np.subtract(seeds[1], seeds[0]))
            word = "no interval" if np.isnan(low + high) else "within noise"
            word = "up" if low > 0 else "down" if high < 0 else word
            rows[name] = [one["mean"], other["mean"], change, low, high, word]
    columns = ["A", "B", "change", "change low", "change high", "verdict"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)
