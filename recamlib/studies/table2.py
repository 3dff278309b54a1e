"""The systems of Table 2 (CAM and ReCAM, plain, with IRN, AdvCAM and both), their times and their frame."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recamlib.errors import SettingsError, nearest
from recamlib.report.claims import all_claims
from recamlib.stages import AdvCams, ExtractCams, MapStage, Reactivate, TrainBoundary, TrainClassifier, Walk
from recamlib.stages.base import Split
from recamlib.stages.maps import WeightOption
from recamlib.studies.costs import pipeline_cost

METHODS = ("none", "irn", "advcam", "advcam_irn")
KINDS = ("cam", "recam")
POWER = 1.5  # of AdvCAM's maps before IRN, as published
TITLES = {"none": "no refinement", "irn": "IRN", "advcam": "AdvCAM", "advcam_irn": "AdvCAM + IRN"}


def systems(
    models: Mapping[str, Sequence[TrainClassifier | Reactivate]],
    *,
    weights: WeightOption,
    scales: Sequence[float],
    climb: Mapping[str, Any],
    boundary: Mapping[str, Any],
    walk: Mapping[str, Any],
    climbed: int = 0,
    part: int = 0,
    methods: Sequence[str] = METHODS,
) -> dict[str, list[MapStage]]:
    """Return the eight cells of Table 2 as stages, one per seed, named as the paper's columns are.

    Parameters
    ----------
    models
        ``"cam"`` and ``"recam"`` to one trained model per seed.
    weights
        Weight option of ReCAM's maps.
    scales
        Of the images the maps are taken from.
    climb, boundary, walk
        Settings of `AdvCams`, `TrainBoundary` and `Walk`.
    climbed
        Size of the random part of the images that AdvCAM runs on, 0 for all.
    part
        Size of the random part of the training images that IRN learns from where there is no AdvCAM, 0 for
        all.
    methods
        Names of the refinements wanted.

    Raises
    ------
    SettingsError
        If a name is wrong, or there is none.
    """
    if not methods:
        raise SettingsError(f"no refinement is named: give methods one or more of {METHODS}")
    for method in methods:
        if method not in METHODS:
            raise SettingsError(f"unknown refinement {method!r}{nearest(method, METHODS)}: use {METHODS}")
    rows: dict[str, list[MapStage]] = {}
    options = {"cam": "w", "recam": weights}
    for method in methods:
        for kind in KINDS:
            stages = []
            for model in models[kind]:
                common = {"model": model, "weights": options[kind], "scales": tuple(scales)}
                advanced = method.startswith("advcam")
                maps = AdvCams(**common, **climb) if advanced else ExtractCams(**common)
                if method.endswith("irn"):
                    power, limit = (POWER, climbed) if advanced else (1.0, part)
                    net = TrainBoundary(cams=maps, power=power, limit=limit, seed=maps.seed, **boundary)
                    if limit:  # as many steps on a part of the images as on all of them
                        repeats = len(model.dataset.images("train_aug")) / len(net.images())
                        net = TrainBoundary(
                            cams=maps, power=power, limit=limit, seed=maps.seed,
                            **{**boundary, "epochs": round(boundary["epochs"] * repeats)},
                        )  # fmt: skip
                    maps = Walk(cams=maps, boundary=net, power=power, **walk)
                stages.append(maps)
            rows[f"{method}.{kind}_miou"] = stages
    return rows


def title(row: str) -> str:
    """Return the title of a row, for example ``"IRN, ReCAM"`` of ``"irn.recam_ut"``."""
    method, kind = row.split("_miou")[0].split("_ut")[0].split(".")
    return f"{TITLES[method]}, {'CAM' if kind == 'cam' else 'ReCAM'}"


def partners() -> dict[str, str]:
    """Return ReCAM's rows to the CAM rows they are compared with."""
    return {f"{method}.recam_miou": f"{method}.cam_miou" for method in METHODS}


def image_counts(train: int, scored: int, *, methods: Sequence[str], climbed: int) -> dict[str, int]:
    """Return how many images a run of some methods trains on, scores and, if it climbs at all, climbs.

    Examples
    --------
    >>> image_counts(600, 600, methods=["none", "advcam"], climbed=24)
    {'train': 600, 'scored': 600, 'climbed': 24}
    >>> image_counts(600, 600, methods=["none", "irn"], climbed=24)
    {'train': 600, 'scored': 600}
    """
    counts = {"train": train, "scored": scored}
    return counts | ({"climbed": climbed or scored} if set(METHODS[2:]) & set(methods) else {})


def parts_scored(climbed: int) -> dict[str, int]:
    """Return the size of the random part that each row is scored on: AdvCAM's rows on what was climbed."""
    return {f"{method}.{kind}_miou": climbed for method in METHODS[2:] for kind in KINDS}


def unit_times(
    rows: Mapping[str, Sequence[MapStage]], *, split: Split, climbed: int = 0
) -> dict[str, dict[str, Any]]:
    """Return the time of every cell in units of the CAM baseline's, seconds and parts beside it.

    Keys are those of the paper's time column, for example ``"irn.recam_ut"``. Means over seeds.
    """
    if "none.cam_miou" not in rows:
        raise SettingsError("the unit of time is CAM without refinement: add 'none' to methods")
    costs = {}
    for name, stages in rows.items():
        limit = parts_scored(climbed).get(name, 0)
        costs[name.replace("_miou", "_ut")] = [pipeline_cost(s, split=split, limit=limit) for s in stages]
    unit = np.mean([cost["seconds"] for cost in costs["none.cam_ut"]])
    return {
        name: {
            "mean": float(np.mean([cost["seconds"] for cost in found]) / unit),
            "seconds": float(np.mean([cost["seconds"] for cost in found])),
            "parts": {part: float(np.mean([c["parts"][part] for c in found])) for part in found[0]["parts"]},
            "peak_memory_mib": max(cost["peak_memory_mib"] for cost in found),
            "devices": sorted({device for cost in found for device in cost["devices"]}),
            "seeds": len(found),
        }
        for name, found in costs.items()
    }


def frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return Table 2, paper beside measured: one row per refinement, mIoU in percent, time in ut."""
    data = result["parameters"]["dataset"]
    column = data if data in ("voc12", "coco14") else "voc12"
    paper = {claim.id: claim.value for claim in all_claims()}
    rows = []
    for method in [name for name in METHODS if f"{name}.cam_miou" in result["rows"]]:
        row: dict[str, Any] = {"refinement": TITLES[method]}
        for kind, title in zip(KINDS, ("CAM", "ReCAM")):
            here = result["rows"][f"{method}.{kind}_miou"]
            row |= {
                f"{title} paper": paper[f"table2.{method}.{kind}_miou.{column}"],
                f"{title} here": here["mean"], f"{title} low": here["low"], f"{title} high": here["high"],
            }  # fmt: skip
        row |= {"difference": here["difference"], "difference low": here["difference_interval"][0],
                "difference high": here["difference_interval"][1], "images": here["images"]}  # fmt: skip
        for kind, title in zip(KINDS, ("CAM", "ReCAM")):
            row |= {
                f"{title} ut paper": paper[f"table2.{method}.{kind}_ut.{column}"],
                f"{title} ut here": result["rows"][f"{method}.{kind}_ut"]["mean"],
            }
        rows.append(row)
    return pd.DataFrame(rows).set_index("refinement")


def groups_frame(scores: Mapping[str, Any]) -> pd.DataFrame:
    """Return Figure 6b: mIoU of single- and multi-label images, columns ``group, method, kind, miou``."""
    rows = []
    for name, row in scores.items():
        method, kind = name.removesuffix("_miou").split(".")
        for group, value in row["by_label_count"].items():
            rows.append({"group": group, "method": TITLES[method], "kind": kind, "miou": value})
    return pd.DataFrame(rows)
