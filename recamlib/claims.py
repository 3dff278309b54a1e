"""The paper's numbers against measured ones: addressed results, comparisons, verdicts by a stated rule."""

import datetime
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from scipy import stats

from recamlib import paths
from recamlib.data.voc import own_classes
from recamlib.errors import RecamError
from recamlib.provenance import commit, device_name, versions

RULE = (
    "A row of a table holds here if the 95 % interval of its difference to its baseline lies wholly on "
    "the paper's side of zero, does not hold if it lies wholly on the other side, and cannot be told if "
    "it contains zero. The baseline is BCE alone in Table 1 and CAM in the same row and column in Tables "
    "2 and 3. A claim made in a sentence is tested by the rule printed in its notebook. Absolute numbers "
    "are compared only on the full official data; on any other data they are shown for scale. Numbers of "
    "the test split come from its server and are entered with their link, not measured: no verdict."
)
VERDICTS = ("holds", "does not hold", "cannot tell", "reference", "entered", "not run")
SYNTHETIC = {"hoofed"}


@dataclass(frozen=True)
class Claim:
    """One number or sentence of the paper: where it stands, its value (None for a sentence), its baseline."""

    id: str
    where: str
    value: float | None = None
    baseline: str | None = None


def load_paper() -> dict[str, Any]:
    """Return the paper's numbers as transcribed in ``data/claims.yml``."""
    return yaml.safe_load((paths.ROOT / "data" / "claims.yml").read_text())


@functools.cache
def all_claims() -> tuple[Claim, ...]:
    """Return every claim of the paper: each cell of Tables 1 to 4 and each sentence, in the paper's order."""
    paper, claims = load_paper(), []
    table = paper["table1"]
    for column, name in enumerate(table["columns"]):
        for row, entry in table["rows"].items():
            baseline = None if row == "bce_only" else f"table1.bce_only.{name}"
            claims.append(Claim(f"table1.{row}.{name}", "Table 1", entry["values"][column], baseline))
    for name in ("table2", "table3"):
        for data in ("voc12", "coco14"):
            block = paper[name][data]
            columns = block["columns"] if "columns" in block else paper[name]["columns"]
            for row, values in ((r, v) for r, v in block.items() if r != "columns"):
                for column, value in zip(columns, values):
                    partner = column.replace("recam", "cam")
                    measured = partner != column and not column.endswith("_ut")  # a time is only shown
                    baseline = f"{name}.{row}.{partner}.{data}" if measured else None
                    where = f"Table {name[-1]}"
                    claims.append(Claim(f"{name}.{row}.{column}.{data}", where, value, baseline))
    for side in ("without_saliency", "with_saliency"):
        for row, entry in paper["table4"][side].items():
            values = entry["values"] if isinstance(entry, dict) else entry
            for split, value in zip(("val", "test"), values):
                claims.append(Claim(f"table4.{side}.{row}.{split}", "Table 4", value))
    for name, entry in paper["prose"].items():
        claims.append(Claim(f"prose.{name}", entry["where"], entry.get("value")))
    return tuple(claims)


def paper_value(claim_id: str) -> float | None:
    """Return the paper's number for a claim id, or None for a sentence.

    Raises
    ------
    RecamError
        If there is no such claim.

    Examples
    --------
    >>> paper_value("table1.bce_only.voc12")
    48.8
    """
    for claim in all_claims():
        if claim.id == claim_id:
            return claim.value
    raise RecamError(f"no claim {claim_id!r} in data/claims.yml")


def seed_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float, float]:
    """Return mean and t-interval of one number per seed; a single seed has no interval (nan).

    Examples
    --------
    >>> [round(v, 2) for v in seed_interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, float("nan"), float("nan")
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def verdict(difference: tuple[float, float], paper_sign: float) -> str:
    """Return the verdict on a difference: its interval (low, high) against the sign of the paper's.

    Examples
    --------
    >>> verdict((0.5, 2.0), +6.0), verdict((-3.0, -1.0), +6.0), verdict((-1.0, 1.0), +6.0)
    ('holds', 'does not hold', 'cannot tell')
    """
    low, high = sorted(np.sign(paper_sign) * np.asarray(difference, dtype=float))
    if low > 0:
        return "holds"
    return "does not hold" if high < 0 else "cannot tell"


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
    """Return a stored result."""
    return json.loads(Path(path).read_text())


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
    part = path.with_suffix(f".part{os.getpid()}")
    part.write_text(json.dumps(result, indent=1, default=_plain) + "\n")
    os.replace(part, path)
    latest = path.parent.parent / f"latest_{parameters.get('profile', 'smoke')}.json"
    latest.write_text(path.read_text())
    return path


def _plain(value: Any) -> Any:
    """Turn numpy numbers and arrays into JSON."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a result holds a {type(value).__name__}; use plain numbers, lists and strings")


def table_row(
    values: Sequence[float],
    *,
    baseline: Sequence[float] | None = None,
    interval: tuple[float, float] | None = None,
    difference: tuple[float, float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return one measured row: mIoU per seed in percent, mean, interval, and its difference to the first row.

    With several seeds both intervals are t-intervals over seeds (differences paired by seed); with one seed
    they are the bootstrap intervals over images handed in, and the row says so.
    """
    mean, low, high = seed_interval(values)
    row = {"per_seed": list(values), "mean": mean, "seeds": len(values)}
    row["interval_over"] = "seeds" if len(values) > 1 else "images"
    row["low"], row["high"] = (low, high) if len(values) > 1 else (interval or (None, None))
    if baseline is not None:
        delta, *span = seed_interval(np.subtract(values, baseline))
        row["difference"] = delta
        row["difference_interval"] = span if len(values) > 1 else list(difference or (None, None))
    return {**row, **more}


def sentence(answer: str, evidence: str, **numbers: Any) -> dict[str, Any]:
    """Return the verdict on a claim made in a sentence, with what it rests on."""
    if answer not in VERDICTS:
        raise RecamError(f"{answer!r} is no verdict; use one of {', '.join(VERDICTS)}")
    return {"verdict": answer, "evidence": evidence, "numbers": numbers}


def curve(rows: dict[str, dict[str, Any]], *, name: str) -> pd.DataFrame:
    """Return rows keyed by a number as a frame with columns ``<name>, mean, low, high``, ascending."""
    frame = pd.DataFrame([{name: float(key), **row} for key, row in rows.items()])
    return frame[[name, "mean", "low", "high"]].sort_values(name)


def compare(table: str, result: dict[str, Any]) -> pd.DataFrame:
    """Return paper beside measured for the rows of one table, as a plain frame in percent.

    Rows of the result that the paper does not have (controls) are kept, with no paper value.
    """
    data = result["parameters"]["dataset"]
    column = data if data in ("voc12", "coco14") else "voc12"
    rows = []
    for name, row in result["rows"].items():
        claim_id = f"{table}.{name}.{column}"
        known = next((c for c in all_claims() if c.id == claim_id), None)
        rows.append({
            "row": name, f"paper ({column})": known.value if known else None, "here": row["mean"],
            "low": row["low"], "high": row["high"], "difference": row.get("difference"),
            "difference low": row.get("difference_interval", [None])[0],
            "difference high": row.get("difference_interval", [None])[-1],
            "fixed threshold": row.get("fixed"), "best threshold": row.get("best"),
            "images": result["images"]["scored"], "seeds": row["seeds"], "data": data,
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("row")
