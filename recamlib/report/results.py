"""Results: what a notebook stores and where, and those that are stored with the book."""

import datetime
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from recamlib import paths
from recamlib.data.voc import own_classes
from recamlib.engine.device import commit, device_name, versions
from recamlib.errors import RecamError
from recamlib.files import read_sealed, storage_errors, write_sealed

# The nearer a run is to the paper's, the earlier it is taken for the scoreboard.
ORDER = ("coco14", "voc12", "mini", "quick", "smoke")


def read(path: Path) -> dict[str, Any]:
    """Return a stored result; one that is not as it was written is a ResultsError."""
    return read_sealed(Path(path))


def result_path(notebook: str, parameters: dict[str, Any]) -> Path:
    """Return where the result of a notebook with these parameters is stored."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    return paths.results_dir() / notebook / digest[:12] / "result.json"


def record(notebook: str, *, parameters: dict[str, Any], images: dict[str, int], **content: Any) -> Path:
    """Write ``results/<notebook>/<hash of parameters>/result.json`` and return its path.

    `images` are counts such as ``{"train": 240}``; `content`, anything plain, has ``rows`` and ``claims``.
    """
    path = result_path(notebook, parameters)
    with storage_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "notebook": notebook, "parameters": parameters, "images": images,
        "provenance": {
            "commit": commit(), "device": device_name(), "versions": versions(),
            "date": datetime.date.today().isoformat(),
        }, **content,
    }  # fmt: skip
    if parameters.get("dataset") == "voc12" and (classes := own_classes(paths.data_dir())):
        result["own_classes"] = list(classes)  # not VOC, so that its numbers are no answer to the paper's
    latest = path.parent.parent / f"latest_{parameters.get('profile', 'smoke')}.json"
    for target in (path, latest):
        write_sealed(target, result, default=_plain)
    return path


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a result holds a {type(value).__name__}; use plain numbers, lists and strings")


def load_results() -> list[dict[str, Any]]:
    """Return all results with verdicts, best first: the stored, and the latest run of every profile."""
    latest = [read(file) for file in sorted(paths.results_dir().glob("*/latest_*.json"))]
    return _best_first([*load_measured(), *(result for result in latest if "provisional" not in result)])


def fixed_features(result: dict[str, Any]) -> bool:
    """Return whether a result is of heads on fixed features."""
    return result["parameters"].get("settings", {}).get("TrainClassifier", {}).get("train") == "heads"


def load_measured() -> list[dict[str, Any]]:
    """Return the results that are stored with the book and carry verdicts."""
    # a run whose recipe failed is stored as a record, with the reason, but carries no verdict
    return [result for result in load_stored() if "provisional" not in result]


def load_stored() -> list[dict[str, Any]]:
    """Return every result that is stored with the book, best first, provisional ones too."""
    files = sorted((paths.book_dir() / "measured").glob("*.json"))
    results = [json.loads(file.read_text()) for file in files]  # what is tracked is looked after by git
    return _best_first(result for result in results if "notebook" in result)


def _best_first(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    def rank(result: dict[str, Any]) -> tuple[int, int, bool, int]:
        profile = result["parameters"]["profile"]
        place = ORDER.index(profile) if profile in ORDER else len(ORDER)
        images = next(iter(result["images"].values()))  # the first: trained on
        return place, -images, fixed_features(result), -seeds_of(result)

    return sorted(results, key=rank)


def seeds_of(result: dict[str, Any]) -> int:
    return len(result["parameters"].get("seeds", [0]))


def store_benchmarks() -> Path:
    """Gather the reports of ``make bench`` in ``book/measured/benchmarks.json``; return its path."""
    files = sorted((paths.results_dir() / "benchmarks").glob("*.json"))
    if not files:
        raise RecamError("nothing to store: make bench has not run here")
    path = paths.book_dir() / "measured" / "benchmarks.json"
    stored = json.loads(path.read_text()) if path.is_file() else {}
    stored |= {file.stem: json.loads(file.read_text()) for file in files}
    path.write_text(json.dumps(stored, indent=1) + "\n")
    return path


def store(result: dict[str, Any]) -> Path:
    """Copy a full-size result to ``book/measured/``, where it is tracked and shown; return its path."""
    # all of them are in the name, since a run of the same profile on other data must not replace this one
    given = result["parameters"]
    methods = given.get("methods", ["none"])
    parts = [
        result["notebook"], *(given[key] for key in ("profile", "dataset", "backbone")),
        *[str(given["train_images"])] * bool(given["train_images"]), *["heads"] * fixed_features(result),
        *["sweep"] * bool(given.get("sweep")), *methods * ("none" not in methods),  # a run of single rows
    ]  # fmt: skip
    path = paths.book_dir() / "measured" / f"{'_'.join(parts)}.json".replace("/", "_")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result) + "\n")
    return path
