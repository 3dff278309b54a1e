"""Which stages a notebook would run under some parameters: put together as it does it, and not run."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from recamlib.book.profiles import all_parameters, find_notebook
from recamlib.data.nominal import COUNTS, MARK
from recamlib.errors import DataError
from recamlib.method import crf
from recamlib.stages import (
    OPTIONS,
    Classify,
    DataSettings,
    ExtractCams,
    MapStage,
    PackageCams,
    PseudoMasks,
    Reactivate,
    Saliency,
    SaliencyMaps,
    SaliencyScore,
    Score,
    SegmentationScore,
    Stage,
    TrainBoundary,
    Walk,
    WalkStudy,
)
from recamlib.stages.base import Split
from recamlib.studies import beyond, experiments, toy
from recamlib.studies import common as recipes
from recamlib.studies import table2 as refinement
from recamlib.studies import table3 as segmentation
from recamlib.studies import table4 as guidance
from recamlib.studies.costs import TIMED
from recamlib.studies.pictures import cams_of

Given = Mapping[str, Any]


class End(NamedTuple):
    """A stage whose result a notebook asks for, and of a stage per image the images: a part of a split."""

    stage: Stage
    split: Split = "train"
    limit: int = 0


def planned_stages(
    notebook: str, *, profile: str, extra: Given | None = None, nominal: bool = False
) -> list[End]:
    """Return what a notebook asks for under a profile; everything before it follows from that.

    Parameters
    ----------
    notebook, profile
        Names; wrong ones are errors that give the nearest.
    extra
        Further parameters, which win.
    nominal
        Take the official numbers of images, for data that is not here.

    Raises
    ------
    SettingsError
        If a name or a parameter is wrong.
    DataError
        If the data is not here.
    """
    stem = find_notebook(notebook).stem
    given = all_parameters(profile, stem, extra=extra)
    more = {"fingerprint": MARK} if nominal else {}
    return list(_NOTEBOOKS[stem[:2]](given, more))


def data_is_here(name: str) -> bool:
    """Return whether a data set can be opened."""
    try:
        DataSettings(name=name).images("train")
    except DataError:
        if name not in COUNTS:
            raise
        return False
    return True


def _data(given: Given, more: Given) -> DataSettings:
    return DataSettings.of(given["dataset"], train_images=given["train_images"], **more)


def _scored(
    rows: Mapping[str, Sequence[MapStage]], limits: Mapping[str, int] | None = None
) -> Iterator[End]:
    """Yield the scores on ``train`` of rows of maps."""
    for name, stages in rows.items():
        limit = (limits or {}).get(name, 0)
        yield from (End(Score(of=stage, split="train", limit=limit)) for stage in stages)


def _toy(given: Given, more: Given) -> Iterator[End]:
    names = ("backbone", "epochs", "batch_size", "lr", "fc_lr_factor", "crop", "precision")
    training = {name: given[name] for name in names} | {"weights": given["weights"] or None}
    for group in given["groups"]:
        data = toy.group_data(given["dataset"], group, train_images=given["train_images"], **more)
        for loss in toy.LOSSES:
            for model in toy.classifiers(data, loss=loss, seeds=given["seeds"], **training):
                yield End(Classify(model=model))
                maps = ExtractCams(model=model, scales=tuple(given["scales"]))
                yield from (End(Score(of=maps, split=split)) for split in ("train", "val"))


def _table1(given: Given, more: Given) -> Iterator[End]:
    data, scales = _data(given, more), given["scales"]
    losses = {loss: recipes.classifiers(data, given, loss=loss) for loss in ("bce", "sce", "sce_single")}
    rows = {loss: cams_of(models, scales=scales) for loss, models in losses.items()}

    def again(weight: float) -> list[Reactivate]:
        return recipes.reactivated(losses["bce"], given, sce_weight=weight)

    rows["control"] = cams_of(again(0.0), scales=scales)
    rows |= {option: cams_of(again(given["sce_weight"]), scales=scales, weights=option) for option in OPTIONS}
    for stages in rows.values():
        yield from (End(Classify(model=maps.model, scale=scales[0])) for maps in stages)
    chosen = recipes.option(given)
    curve = {str(v): cams_of(again(v), scales=scales, weights=chosen) for v in given["sweep"]}
    yield from _scored(rows | curve)


def _table2(given: Given, more: Given) -> Iterator[End]:
    rows = recipes.refined(_data(given, more), given, methods=["none", *given["methods"]])
    yield from _scored(rows, refinement.parts_scored(given["climb_images"]))
    # masks of the first images are made once more to time that step
    yield from (End(stage, "train", -TIMED) for stages in rows.values() for stage in stages)


def _table3(given: Given, more: Given) -> Iterator[End]:
    data, part = _data(given, more), given["segment_images"]
    maps = recipes.refined(data, given, part=given["boundary_images"], methods=given["methods"])
    limits = refinement.parts_scored(given["climb_images"])
    for name, stages in maps.items():
        yield End(PseudoMasks(maps=stages[0]), "train_aug", limits.get(name, part))
    names = {"steps": "steps", "batch": "batch_size", "crop": "crop", "lr": "lr", "optimizer": "optimizer",
             "backbone": "backbone", "weights": "weights", "precision": "precision",
             "parts": "accumulate", "fixed_norm": "fixed_norm"}  # fmt: skip
    how = {name: given[f"segment_{key}"] for key, name in names.items()}
    how |= {"scale": tuple(given["segment_scale"])}
    rows = segmentation.networks(maps, given["archs"], climbed=given["climb_images"], limit=part, **how)
    if given["upper_bound"]:
        rows |= segmentation.upper_bounds(data, given["archs"], limit=part, seeds=given["seeds"], **how)
    test = {"window": given["test_window"]}
    scales, with_crf = tuple(given["test_scales"]), crf.usable(given["test_crf"])
    for scores in segmentation.scores_of(
        rows, scales=scales, mirror=given["test_mirror"], crf=with_crf, **test
    ).values():
        yield from map(End, scores)
    column = segmentation.column(given["archs"][0])
    scale = scales[0] if len(scales) == 1 else 1.0
    for kind in segmentation.kinds(scale=scale):
        for name in ("cam", "recam"):
            of = rows[f"{given['methods'][0]}.{column}_{name}_val"][0]
            yield End(SegmentationScore(of=of, limit=given["kind_images"], **kind, **test))


def _table4(given: Given, more: Given) -> Iterator[End]:
    data, saliency = _data(given, more), Saliency(folder=given["saliency_folder"], **more)
    guided = {"saliency": saliency, "saliency_weight": given["eps_weight"]}
    models = {"cam": recipes.classifiers(data, given), "eps": recipes.classifiers(data, given, **guided)}
    models |= {name: recipes.reactivated(models[plain], given)
               for name, plain in (("recam", "cam"), ("recam_e", "eps"))}  # fmt: skip
    rows = guidance.systems(
        models, saliency=saliency, weights=recipes.option(given), scales=given["scales"], irn=given["irn"],
        reading=given["saliency_reading"], merge={name: given[name] for name in ("theta", "alpha", "beta")},
        **recipes.irn(given),
    )  # fmt: skip
    yield from _scored(rows)
    yield End(SaliencyScore(dataset=data, saliency=saliency, theta=given["theta"]))
    yield End(SaliencyMaps(dataset=data, saliency=saliency), "train")
    names = ("arch", "backbone", "weights", "steps", "crop")
    how = {name: given[f"segment_{name}"] for name in names} | {"precision": given["precision"]}
    networks = guidance.segmenters(rows, given["segment_rows"], **how)
    tested = segmentation.scores_of(networks, split="val", crf=crf.usable(given["segment_crf"]))
    yield from (End(score) for scores in tested.values() for score in scores)


def _beyond(given: Given, more: Given) -> Iterator[End]:
    centre, seeds = recipes.centre(_data(given, more), given), given["seeds"]
    planned = experiments.load_plans(given["plans"], centre=centre, seeds=seeds, limit=given["scored"])
    for name in ("transformers", "momentum", "gradient", "classifier", "sign"):
        if name not in given["sections"] or name not in planned:
            continue
        plan = planned[name]
        for level in plan.levels:
            for seed in plan.seeds:
                cam, recam = plan.stages(level, seed)
                rows = {"cam": [cam], "recam": [recam]}
                if name == "transformers":
                    rows |= {o: cams_of([recam.model], scales=recam.scales, weights=o) for o in OPTIONS}
                yield from _scored(rows, dict.fromkeys(rows, plan.limit))
                if name == "transformers" or "classifier" in given["sections"]:
                    stages = [m.model for maps in rows.values() for m in maps]
                    stages = stages if name == "transformers" else [cam.model]
                    yield from (End(Classify(model=m, scale=cam.scales[0])) for m in stages)
    if "methods" in given["sections"]:
        cam, _ = planned["sign"].stages(planned["sign"].levels[0], seeds[0])
        for method in given["methods"]:
            limit = given["score_cam_images" if method == "scorecam" else "method_images"]
            maps = PackageCams(model=cam.model, method=method, scales=cam.scales)
            yield from (End(Score(of=stage, split="train", limit=limit)) for stage in (cam, maps))
    if "walk" in given["sections"]:
        yield from _walk_study(given, centre)


def _walk_study(given: Given, centre: Mapping[str, Given]) -> Iterator[End]:
    seed, scales = given["seeds"][0], tuple(given["scales"])
    pair = beyond.pair(centre, seed=seed, option=recipes.option(given))
    cam, recam = (ExtractCams(model=model, scales=scales, weights=option) for model, option in pair)
    maps = recam if given["walk_maps"] == "recam" else cam
    net = TrainBoundary(
        cams=maps, limit=given["boundary_images"], seed=seed,
        **recipes.boundary(given),
    )  # fmt: skip
    study = WalkStudy(
        Walk(cams=maps, boundary=net), betas=given["betas"], steps=given["walk_steps"],
        thresholds=given["thresholds"], limit=given["walk_images"],
    )  # fmt: skip
    # each beta is an item; on val only the chosen and the published one, whichever it is
    yield End(study.train, "train", len(study.betas))
    yield End(study.val, "val", min(2, len(study.betas)))


_NOTEBOOKS: dict[str, Callable[[Given, Given], Iterator[End]]] = {
    "01": _toy, "02": _table1, "03": _table2, "04": _table3, "05": _table4, "06": _beyond,
}  # fmt: skip
