"""What notebook 06 asks beyond the paper: Table 1 on other backbones, and settings changed one at a time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recamlib.report.cells import columns, words
from recamlib.report.claims import seed_interval, sentence, signed
from recamlib.stages.base import DataSettings
from recamlib.stages.classify import Reactivate, TrainClassifier
from recamlib.stages.maps import ExtractCams
from recamlib.stages.score import Score
from recamlib.studies.common import Blocks, make, score_table
from recamlib.studies.table1 import ROWS


def trained(data: DataSettings, settings: Blocks, *, seeds: Sequence[int], **given: Any) -> list[Reactivate]:
    """Return the reactivation of one classifier a seed; `given` are fields of `TrainClassifier`."""
    bases = [make(TrainClassifier, settings, dataset=data, seed=seed, **given) for seed in seeds]
    return [make(Reactivate, settings, base=base) for base in bases]


def table1(models: Sequence[Reactivate], settings: Blocks) -> dict[str, dict[str, Any]]:
    """Return Table 1's row of BCE and those of ReCAM, with ``seconds`` of trainings and an image's maps."""
    scores = {"bce_only": _scored([model.base for model in models], settings)}
    scores |= {row: _scored(models, settings, option) for option, row in ROWS.items()}
    table = score_table(scores, baseline="bce_only")
    first = scores["bce_only"]
    costs = [[item["cost"]["seconds"] for _, item in s.of.run("train", limit=s.limit)] for s in first]
    seconds = {
        "classifier": float(np.mean([model.base.result["cost"]["seconds"] for model in models])),
        "reactivation": float(np.mean([model.result["cost"]["seconds"] for model in models])),
        "maps": float(np.mean(costs)),
    }
    return {name: row | {"seconds": seconds} for name, row in table.items()}


def _scored(
    models: Sequence[TrainClassifier | Reactivate], settings: Mapping[str, Any], option: str = "w"
) -> list[Score]:
    maps = [make(ExtractCams, settings, model=model, weights=option) for model in models]
    return [make(Score, settings, of=cams, split="train") for cams in maps]


def table1_frame(tables: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return `table1` of several backbones as a frame: one line per backbone and row, cost beside it."""
    lines = {
        (backbone, words(name)): {
            **columns(row, "mIoU", "difference"),
            "mAP": float(np.mean(row["average_precision"])),
            **{f"seconds, {part}": f"{value:.3g}" for part, value in row["seconds"].items()},
        }
        for backbone, table in tables.items() for name, row in table.items()
    }  # fmt: skip
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis(index=["backbone", "row"])


def gain(models: Sequence[Reactivate], settings: Blocks, *, option: str) -> dict[str, dict[str, Any]]:
    """Return the rows ``cam``, ``recam`` with an option, and the other options; without SCE ``w`` alone."""
    options = {"recam": option, **{row: o for o, row in ROWS.items() if o != option}}
    if not models[0].sce_weight:  # a control
        options = {"recam": "w"}
    scores = {"cam": _scored([model.base for model in models], settings)}
    scores |= {row: _scored(models, settings, chosen) for row, chosen in options.items()}
    return score_table(scores, baseline="cam")


def changed(gains: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return by how much every change moves ReCAM minus CAM from that of the first entry, paired by seed.

    Intervals hold together over all changes (Bonferroni); a single seed has none.
    """
    own = {name: np.subtract(g["recam"]["per_seed"], g["cam"]["per_seed"]) for name, g in gains.items()}
    first, *others = own
    level = 1 - 0.05 / max(1, len(others))
    moves = {name: seed_interval(own[name] - own[first], level=level) for name in others}
    worst = {n: min(gains[first]["recam"], gains[n]["recam"], key=lambda r: r["converged"]) for n in others}
    return {
        name: {"change": mean, "change_interval": [low, high]}
        | {key: worst[name][key] for key in ("converged", "convergence")}
        for name, (mean, low, high) in moves.items()
    }


def changes_frame(gains: Mapping[str, Mapping[str, Any]], moves: Mapping[str, Any]) -> pd.DataFrame:
    """Return CAM, ReCAM and their difference under every change, and how far it moved from the first."""
    lines = {}
    for name, rows in gains.items():
        cam, recam = rows["cam"], rows["recam"]
        lines[name] = {"CAM here": cam["mean"], "CAM low": cam["low"], "CAM high": cam["high"]}
        lines[name] |= columns(recam, "ReCAM", "difference")
        if name in moves:
            low, high = moves[name]["change_interval"]
            lines[name] |= {"change": moves[name]["change"], "change low": low, "change high": high}
    return pd.DataFrame.from_dict(lines, orient="index").astype(float)


def moved(moves: Mapping[str, Any]) -> dict[str, Any]:
    """Judge whether any change under which all has converged moves what reactivation gains."""
    ready = [move for move in moves.values() if move["converged"]]
    parts = (
        f"{name} {signed(m['change'], *m['change_interval'])}"
        + f" (not converged: {m['convergence']})" * (not m["converged"]) for name, m in moves.items()
    )  # fmt: skip
    rule = "some change moves ReCAM minus CAM: its interval over seeds, one for all, does not contain zero"
    # an interval that contains zero does not show that nothing changes
    spans = [move["change_interval"] for move in ready]
    answer = "holds" if any(low > 0 or high < 0 for low, high in spans) else "cannot tell"
    text = "; ".join(parts) or "nothing was changed"
    return sentence(answer, text, rows=ready or moves.values(), rule=rule)
