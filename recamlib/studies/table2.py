"""The systems of Table 2 (CAM and ReCAM, plain, with IRN, AdvCAM and both), their times and their frame."""

import functools
import time
import warnings
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from recamlib.errors import SettingsError, check_choice
from recamlib.method.scores import masked_argmax
from recamlib.report.cells import KINDS as TITLES
from recamlib.report.cells import METHODS, Cell, cam_beside_recam
from recamlib.report.claims import joint_verdict, paper_values, sentence, signed, verdict
from recamlib.stages.base import Request, Split, Stage
from recamlib.stages.maps import AdvCams, ExtractCams, MapStage
from recamlib.stages.refine import TrainBoundary, Walk
from recamlib.studies.common import Blocks, convergence_of, make

KINDS = ("cam", "recam")
POWER = 1.5  # of AdvCAM's maps before the random walk; IRN's labels come from the maps as they are
BACKGROUND = 0.15  # below it IRN's labels on AdvCAM's maps are background, as published
cell = functools.partial(Cell, "table2")  # of a method and a kind
TIMED = 16  # images whose masks are made once more to time the last step, which no stage stores


def systems(
    cams: Mapping[str, Sequence[ExtractCams]], settings: Blocks, *, methods: Sequence[str] = tuple(METHODS),
    advcam_images: int = 0,
) -> dict[Cell, list[MapStage]]:  # fmt: skip
    """Return the cells of Table 2 as stages, one per seed, from maps of ``"cam"`` and ``"recam"``.

    AdvCAM runs on a random part of the images, of the size `advcam_images`, 0 for all.
    """
    for method in methods or [""]:
        check_choice("refinement", method, METHODS)
    return {
        cell(method, kind): [refined(maps, method, settings, advcam_images) for maps in stages]
        for method in methods for kind, stages in cams.items()
    }  # fmt: skip


def refined(maps: ExtractCams, method: str, settings: Blocks, advcam_images: int = 0) -> MapStage:
    """Return maps after a refinement: AdvCAM's of the same model, IRN's walk, or both.

    IRN's boundary network learns from ``TrainBoundary.limit`` images, AdvCAM's from `advcam_images`, if
    either is given, for as many steps as from all of them.
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


def part_of(cell: Cell, advcam_images: int) -> int:
    """Return the size of the part of the images that a cell is of: 0, for all, but with AdvCAM."""
    return advcam_images if cell.method.startswith("advcam") else 0


def pipeline_cost(stage: MapStage, *, split: Split, limit: int = 0) -> dict[str, Any]:
    """Return what it takes to go from nothing to the 0-1 masks of all training images (Table 2).

    Trainings count with the seconds they recorded; stages per image with the mean of their records on the
    images named here, times the number of training images. Records of several ``devices`` are warned of.
    """
    images = len(stage.dataset.images("train_aug"))
    records = _records(stage, [(split, name) for name in stage.images(split, limit=limit).ids])
    costs = [cost for *_, part in records.values() for cost in part]
    devices = sorted({cost["device"] for cost in costs})
    if len(devices) > 1:
        warnings.warn(
            f"the seconds of {type(stage).__name__} come from different devices ({'; '.join(devices)}): "
            "run it again in an empty results folder before reading its time",
            stacklevel=2,
        )
    parts: dict[str, float] = {}
    for step, work, part in records.values():
        seconds = float(np.mean([cost["seconds"] for cost in part])) * (images if work == "images" else 1)
        parts[step] = parts.get(step, 0.0) + seconds
    parts["masks"] = images * _mask_seconds(stage, split)
    return {
        "seconds": sum(parts.values()), "parts": parts,
        "peak_memory_mib": float(max(cost["peak_memory_mib"] for cost in costs)), "devices": devices,
    }  # fmt: skip


def _records(stage: Stage, requests: Sequence[Request]) -> dict[str, tuple[str, str, list[dict[str, Any]]]]:
    """Return each stage's step, kind of work and costs, upstream first; before a training on its images."""
    if not stage.step:
        return {}
    records: dict[str, tuple[str, str, list[dict[str, Any]]]] = {}
    for before in stage.upstream:
        records = _records(before, stage.requests if stage.work == "training" else requests) | records
    made = stage.items(requests) if stage.work == "images" else [stage.result]
    return records | {stage.uid: (stage.step, stage.work, [item["cost"] for item in made])}


def _mask_seconds(stage: MapStage, split: Split) -> float:
    """Return the median seconds that merging maps and cutting them at a threshold takes an image."""
    times = []
    for name in islice(stage.dataset.images(split).ids, TIMED):
        item = next(iter(stage.items([(split, name)])))
        start = time.perf_counter()
        masked_argmax(stage.merge(item).numpy(), stage.fixed_threshold)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def unit_times(
    rows: Mapping[Cell, Sequence[MapStage]], *, split: Split, advcam_images: int = 0
) -> dict[Cell, dict[str, Any]]:
    """Return the time of every cell in units of the CAM baseline's, seconds and parts: means over seeds."""
    if cell("none", "cam") not in rows:
        raise SettingsError("the unit of time is CAM without refinement: add 'none' to methods")
    times = {}
    for place, stages in rows.items():
        costs = [pipeline_cost(s, split=split, limit=part_of(place, advcam_images)) for s in stages]
        times[place] = {
            "seconds": float(np.mean([cost["seconds"] for cost in costs])),
            "parts": {part: float(np.mean([c["parts"][part] for c in costs])) for part in costs[0]["parts"]},
            "peak_memory_mib": max(cost["peak_memory_mib"] for cost in costs), "seeds": len(costs),
            "devices": sorted({device for cost in costs for device in cost["devices"]}),
        }  # fmt: skip
    unit = times[cell("none", "cam")]["seconds"]
    return {place: {"mean": row["seconds"] / unit, **row} for place, row in times.items()}


def frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return Table 2, paper beside measured: one row per refinement, mIoU in percent, time in ut."""
    stored, rows = result["rows"], {}
    for method, title in METHODS.items():
        cells = [cell(method, kind) for kind in KINDS]
        if row := cam_beside_recam(*cells, result):
            row["images"] = stored[cells[1].row]["images"]
            for place in cells:
                name = place.claim_id(result["parameters"]["dataset"]).replace(place.row, place.time_row)
                row[f"{TITLES[place.kind]} ut paper"] = paper_values()[name]
                row[f"{TITLES[place.kind]} ut here"] = stored[place.time_row]["mean"]
            rows[title] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("refinement")


def groups_frame(table: Mapping[Cell, Any]) -> pd.DataFrame:
    """Return Figure 6b: mIoU of images with one class and with several, per method, CAM beside ReCAM."""
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for place, row in table.items():
        for group, value in row["by_label_count"].items():
            groups.setdefault((group, METHODS[place.method]), {})[f"{TITLES[place.kind]} here"] = value
    return pd.DataFrame.from_dict(groups, orient="index").rename_axis(index=["images", "method"])


def recam_against_advcam(
    times: Mapping[Cell, Any], rows: Mapping[Cell, Sequence[MapStage]]
) -> dict[str, Any]:
    """Judge ``recam_vs_advcam_speed``, a ratio, and ``recam_extra_hours_voc``, on the paper's hardware."""
    recam, paper = times[cell("none", "recam")]["mean"], paper_values()["prose.recam_vs_advcam_speed"]
    cost = times[cell("none", "recam")]["seconds"] - times[cell("none", "cam")]["seconds"]
    answer, text = "not run", f"ReCAM takes {recam:.1f} ut, AdvCAM was not run"
    if (place := cell("advcam", "cam")) in times:
        advcam, steps = times[place]["mean"], rows[place][0].steps
        answer = "holds" if advcam / recam >= paper / 2 else "does not hold"
        answer = answer if steps >= 27 else "cannot tell"
        text = (
            f"ReCAM takes {recam:.1f} ut, AdvCAM {advcam:.1f} with {steps} steps: "
            f"{advcam / recam:.1f} times as long, both as implemented here"
        )
    rule = f"with 27 steps or more, AdvCAM takes at least half of the paper's {paper:g} times as long"
    hours, device = f"{cost / 3600:.3f} hours more than CAM here", "needs the paper's data and device"
    return {
        "prose.recam_vs_advcam_speed": sentence(answer, text, rule=rule),
        "prose.recam_extra_hours_voc": sentence("cannot tell", hours, rule=device),
    }


def single_and_multi_label(scores: Mapping[Cell, Any]) -> dict[str, Any]:
    """Judge Figure 6b on scores of the first seed: CAM and ReCAM, without refinement and with IRN."""
    parts, answers, rows = [], [], []
    for method in [name for name in ("none", "irn") if cell(name, "recam") in scores]:
        cam, recam = scores[cell(method, "cam")], scores[cell(method, "recam")]
        rows.append(convergence_of([cam.of, recam.of]))
        for name, among in recam.groups().items():
            low, high = recam.interval_of_difference(cam, among=among)
            change = recam.by_label_count()[name] - cam.by_label_count()[name]
            parts.append(f"{name}, {method}: {signed(change, low, high)}")
            answers.append(verdict((low, high), +1))
    answer = joint_verdict(answers if len(answers) == 4 else [*answers, "cannot tell"])
    rule = "ReCAM minus CAM lies above zero for both kinds of images, before and after IRN (one seed, images)"
    return {"prose.single_and_multi_label": sentence(answer, "; ".join(parts), rows=rows, rule=rule)}
