"""Results with an address: what a notebook stores, where, and how it is read back."""

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from recamlib import paths
from recamlib.data.voc import own_classes
from recamlib.engine.device import commit, device_name, versions
from recamlib.files import read_sealed, storage_errors, write_sealed


def parameters(namespace: dict[str, Any]) -> dict[str, Any]:
    """Return a notebook's parameters: the plain values in its namespace before anything else is defined.

    Names that begin with an underscore, and IPython's own, are left out.
    """
    skipped = {"In", "Out", "exit", "quit", "get_ipython", "open"}
    return {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in skipped
        and isinstance(value, bool | int | float | str | list | tuple | type(None))
    }  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """Return a stored result, or raise ResultsError if it is not what was stored."""
    return read_sealed(Path(path))


def result_path(notebook: str, parameters: dict[str, Any]) -> Path:
    """Return where the result of a notebook with these parameters is kept: their hash is its address."""
    digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    return paths.results_dir() / notebook / digest[:12] / "result.json"


def record(notebook: str, *, parameters: dict[str, Any], images: dict[str, int], **content: Any) -> Path:
    """Write ``results/<notebook>/<hash of parameters>/result.json`` and return its path.

    Parameters
    ----------
    notebook
        Stem of the notebook, for example ``"02_table1_ablations"``.
    parameters
        Every parameter of the run; their hash is the address.
    images
        Image counts, for example ``{"train": 240, "scored": 80}``.
    content
        ``rows`` (see :func:`table_row`), ``claims`` (see :func:`sentence`), figures' numbers, anything plain.
    """
    path = result_path(notebook, parameters)
    with storage_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "notebook": notebook, "parameters": parameters, "images": images,
        "provenance": {
            "commit": commit(), "device": device_name(), "versions": versions(),
            "date": datetime.date.today().isoformat(),
        },
        **content,
    }  # fmt: skip
    if parameters.get("dataset") == "voc12" and (classes := own_classes(paths.data_dir())):
        result["own_classes"] = list(classes)  # not VOC, so that its numbers are no answer to the paper's
    latest = path.parent.parent / f"latest_{parameters.get('profile', 'smoke')}.json"
    for target in (path, latest):
        write_sealed(target, result, default=_plain)
    return path


def _plain(value: Any) -> Any:
    """Turn numpy numbers and arrays into JSON."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a result holds a {type(value).__name__}; use plain numbers, lists and strings")
