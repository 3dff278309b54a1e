"""What notebook 06 asks beyond the paper: other backbones, other CAM methods, better classifiers."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from recamlib.method.scores import bootstrap_average_precision
from recamlib.report.claims import sentence, verdict
from recamlib.report.kept import trained_on
from recamlib.stages import (
    OPTIONS,
    ExtractCams,
    MapStage,
    PackageCams,
    Reactivate,
    TrainClassifier,
    seconds_per_image,
)
from recamlib.stages.maps import WeightOption
from recamlib.studies.experiments import CENTRE, Level, Plan
from recamlib.studies.packaged import Method
from recamlib.studies.pictures import average_precision, logits_of, score_table
from recamlib.studies.reading import signed

ROWS = dict(zip(OPTIONS, ("recam_w", "recam_w_prime", "recam_w_plus_w_prime", "recam_w_times_w_prime")))
FEWEST = 5  # classifiers that a rank correlation needs: no order of four is rarer than one in 12


def pair(
    centre: Mapping[str, Mapping[str, Any]], *, seed: int, option: WeightOption
) -> list[tuple[TrainClassifier | Reactivate, WeightOption]]:
    """Return the classifier of a notebook's settings and its reactivation, each with a weight option."""
    plan = Plan("own", centre, (), ())
    cam, recam = plan.stages(Level(CENTRE, "", {}), seed)
    return [(cam.model, "w"), (recam.model, option)]


def table1_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """Return Table 1's rows for each level of a plan, ``"LEVEL: row"``, with what they cost.

    ``seconds`` holds those of training the classifier, of reactivating it and of the maps of one image; mean
    over seeds, on the device and with the load of the run.
    """
    table = {}
    for level in plan.levels:
        pairs = [plan.stages(level, seed) for seed in plan.seeds]
        rows: dict[str, list[MapStage]] = {"bce_only": [cam for cam, _ in pairs]}
        for option, name in ROWS.items():
            rows[name] = [
                ExtractCams(model=recam.model, scales=recam.scales, weights=option) for _, recam in pairs
            ]
        limits = dict.fromkeys(rows, plan.limit)
        scored = score_table(rows, split="train", baseline="bce_only", limits=limits, classify=True)
        seconds = {
            "classifier": [cam.model.result["cost"]["seconds"] for cam, _ in pairs],
            "reactivation": [recam.model.result["cost"]["seconds"] for _, recam in pairs],
            "maps": [seconds_per_image(cam, split="train", limit=plan.limit) for cam, _ in pairs],
        }
        for name, row in scored.items():
            title = f"{level.title}: {name}"
            table[title] = row | {"seconds": {key: float(np.mean(v)) for key, v in seconds.items()}}
    return table


def table1_frame(table: Mapping[str, Any]) -> pd.DataFrame:
    """Return the rows of `table1_of` as a frame: one line per level and row, cost beside it."""
    lines = []
    for title, row in table.items():
        level, name = title.split(": ")
        span = row.get("difference_interval", [np.nan, np.nan])
        lines.append({
            "backbone": level, "row": name, "mIoU": row["mean"], "mIoU low": row["low"],
            "mIoU high": row["high"], "difference": row.get("difference", np.nan), "difference low": span[0],
            "difference high": span[1], "mAP": float(np.mean(row["average_precision"])),
            **{f"seconds, {part}": f"{value:.3g}" for part, value in row["seconds"].items()},
        })  # fmt: skip
    return pd.DataFrame(lines).set_index(["backbone", "row"])


def on_every_backbone(table: Mapping[str, Any], *, row: str = ROWS["w*w'"]) -> dict[str, Any]:
    """Return whether one of ReCAM's rows lies above BCE on every backbone."""
    rows = {title.split(": ")[0]: found for title, found in table.items() if title.endswith(f": {row}")}
    answers = [verdict(tuple(found["difference_interval"]), +1) for found in rows.values()]
    answer = "does not hold" if "does not hold" in answers else "cannot tell"
    if set(answers) == {"holds"}:
        answer = "holds"
    text = "; ".join(
        f"{name} {signed(found['difference'], *found['difference_interval'])}" for name, found in rows.items()
    )
    return sentence(answer, text, rule=f"{row} has an interval above BCE only on every backbone")


def compare_methods(
    model: TrainClassifier | Reactivate,
    methods: Sequence[Method],
    *,
    scales: Sequence[float],
    limit: int = 0,
    slow_limit: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return our maps and those of the grad-cam package for one classifier, scored on the same images.

    Score-CAM runs the network once per channel, so it has a part of the images of its own; our maps are
    scored on that part too, as ``"cam (part)"``.
    """
    ours = ExtractCams(model=model, scales=tuple(scales))
    rows: dict[str, list[MapStage]] = {"cam": [ours]}
    limits, partners = {"cam": limit}, {}
    for method in methods:
        slow = method == "scorecam" and slow_limit != limit
        if slow:
            rows["cam (part)"], limits["cam (part)"] = [ours], slow_limit
        rows[method] = [PackageCams(model=model, method=method, scales=tuple(scales))]
        limits[method] = slow_limit if slow else limit
        partners[method] = "cam (part)" if slow else "cam"
    table = score_table(rows, split="train", baseline=partners, limits=limits)
    for name, (stage,) in rows.items():
        table[name]["seconds"] = seconds_per_image(stage, split="train", limit=limits[name])
    return table


def methods_frame(table: Mapping[str, Any]) -> pd.DataFrame:
    """Return `compare_methods` as a frame: mIoU, difference to our maps, seconds per image."""
    lines = []
    for name, row in table.items():
        span = row.get("difference_interval", [np.nan, np.nan])
        lines.append({
            "method": name, "mIoU": row["mean"], "mIoU low": row["low"], "mIoU high": row["high"],
            "difference": row.get("difference", np.nan), "difference low": span[0],
            "difference high": span[1], "images": row["images"],
            "seconds per image": f"{row['seconds']:.3g}",
        })  # fmt: skip
    return pd.DataFrame(lines).set_index("method")


def best_method(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether our maps are as good as any method's."""
    others = {name: row for name, row in table.items() if "difference" in row}
    spans = {name: row["difference_interval"] for name, row in others.items()}
    text = "; ".join(
        f"{name} minus CAM {signed(others[name]['difference'], *span)}" for name, span in spans.items()
    )
    if any(low > 0 for low, _ in spans.values()):
        answer = "does not hold"
    else:
        answer = "holds" if all(high <= 0 for _, high in spans.values()) else "cannot tell"
    rule = "no method's interval of its difference to CAM reaches above zero; refuted if one lies above it"
    return sentence(answer, text, rule=rule)


def precision_points(plans: Iterable[Plan]) -> list[dict[str, Any]]:
    """Return mAP on ``val`` and mIoU of CAM and ReCAM for every classifier of some plans, with intervals.

    Levels that change only the reactivation or the reading of its maps are left out: the classifier is the
    same. So is one that several plans share.
    """
    found: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}  # plans may share a classifier, seeds aside, under titles of their own
    own = ("data.", "classifier.")
    for plan in plans:
        levels = [a for a in plan.levels if not a.changes or any(key.startswith(own) for key in a.changes)]
        for level, seed in ((level, seed) for level in levels for seed in plan.seeds):
            cam, recam = plan.scores(level, seed)
            key = f"{cam.of.model.uid} {recam.of.model.uid} {recam.of.weights} {plan.limit}"
            if key in found:
                continue
            title = f"{cam.of.model.backbone}, {plan.name}: {level.title}"
            name = names.setdefault(plan.stages(level, 0)[0].model.uid, title)
            scores, labels = logits_of(cam.of)
            low, high = bootstrap_average_precision(scores, labels, seed=0)
            point = {
                "classifier": name, "seed": seed,
                "map": average_precision(cam.of), "map_interval": [100 * low, 100 * high],
            }  # fmt: skip
            for name, score in (("cam", cam), ("recam", recam)):
                point |= {name: score.miou, f"{name}_interval": list(score.interval())}
            found[key] = point
    return list(found.values())


def stored_points(results: Iterable[Mapping[str, Any]], *, dataset: str) -> list[dict[str, Any]]:
    """Return the same from stored results that carry both: the BCE row and ReCAM's, one point per seed.

    Only those on one data set: a mean average precision says how good a classifier is among those of its own.
    """
    points = []
    for result in results:
        if result["parameters"]["dataset"] != dataset:
            continue
        rows = result.get("rows", {})
        cam, recam = rows.get("bce_only", {}), rows.get(ROWS["w*w'"], {})
        seeds = zip(cam.get("average_precision", ()), cam.get("per_seed", ()), recam.get("per_seed", ()))
        own = result["parameters"]
        where = f"{own['backbone']}, {result['notebook']}, {own['profile']}, {trained_on(result):,} images"
        points += [
            {"classifier": where, "seed": i, "map": p, "cam": a, "recam": b}
            for i, (p, a, b) in enumerate(seeds)
        ]
    return points


def rank_correlation(points: Sequence[Mapping[str, Any]], kind: str) -> tuple[float, float]:
    """Return Spearman's correlation of mAP and mIoU over classifiers (means over seeds), and its p.

    Two-sided, by permutation: exact for up to seven classifiers, where drawing them again says nothing (four
    in the right order give 1 with every draw, yet one order in 12 is as far from zero). nan with fewer than
    five.

    Examples
    --------
    >>> points = [{"classifier": str(i), "map": i, "cam": i**2} for i in range(5)]
    >>> value, p = rank_correlation(points, "cam")
    >>> round(value, 2), round(p, 3)
    (1.0, 0.017)
    """
    frame = pd.DataFrame(points).groupby("classifier")[["map", kind]].mean().to_numpy()
    if len(frame) < FEWEST:
        return float("nan"), float("nan")
    x, y = stats.rankdata(frame, axis=0).T
    test = stats.permutation_test(
        (x,), lambda x, axis: stats.pearsonr(x, np.broadcast_to(y, x.shape), axis=axis).statistic,
        permutation_type="pairings", vectorized=True, n_resamples=9999, rng=0,
    )  # fmt: skip
    return float(test.statistic), float(test.pvalue)


def better_map(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return whether classifiers with a higher mAP have CAMs of higher mIoU; ReCAM's stand beside it."""
    kinds = {kind: rank_correlation(points, kind) for kind in ("cam", "recam")}
    count = len({point["classifier"] for point in points})
    text = "; ".join(f"{name} {value:+.2f} (p = {p:.3f})" for name, (value, p) in kinds.items())
    text = text if count >= FEWEST else f"a correlation takes {FEWEST} or more"
    value, p = kinds["cam"]
    answer = "cannot tell"
    if p < 0.05:
        answer = "holds" if value > 0 else "does not hold"
    rule = f"the rank correlation of CAM over {FEWEST} classifiers or more is above zero, permutation p < .05"
    return sentence(answer, f"{text}, {count} classifiers", rule=rule)


def tuned_walk(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return whether the setting of the walk that was chosen on train beats the published one on val."""
    beta, steps, threshold = found["chosen"]
    val, train = found["val"], found["train"]
    text = (
        f"beta {beta:g}, {steps} steps, threshold {threshold:g}: "
        f"{signed(val['difference'], *val['interval'])} on val, {train['difference']:+.1f} on train"
    )
    rule = "the interval over val images of tuned minus published lies above zero"
    return sentence(verdict(tuple(val["interval"]), +1), text, rule=rule)
