"""How the responses of a planned experiment are read: once, by a rule that was written down before."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from recamlib.method.scores import bootstrap_difference
from recamlib.report.claims import sentence

CENTRE = "centre"

RULE = (
    "reactivation raises (lowers) a level if both its interval over seeds, simultaneous over all levels, and "
    "its interval over images lie above (below) zero; a factor decides the sign if it has levels of both "
    "kinds, the centre being a level of every factor"
)
At = Literal["cross", "fixed"]


def pooled_interval(values: np.ndarray, *, levels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return t-intervals over seeds, with one spread for all levels.

    Parameters
    ----------
    values
        Shape ``(L, S)``: levels, seeds.
    levels
        Number of intervals that are to hold together (Bonferroni), 1 for 95 % each.

    Returns
    -------
    Lower and upper ends, ``(L,)``; nan with a single seed. Few seeds give a poor estimate of a level's own
    spread, so it is pooled: the spread is taken to be the seeds', alike at every level.

    Examples
    --------
    >>> low, high = pooled_interval(np.array([[1.0, 3.0], [5.0, 7.0]]))
    >>> low.round(2).tolist(), high.round(2).tolist()
    ([-2.3, 1.7], [6.3, 10.3])
    """
    count, seeds = values.shape
    mean = values.mean(1)
    if seeds < 2:
        return np.full(count, np.nan), np.full(count, np.nan)
    freedom = count * (seeds - 1)
    spread = np.sqrt(((values - mean[:, None]) ** 2).sum() / freedom)
    half = stats.t.ppf(1 - 0.025 / levels, freedom) * spread / np.sqrt(seeds)
    return mean - half, mean + half


def table(responses: Sequence[Mapping[str, Any]], *, at: At = "cross") -> pd.DataFrame:
    """Return one row per level, the centre first; all numbers are points of mIoU or percent of pixels.

    Columns: ``factor``; ``cam`` and ``recam`` with ``low`` and ``high`` over seeds; their ``difference`` with
    ``low`` and ``high`` over seeds (simultaneous) and ``images low``, ``images high`` over images (paired
    bootstrap of the counts summed over seeds); ``change`` of the difference from the centre's, paired by
    seed, with ``change low`` and ``change high`` (simultaneous); ``false_positives``, ``false_negatives``;
    ``sign`` by `RULE`; ``seeds``.
    """
    names = list(dict.fromkeys(r["level"] for r in responses))
    grouped = [[r for r in responses if r["level"] == name] for name in names]
    values = np.array([[r[at]["miou"] for r in group] for group in grouped])  # (L, S)
    low, high = pooled_interval(values, levels=len(names))
    alone = {key: np.array([[r[key] for r in group] for group in grouped]) for key in ("cam", "recam")}
    spans = {key: pooled_interval(found) for key, found in alone.items()}
    changes = (values - values[:1])[1:]
    ends = pooled_interval(changes, levels=max(1, len(changes))) if len(changes) else ([], [])
    rows = []
    for i, (name, group) in enumerate(zip(names, grouped)):
        after, before = (sum(r["counts"][at][side] for r in group) for side in (0, 1))
        span = [100 * end for end in bootstrap_difference(after, before, seed=0)]
        rows.append({
            "level": name, "factor": group[0]["factor"],
            **{key: found[i].mean() for key, found in alone.items()},
            **{f"{key} {end}": spans[key][j][i] for key in alone for j, end in enumerate(("low", "high"))},
            "difference": values[i].mean(), "low": low[i], "high": high[i],
            "images low": span[0], "images high": span[1],
            "change": changes[i - 1].mean() if i else np.nan,
            "change low": ends[0][i - 1] if i else np.nan, "change high": ends[1][i - 1] if i else np.nan,
            **{key: float(np.mean([r[at][key] for r in group]))
               for key in ("false_positives", "false_negatives")},
            "sign": sign((low[i], high[i]), tuple(span)), "seeds": len(group),
        })  # fmt: skip
    return pd.DataFrame(rows).set_index("level")


def sign(*intervals: tuple[float, float]) -> str:
    """Return whether intervals all lie above zero (raises), all below (lowers), or it cannot be told.

    Examples
    --------
    >>> sign((1, 2), (0.5, 3)), sign((-2, -1), (-1, -0.5)), sign((-1, 1)), sign((float("nan"), 1.0), (1, 2))
    ('raises', 'lowers', 'cannot tell', 'cannot tell')
    """
    if all(low > 0 for low, _ in intervals):
        return "raises"
    return "lowers" if all(high < 0 for _, high in intervals) else "cannot tell"


def signed(value: float, low: float, high: float) -> str:
    """Return a difference with its interval, or without where there is none.

    Examples
    --------
    >>> signed(1.25, -0.5, 3.0), signed(-0.01, float("nan"), float("nan"))
    ('+1.2 [-0.5, +3.0]', '+0.0 (one seed)')
    """
    value, low, high = (0.0 if abs(v) < 0.05 else v for v in (value, low, high))
    return f"{value:+.1f} " + ("(one seed)" if np.isnan(low) else f"[{low:+.1f}, {high:+.1f}]")


def deciding(frame: pd.DataFrame) -> list[str]:
    """Return the factors that decide the sign, by `RULE`."""
    factors = [name for name in dict.fromkeys(frame["factor"]) if name != CENTRE]
    return [
        factor for factor in factors
        if {"raises", "lowers"} <= {*frame.loc[frame["factor"].isin([factor, CENTRE]), "sign"]}
    ]  # fmt: skip


def moving(frame: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Return the levels whose change from the centre's difference is not zero: mean, low, high."""
    rows = frame[(frame["change low"] > 0) | (frame["change high"] < 0)]
    return {name: (row["change"], row["change low"], row["change high"]) for name, row in rows.iterrows()}


def answer(frame: pd.DataFrame) -> dict[str, Any]:
    """Return what the whole plan says: does a factor decide the sign of what reactivation does?"""
    found, moved = deciding(frame), moving(frame)
    centre = frame.loc[CENTRE]
    text = f"at the centre {signed(centre['difference'], centre['low'], centre['high'])}"
    kinds = frame["sign"].value_counts()
    text += "; " + ", ".join(f"{kinds.get(k, 0)} levels: {k}" for k in ("raises", "lowers", "cannot tell"))
    if moved:
        text += "; what moves it: " + ", ".join(f"{name} {signed(*span)}" for name, span in moved.items())
    if found:
        return sentence("holds", f"decides: {', '.join(found)}; {text}", rule=RULE)
    settled = not (frame["sign"] == "cannot tell").any()
    return sentence("does not hold" if settled else "cannot tell", text, rule=RULE)


def changed(frame: pd.DataFrame) -> dict[str, Any]:
    """Return whether any level moves what reactivation gains: the momentum slip, the masks' gradient."""
    keys = ("change", "change low", "change high")
    text = "; ".join(f"{name} {signed(*(row[k] for k in keys))}" for name, row in frame.iloc[1:].iterrows())
    rule = "some level changes ReCAM minus CAM of the centre: its interval over seeds does not contain zero"
    # an interval that contains zero does not show that nothing changes
    return sentence("holds" if moving(frame) else "cannot tell", text, rule=rule)


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the columns people look at, named for `recamlib.report.tables.shown`."""
    names = {"cam": "CAM", "recam": "ReCAM"}
    parts = {}
    for key, title in names.items():
        parts |= {title: frame[key]} | {f"{title} {end}": frame[f"{key} {end}"] for end in ("low", "high")}
    for title, low, high in (
        ("difference (seeds)", "low", "high"), ("difference (images)", "images low", "images high"),
    ):  # fmt: skip
        parts |= {title: frame["difference"], f"{title} low": frame[low], f"{title} high": frame[high]}
    parts |= {key: frame[key] for key in ("change", "change low", "change high")}
    parts |= {key.replace("_", " "): frame[key] for key in ("false_positives", "false_negatives")}
    return pd.DataFrame(parts | {key: frame[key] for key in ("sign", "seeds")})


def rows(name: str, frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the levels of a study as rows of a result, ``"STUDY: level"``; the mean is the difference."""
    kept = frame.astype(object).where(frame.notna(), None)
    return {
        f"{name}: {level}": {"mean": row["difference"], **row.to_dict()} for level, row in kept.iterrows()
    }
