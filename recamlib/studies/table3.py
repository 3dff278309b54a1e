"""The systems of Table 3: segmentation networks on the pseudo masks of Table 2, and their upper bound."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from recamlib.engine.device import bar
from recamlib.errors import check_choice
from recamlib.method.crf import usable
from recamlib.method.scores import bootstrap_contrast
from recamlib.report.cells import KINDS as TITLES
from recamlib.report.cells import METHODS, NETWORKS, TRUE_MASKS, Cell, cam_beside_recam
from recamlib.report.claims import seed_interval, sentence, signed, verdict
from recamlib.stages.base import DataSettings
from recamlib.stages.maps import MapStage
from recamlib.stages.score import MULTI_SCALES, SegmentationScore
from recamlib.stages.segment import PseudoMasks, TrainSegmenter, TrainUpperBound
from recamlib.studies.common import Blocks, convergence_of, make, scored_row
from recamlib.studies.table2 import part_of

# Large ones have the paper's settings (Section 5; DeepLabV3+, whose are in the supplement, usual ones). Those
# of small ones were chosen on true masks of 100 embedded training scenes: 50, 60, 52 mIoU, background 13.
_SMALL = {"weights": "scenes", "optimizer": "adamw", "weight_decay": 0.01, "batch_size": 10, "crop": 80}
RECIPES: dict[str, dict[str, Any]] = {
    "deeplabv2": {"lr": 2.5e-4, "weight_decay": 5e-4, "batch_size": 10, "crop": 321, "steps": 20_000},
    "deeplabv3plus": {"lr": 7e-3, "weight_decay": 1e-4, "batch_size": 10, "crop": 512, "steps": 20_000},
    "upernet_swin": {
        "optimizer": "adamw", "lr": 6e-5, "weight_decay": 0.01, "power": 1.0, "batch_size": 16, "crop": 512,
        "scale": (0.5, 2.0), "short_side": 512, "jitter": True, "steps": 40_000,
    },
    "deeplabv2_small": _SMALL | {"lr": 2.5e-4, "steps": 300},
    "deeplabv3plus_small": _SMALL | {"lr": 2e-3, "steps": 120, "fixed_norm": True},
    "upernet_small": _SMALL | {"lr": 2e-3, "power": 1.0, "steps": 180, "batch_size": 8, "fixed_norm": True},
}  # fmt: skip
COCO_STEPS = {"deeplabv2": 100_000, "deeplabv3plus": 100_000, "upernet_swin": 80_000}  # instead, on COCO
cell = functools.partial(Cell, "table3")  # of a method, a kind and a network
ABOVE_FLOOR = 20  # points that a network on true masks has to be above its floor to have converged


def column(arch: str) -> str:
    """Return the paper's name of a network."""
    return arch.removesuffix("_small").removesuffix("_swin")


def recipe(arch: str, data: DataSettings, own: Mapping[str, Any], settings: Blocks) -> dict[str, Any]:
    """Return the settings of a network on some data: its recipe, then its own, then those of all networks."""
    check_choice("network", arch, RECIPES)
    steps = {"steps": COCO_STEPS[arch]} if data.name == "coco14" and arch in COCO_STEPS else {}
    return {**RECIPES[arch], **steps, **own, **settings.get("TrainSegmenter", {})}


def networks(
    maps: Mapping[Cell, Sequence[MapStage]], archs: Blocks, settings: Blocks, *, advcam_images: int = 0
) -> dict[Cell, list[TrainSegmenter]]:
    """Return the cells of Table 3 as stages, with the seeds of the maps.

    `maps` are those of :func:`recamlib.studies.table2.systems`, `archs` networks by name, each with settings
    of its own; AdvCAM's rows learn from `advcam_images`, 0 for all.
    """
    rows: dict[Cell, list[TrainSegmenter]] = {}
    for arch, own in archs.items():
        for place, stages in maps.items():
            how = recipe(arch, stages[0].dataset, own, settings)
            if part := part_of(place, advcam_images):
                how["limit"] = part
            rows[cell(place.method, place.kind, column(arch))] = [
                TrainSegmenter(masks=masks, arch=arch, seed=stage.seed, **how)
                for stage in stages for masks in [make(PseudoMasks, settings, maps=stage)]
            ]
    return rows


def upper_bounds(
    data: DataSettings, archs: Blocks, settings: Blocks, *, seeds: Sequence[int]
) -> dict[Cell, list[TrainUpperBound]]:
    """Return the same networks trained on true masks, one per seed."""
    return {
        bound(column(arch)): [
            TrainUpperBound(dataset=data, arch=arch, seed=seed, **recipe(arch, data, own, settings))
            for seed in seeds
        ] for arch, own in archs.items()
    }  # fmt: skip


def evaluations(scores: Mapping[str, SegmentationScore], *, limit: int = 0) -> pd.DataFrame:
    """Return mIoU at one scale and at the published six with mirror images, without and with the CRF.

    One row per kind, one column per network, on the images of the scores or on `limit` random ones. Scales
    are times that of the scores: a network trained on small pictures does not know objects at full size.
    """
    columns = {}
    for name, score in scores.items():
        scale = score.scales[0] if len(score.scales) == 1 else 1.0
        given = {**dict(score), "infra": {}, "limit": limit or score.limit}
        kinds = [
            SegmentationScore(**{**given, "scales": scales, "mirror": len(scales) > 1, "crf": crf})
            for crf in ([False, True] if usable(True) else [False])
            for scales in ((scale,), tuple(scale * s for s in MULTI_SCALES))
        ]
        columns[name] = {kind.label: kind.miou for kind in kinds}
    return pd.DataFrame(columns)


def bound(network: str) -> Cell:
    """Return the cell of a network that learnt from true masks."""
    return Cell("table3", TRUE_MASKS, network=network)


def table(scores: Mapping[Cell, Sequence[SegmentationScore]]) -> dict[Cell, dict[str, Any]]:
    """Score rows and return them by cell, ReCAM's compared with CAM's and all with the upper bound."""
    rows: dict[Cell, dict[str, Any]] = {}
    for place, mine in bar(scores.items(), desc="rows"):
        result = mine[0].of.result
        cost = result["cost"]
        rows[place] = score_row(
            mine, scores.get(place.partner), trained_on=result["images"], balance=result.get("balance"),
            loss=np.asarray(result["history"].get("loss", [])).tolist(), cost={
                "train_seconds": cost["seconds"],
                "waited_share": cost["waited_seconds"] / (cost["seconds"] or 1),
                "peak_memory_mib": cost["peak_memory_mib"],
                "score_seconds": mine[0].result["cost"]["seconds"],
            },
        )  # fmt: skip
    for place, row in rows.items():
        if place.method != TRUE_MASKS and (top := rows.get(bound(place.network))):
            row["share_of_upper_bound"] = 100 * row["mean"] / top["mean"]
            if top["mean"] < top["floor"] + ABOVE_FLOOR:
                row["converged"] = False
                row["convergence"] = f"upper bound {top['mean']:.1f}, floor {top['floor']:.1f}"
    return rows


def score_row(
    mine: Sequence[SegmentationScore], partner: Sequence[SegmentationScore] | None, **more: Any
) -> dict[str, Any]:
    """Return a network's row; it has ``converged`` if the classifiers behind its masks have."""
    maps = [s.of.masks.maps for s in (*mine, *(partner or ())) if isinstance(s.of, TrainSegmenter)]
    more |= convergence_of(maps) if maps else {}
    more["records"] = [stage.model.result["convergence"] for stage in maps[: len(mine)]]
    first = mine[0]
    return scored_row(
        mine, partner, evaluation=first.label, images=first.result["images"],
        trained=[s.of.uid for s in mine], **more,
    )  # fmt: skip


def recipe_frame(data: DataSettings, archs: Blocks, settings: Blocks) -> pd.DataFrame:
    """Return the settings that each network is trained with, one row per network."""
    rows = {arch: recipe(arch, data, own, settings) for arch, own in archs.items()}
    names = ("optimizer", "jitter", "power", "fixed_norm")
    usual = {name: TrainSegmenter.model_fields[name].default for name in names}
    return pd.DataFrame.from_dict(rows, orient="index").fillna(usual)


def balance_frame(shares: Mapping[Cell, Mapping[str, float]]) -> pd.DataFrame:
    """Return the share of pixels per class, and ignored, in percent."""
    return 100 * pd.DataFrame.from_dict({c.title: share for c, share in shares.items()}, orient="index")


def class_frame(scores: Mapping[str, SegmentationScore]) -> pd.DataFrame:
    """Return IoU in percent per class, one column per title."""
    return pd.DataFrame({f"{title} here": score.per_class() for title, score in scores.items()})


def cost_frame(table: Mapping[Cell, Any]) -> pd.DataFrame:
    """Return what every network cost: seconds, share of them spent waiting for data (%), memory (MiB)."""
    costs = pd.DataFrame({place.title: row["cost"] for place, row in table.items()}).T
    return pd.DataFrame({
        "training, s": costs["train_seconds"], "waiting for data, %": 100 * costs["waited_share"],
        "peak memory, MiB": costs["peak_memory_mib"], "scoring, s": costs["score_seconds"],
        "trained on": [row["trained_on"] for row in table.values()],
    })  # fmt: skip


def frame(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return Table 3, paper beside measured: one row per network and refinement, mIoU in percent."""
    stored, rows = result["rows"], {}
    for network, name in NETWORKS.items():
        for method, title in METHODS.items():
            cells = [cell(method, kind, network) for kind in ("cam", "recam")]
            if row := cam_beside_recam(*cells, result):
                for place in cells:
                    share = stored[place.row].get("share_of_upper_bound")
                    row[f"% of bound, {TITLES[place.kind]}"] = share
                row["trained on"] = stored[cells[1].row]["trained_on"]
                rows[name, title] = row
        if top := stored.get(bound(network).row):
            rows[name, "TRUE MASKS (upper bound)"] = {
                "CAM here": top["mean"], "CAM low": top["low"], "CAM high": top["high"],
                "trained on": top["trained_on"],
            }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index=["network", "pseudo masks"])


def margin_of_the_stronger(
    scores: Mapping[Cell, Sequence[Any]], rows: Mapping[Cell, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    """Judge ``larger_margin_on_stronger`` on scores of Table 3, one per seed; `rows` say what has converged.

    Nothing can be told where UPerNet's upper bound is not the higher one.
    """
    rule = (
        "margin on UPerNet less margin on DeepLabV2, no refinement, lies above zero; UPerNet is the stronger"
    )
    pair, signs = ("upernet", "deeplabv2"), (1, -1, -1, 1)
    parts, answer = [], "not run"
    cells = [cell("none", kind, network) for network in pair for kind in ("recam", "cam")]
    if all(place in scores for place in cells):
        four = [scores[place] for place in cells]
        growth = np.asarray(signs) @ np.array([[s.miou for s in row] for row in four])  # (seeds,)
        mean, *span = seed_interval(growth)
        if len(growth) == 1:
            span = [100 * end for end in bootstrap_contrast([row[0].counts for row in four], signs, seed=0)]
        parts.append(f"none {signed(mean, *span)}")
        answer = verdict(span, +1)
    if all(bound(network) in scores for network in pair):
        tops = [np.mean([s.miou for s in scores[bound(network)]]) for network in pair]
        parts.append(f"upper bounds {tops[0]:.1f} and {tops[1]:.1f}")
        if tops[0] <= tops[1] and answer != "not run":
            answer = "cannot tell"
    text = "; ".join(parts) or "one network"
    judged = [rows[place] for place in cells if place in rows] if rows else []
    return {"prose.larger_margin_on_stronger": sentence(answer, text, rows=judged, rule=rule)}
