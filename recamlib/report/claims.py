"""The paper's numbers against measured ones: addressed results, comparisons, verdicts by a stated rule."""

import datetime
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pydantic
from scipy import stats

from recamlib import paths
from recamlib.errors import RecamError, check_choice, nearest
from recamlib.files import read_yaml

TABLE4 = {"ReCAM": "IRN", "ReCAM-E": "EPS", "ReCAM-M": "EDAM"}  # rows that are judged, and their baselines
SERVER = "http://host.robots.ox.ac.uk:8080"  # scores the test split of VOC
MARKS = {
    "holds": "✔ holds", "does not hold": "✘ does not hold", "cannot tell": "? cannot tell",
    "not converged": "… not converged", "reference": "– reference", "entered": "entered, not measured",
    "not run": "not run",
}  # fmt: skip
SYNTHETIC = {"hoofed"}


@dataclass(frozen=True)
class Claim:
    """One number or sentence of the paper: where it stands, its value (None for a sentence), its baseline."""

    id: str
    where: str
    value: float | None = None
    baseline: str | None = None

    @property
    def difference(self) -> float:
        """By how many points the paper's number differs from that of its baseline."""
        return self.value - paper_values()[self.baseline]


def load_paper() -> dict[str, Any]:
    """Return the paper's numbers as in ``data/claims.yml``."""
    return read_yaml(paths.ROOT / "data" / "claims.yml")


@functools.cache
def all_claims() -> tuple[Claim, ...]:
    """Return every claim of the paper: each cell of Tables 1 to 4 and each sentence, in the paper's order."""
    return tuple(_claims(load_paper()))


def _claims(paper: dict[str, Any]) -> Iterator[Claim]:
    for column, name in enumerate(paper["table1"]["columns"]):
        for row, entry in paper["table1"]["rows"].items():
            baseline = None if row == "bce_only" else f"table1.bce_only.{name}"
            yield Claim(f"table1.{row}.{name}", "Table 1", entry["values"][column], baseline)
    for name, data in itertools.product(("table2", "table3"), ("voc12", "coco14")):
        block = dict(paper[name][data])
        columns = block.pop("columns", None) or paper[name]["columns"]
        for row, values in block.items():
            for column, value in zip(columns, values):
                partner = column.replace("recam", "cam")
                measured = partner != column and not column.endswith("_ut")  # a time is only shown
                baseline = f"{name}.{row}.{partner}.{data}" if measured else None
                yield Claim(f"{name}.{row}.{column}.{data}", f"Table {name[-1]}", value, baseline)
    for side in ("without_saliency", "with_saliency"):
        for row, entry in paper["table4"][side].items():
            values = entry["values"] if isinstance(entry, dict) else entry
            for split, value in zip(("val", "test"), values):
                baseline = f"table4.{side}.{TABLE4[row]}.{split}" if row in TABLE4 else None
                yield Claim(f"table4.{side}.{row}.{split}", "Table 4", value, baseline)
    for name, entry in paper["prose"].items():
        yield Claim(f"prose.{name}", entry["where"], entry.get("value"))


class ServerNumber(pydantic.BaseModel, extra="forbid", frozen=True):
    """A mean IoU (percent) of the test split that the evaluation server returned, and its page there."""

    value: float = pydantic.Field(strict=True, ge=1, le=100)  # not a fraction
    link: str = pydantic.Field(pattern=r"^https?://[a-zA-Z0-9.:-]+(/[\w.~%-]+)*/anonymous/[\w.~%-]+$")
    date: datetime.date


def server_numbers() -> dict[str, ServerNumber]:
    """Return what ``book/measured/server.yml`` holds, by claim; such numbers are entered, not measured."""
    path = paths.book_dir() / "measured" / "server.yml"
    if not path.is_file():
        return {}
    known = [claim.id for claim in all_claims() if claim.id.endswith(("_test.voc12", ".test"))]
    try:
        numbers = pydantic.TypeAdapter(dict[str, ServerNumber]).validate_python(read_yaml(path))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise RecamError(f"{path}, {where}: {first['msg']}") from None
    for name in set(numbers) - set(known):
        hint = nearest(name, known) or f"; they look like {known[0]}"
        raise RecamError(f"{path}: {name!r} is no number of the test split{hint}")
    return numbers


@functools.cache
def paper_values() -> dict[str, float | None]:
    """Return the paper's numbers by claim, None for a sentence."""
    return {claim.id: claim.value for claim in all_claims()}


def seed_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float, float]:
    """Return mean and t-interval of one number per seed; a single seed has no interval (nan).

    >>> [round(v, 2) for v in seed_interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    mean, half = float(np.mean(values)), float("nan")
    if len(values) > 1:
        half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1) * stats.sem(values))
    return mean, mean - half, mean + half


def verdict(difference: tuple[float, float], paper_sign: float) -> str:
    """Return the verdict on a difference: its interval (low, high) against the sign of the paper's.

    >>> verdict((0.5, 2.0), +6.0), verdict((-3.0, -1.0), +6.0), verdict((-1.0, 1.0), +6.0)
    ('holds', 'does not hold', 'cannot tell')
    """
    low, high = sorted(np.sign(paper_sign) * np.asarray(difference, dtype=float))
    if low > 0:
        return "holds"
    return "does not hold" if high < 0 else "cannot tell"


def joint_verdict(answers: Sequence[str]) -> str:
    """Return the verdict on a claim of several parts: each of them has to hold, and none may not."""
    if "does not hold" in answers:
        return "does not hold"
    return "holds" if set(answers) == {"holds"} else "cannot tell"


def signed(value: float, low: float | None, high: float | None) -> str:
    """Return a difference with its interval, where there is one.

    >>> signed(1.2, -0.5, 3.0), signed(1.2, None, None)  # as JSON has it without an interval
    ('+1.2 [-0.5, +3.0]', '+1.2 (one seed)')
    """
    value, low, high = (np.nan if v is None else 0.0 if abs(v) < 0.05 else v for v in (value, low, high))
    return f"{value:+.1f} " + ("(one seed)" if np.isnan(low) else f"[{low:+.1f}, {high:+.1f}]")


def row_verdict(row: dict[str, Any], paper_sign: float) -> str:
    """Return the verdict on a row's difference; none where it or its baseline is no better than its floor.

    >>> row = {"mean": 30.0, "difference": 2.0, "difference_interval": [1.0, 3.0], "floor": 17.0}
    >>> [row_verdict(row | more, +6) for more in ({}, {"converged": False}, {"floor": 29.0})]
    ['holds', 'not converged', 'cannot tell']
    """
    if "difference_interval" not in row:
        return "reference"
    if row.get("converged") is False:
        return "not converged"
    if min(row["mean"], row["mean"] - row["difference"]) <= row.get("floor", -np.inf):
        return "cannot tell"
    return verdict(tuple(row["difference_interval"]), paper_sign)


def table_row(
    values: Sequence[float], *, baseline: Sequence[float] | None = None,
    interval: tuple[float, float] | None = None, difference: tuple[float, float] | None = None, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return one measured row: mIoU per seed in percent, mean, and its difference to a baseline's.

    Intervals are over seeds (t; differences paired by seed), of a single seed those over images given.
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


def sentence(
    answer: str, evidence: str, *, rows: Iterable[Mapping[str, Any]] = (), **numbers: Any
) -> dict[str, Any]:
    """Return the verdict on a claim made in a sentence: "not converged" if one of the `rows` has not."""
    check_choice("verdict", answer, MARKS)
    late = next((row["convergence"] for row in rows if row.get("converged") is False), None)
    if late and answer in ("holds", "does not hold", "cannot tell"):
        answer, evidence = "not converged", f"not converged: {late}; {evidence}"
    return {"verdict": answer, "evidence": evidence, "numbers": numbers}


def all_rows_hold(rows: Mapping[str, Mapping[str, Any]], rule: str) -> dict[str, Any]:
    """Judge whether the differences of all rows lie above zero."""
    answer = joint_verdict([verdict(row["difference_interval"], +1) for row in rows.values()])
    parts = (f"{n} {signed(row['difference'], *row['difference_interval'])}" for n, row in rows.items())
    return sentence(answer, "; ".join(parts), rows=rows.values(), rule=rule)


def curve(rows: dict[str, dict[str, Any]], *, name: str) -> pd.DataFrame:
    """Return rows keyed by a number as a frame with columns ``<name>, mean, low, high``, ascending."""
    frame = pd.DataFrame([{name: float(key), **row} for key, row in rows.items()])
    return frame[[name, "mean", "low", "high"]].sort_values(name)
