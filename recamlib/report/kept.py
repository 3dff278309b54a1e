"""Results at hand: those kept with the book in ``book/measured``, and the latest run of every profile."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from recamlib import paths
from recamlib.errors import RecamError
from recamlib.report.claims import read

# The nearer a run is to the paper's, the earlier it is taken for the scoreboard.
ORDER = ("coco14", "voc12", "mini", "quick", "smoke")


def load_results() -> list[dict[str, Any]]:
    """Return all results at hand, best first: measured runs, then the latest run of every profile."""
    latest = [read(file) for file in sorted(paths.results_dir().glob("*/latest_*.json"))]
    return best_first(load_measured() + _whole(latest))


def load_measured() -> list[dict[str, Any]]:
    """Return the results of full-size runs that are kept with the book and carry verdicts."""
    return _whole(load_kept())


def load_kept() -> list[dict[str, Any]]:
    """Return every result of a notebook that is kept with the book, best first, provisional ones too."""
    # what is tracked is looked after by git
    found = [json.loads(file.read_text()) for file in sorted((paths.book_dir() / "measured").glob("*.json"))]
    return best_first(result for result in found if "notebook" in result)


def _whole(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    # a run whose recipe failed is kept as a record, with the reason, but carries no verdict
    return [result for result in found if "provisional" not in result]


def best_first(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return results in the order in which they answer for the paper: by profile, images, then seeds."""

    def rank(result: dict[str, Any]) -> tuple[int, int, int]:
        profile = result["parameters"]["profile"]
        place = ORDER.index(profile) if profile in ORDER else len(ORDER)
        return place, -trained_on(result), -seeds_of(result)

    return sorted(results, key=rank)


def seeds_of(result: dict[str, Any]) -> int:
    """Return how many seeds a result is of."""
    return len(result["parameters"].get("seeds", [0]))


def trained_on(result: dict[str, Any]) -> int:
    """Return how many images the classifiers of a result are trained on: the first of its counts."""
    return next(iter(result["images"].values()))


def keep_benchmarks() -> Path:
    """Gather the reports of ``make bench`` in ``book/measured/benchmarks.json``; return its path.

    Raises
    ------
    RecamError
        If no benchmark has run.
    """
    files = sorted((paths.results_dir() / "benchmarks").glob("*.json"))
    if not files:
        raise RecamError("nothing to keep: make bench has not run here")
    path = paths.book_dir() / "measured" / "benchmarks.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    kept |= {file.stem: json.loads(file.read_text()) for file in files}
    path.write_text(json.dumps(kept, indent=1) + "\n")
    return path


def benchmarks() -> pd.DataFrame:
    """Return what the benchmarks kept with the book say: seconds and memory of our and the literal form."""
    path = paths.book_dir() / "measured" / "benchmarks.json"
    rows = []
    for name, entry in json.loads(path.read_text()).items() if path.is_file() else ():
        ours, literal = entry["forms"]["ours"], entry["forms"]["literal"]
        rows.append({
            "benchmark": name, "ours": ours["seconds"], "literal": literal["seconds"],
            "times faster": literal["seconds"] / ours["seconds"], "memory ratio": literal["memory_ratio"],
            "difference": literal["difference"], "work": entry["note"], "device": entry["device"],
            "date": entry["date"],
        })  # fmt: skip
    columns = ["ours", "literal", "times faster", "memory ratio", "difference", "work", "device", "date"]
    return pd.DataFrame(rows, columns=["benchmark", *columns]).set_index("benchmark")


def save_measured(result: dict[str, Any]) -> Path:
    """Copy a full-size result to ``book/measured/``, where it is tracked and shown; return its path."""
    folder = paths.book_dir() / "measured"
    folder.mkdir(exist_ok=True)
    # all of them, since a run of the same profile on other data must not replace this one
    given = result["parameters"]
    parts = [result["notebook"], *(given[key] for key in ("profile", "dataset", "backbone"))]
    parts += [str(given["train_images"])] * bool(given["train_images"])
    heads = given.get("settings", {}).get("TrainClassifier", {}).get("train") == "heads"
    parts += ["heads"] * heads + ["sweep"] * bool(given.get("sweep"))
    methods = given.get("methods", ["none"])
    parts += methods * ("none" not in methods)  # a run of single rows
    path = folder / f"{'_'.join(parts)}.json".replace("/", "_")
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
