"""The systems of Table 2 (CAM and ReCAM, plain, with IRN, AdvCAM and both), their times and their frame."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recamlib.errors import SettingsError, nearest
from recamlib.report.claims import all_claims, paper_value, sentence, verdict
from recamlib.stages import AdvCams, ExtractCams, MapStage, TrainBoundary, Walk
from recamlib.stages.base import Split
from recamlib.studies.common import make
from recamlib.studies.costs import pipeline_cost

METHODS = ("none", "irn", "advcam", "advcam_irn")
KINDS = ("cam", "recam")
POWER = 1.5  # of AdvCAM's maps before the random walk; IRN's labels come from the maps as they are
BACKGROUND = 0.15  # below it IRN's labels on AdvCAM's maps are background, as published
TITLES = {"none": "no refinement", "irn": "IRN", "advcam": "AdvCAM", "advcam_irn": "AdvCAM + IRN"}


def systems(
    cams: Mapping[str, Sequence[ExtractCams]],
    settings: Mapping[str, Mapping[str, Any]],
    *,
    methods: Sequence[str] = METHODS,
    advcam_images: int = 0,
) -> dict[str, list[MapStage]]:
    """Return the cells of Table 2 as stages, one per seed, named as the paper's columns are.

    Parameters
    ----------
    cams
        ``"cam"`` and ``"recam"`` to the maps of one trained model per seed.
    settings
        Those of `AdvCams`, `TrainBoundary` and `Walk`.
    methods
        Names of the refinements wanted.
    advcam_images
        Size of the random part of the images that AdvCAM runs on, 0 for all.

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
    return {
        f"{method}.{kind}_miou": [refined(maps, method, settings, advcam_images) for maps in stages]
        for method in methods
        for kind, stages in cams.items()
    }


def refined(
    maps: ExtractCams, method: str, settings: Mapping[str, Mapping[str, Any]], advcam_images: int = 0
) -> MapStage:
    """Return maps after a refinement: AdvCAM's of the same model, IRN's walk, or both.

    IRN's boundary network learns from a part of the images if ``TrainBoundary.limit`` says so, and AdvCAM's
    from `advcam_images`, for as many steps as from all of them.
    """
    advanced, block = method.startswith("advcam"), settings.get("TrainBoundary", {})
    if advanced:
        given = {"model": maps.model, "weights": maps.weights, "scales": maps.scales}
        maps, block = make(AdvCams, settings, **given), {**block, "limit": advcam_images}
    if not method.endswith("irn"):
        return maps
    given = {"cams": maps, "seed": maps.seed}
    if advanced:
        block = {"background": BACKGROUND, **block}
    net = make(TrainBoundary, {"TrainBoundary": block}, **given)
    if net.limit:
        repeats = len(maps.dataset.images("train_aug")) / len(net.images())
        block = {**block, "epochs": round(net.epochs * repeats)}
        net = make(TrainBoundary, {"TrainBoundary": block}, **given)
    return make(Walk, settings, cams=maps, boundary=net, power=POWER if advanced else 1.0)


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


def recam_against_advcam(
    times: Mapping[str, Any], rows: Mapping[str, Sequence[MapStage]]
) -> dict[str, Any]:
    """Judge ``recam_vs_advcam_speed`` and ``recam_extra_hours_voc`` on the time column of Table 2.

    The first is a ratio of times on one device and holds if it reaches half of the paper's; with fewer
    than the published 27 steps of AdvCAM, or without it, it is not judged. The second is a time in
    hours on the paper's hardware: what was measured here is given beside "cannot tell".
    """
    recam, paper = times["none.recam_ut"]["mean"], paper_value("prose.recam_vs_advcam_speed")
    cost = times["none.recam_ut"]["seconds"] - times["none.cam_ut"]["seconds"]
    answer, text = "not run", f"ReCAM takes {recam:.1f} ut, AdvCAM was not run"
    if "advcam.cam_ut" in times:
        climbed, steps = times["advcam.cam_ut"]["mean"], rows["advcam.cam_miou"][0].steps
        answer = "holds" if climbed / recam >= paper / 2 else "does not hold"
        answer = answer if steps >= 27 else "cannot tell"
        text = (
            f"ReCAM takes {recam:.1f} ut, AdvCAM {climbed:.1f} with {steps} steps: "
            f"{climbed / recam:.1f} times as long, both as implemented here"
        )
    return {
        "prose.recam_vs_advcam_speed": sentence(
            answer, text,
            rule=f"with 27 steps or more, AdvCAM takes at least half of the paper's {paper:g} times as long",
        ),
        "prose.recam_extra_hours_voc": sentence(
            "cannot tell", f"{cost / 3600:.3f} hours more than CAM here",
            rule="needs the paper's data and device",
        ),
    }


def single_and_multi_label(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Judge Figure 6b on scores of the first seed, keyed as the rows of Table 2.

    Parameters
    ----------
    scores
        ``"none.cam_miou"``, ``"none.recam_miou"``, ``"irn.cam_miou"`` and ``"irn.recam_miou"`` to a `Score`.

    Returns
    -------
    One sentence: holds if all four differences lie above zero, fails if any lies below; without IRN's two it
    cannot hold.
    """
    parts, answers = [], []
    for method in [name for name in ("none", "irn") if f"{name}.recam_miou" in scores]:
        cam, recam = scores[f"{method}.cam_miou"], scores[f"{method}.recam_miou"]
        for name, among in recam.groups().items():
            low, high = recam.interval_of_difference(cam, among=among)
            change = recam.by_label_count()[name] - cam.by_label_count()[name]
            parts.append(f"{name}, {method}: {change:+.1f} [{low:+.1f}, {high:+.1f}]")
            answers.append(verdict((low, high), +1))
    answer = "does not hold" if "does not hold" in answers else "cannot tell"
    if set(answers) == {"holds"} and len(answers) == 4:
        answer = "holds"
    rule = "ReCAM minus CAM lies above zero for both kinds of images, before and after IRN (one seed, images)"
    return {"prose.single_and_multi_label": sentence(answer, "; ".join(parts), rule=rule)}
