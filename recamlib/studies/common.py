"""Stages from a notebook's parameters: notebooks that share a step name it alike, and so share its cache."""

from collections.abc import Mapping, Sequence
from typing import Any

from recamlib.method.crf import usable
from recamlib.stages import DataSettings, MapStage, Reactivate, TrainClassifier
from recamlib.studies.table2 import METHODS, systems

Parameters = Mapping[str, Any]


def classifiers(data: DataSettings, given: Parameters, **more: Any) -> list[TrainClassifier]:
    """Return one classifier per seed from a notebook's parameters (``backbone``, ``lr``, ``seeds`` ...).

    `more` are settings of `TrainClassifier` that no parameter is named after, for example ``loss``.
    """
    names = (
        "backbone", "epochs", "batch_size", "optimizer", "lr", "fc_lr_factor", "momentum", "crop",
        "precision",
    )  # fmt: skip
    common = {name: given[name] for name in names}
    weights = given["weights"] or None
    return [
        TrainClassifier(dataset=data, weights=weights, seed=seed, **common, **more)
        for seed in given["seeds"]
    ]


def reactivated(
    bases: Sequence[TrainClassifier], given: Parameters, *, sce_weight: float | None = None
) -> list[Reactivate]:
    """Return the reactivation of every classifier; `sce_weight` overrides the parameter of that name."""
    weight = given["sce_weight"] if sce_weight is None else sce_weight
    return [
        Reactivate(
            base=base, sce_weight=weight, epochs=given["reactivation_epochs"], lr=given["reactivation_lr"],
            batch_size=given["batch_size"], momentum=given["momentum"],
        )
        for base in bases
    ]  # fmt: skip


def option(given: Parameters) -> str:
    """Return the weight option that the paper reports on this data: ``"w"`` on COCO, else ``"w*w'"``."""
    return "w" if given["dataset"] == "coco14" else "w*w'"


def irn(given: Parameters) -> dict[str, dict[str, Any]]:
    """Return the settings of ``"boundary"`` (`TrainBoundary`) and ``"walk"`` (`Walk`)."""
    return {
        "boundary": boundary(given),
        "walk": {name: given[f"walk_{name}"] for name in ("radius", "beta", "steps")},
    }


def boundary(given: Parameters) -> dict[str, Any]:
    """Return the settings of `TrainBoundary`."""
    settings = {name: given[f"boundary_{name}"] for name in ("epochs", "crop", "lr", "momentum")}
    settings |= {"batch_size": given["boundary_batch"], "radius": given["pair_radius"]}
    return {**settings, "precision": given["precision"], "crf": usable(given["crf"])}


def centre(data: DataSettings, given: Parameters) -> dict[str, dict[str, Any]]:
    """Return the centre of notebook 06's plans (:class:`recamlib.studies.experiments.Plan`)."""
    common = {"batch_size": given["batch_size"], "momentum": given["momentum"]}
    names = ("backbone", "epochs", "lr", "crop", "optimizer", "fc_lr_factor", "precision")
    return {
        "data": dict(data),
        "classifier": {name: given[name] for name in names} | {"weights": given["weights"] or None} | common,
        "reactivation": {
            "sce_weight": given["sce_weight"], "epochs": given["reactivation_epochs"],
            "lr": given["reactivation_lr"], **common,
        },
        "maps": {"scales": given["scales"], "weights": option(given)},
    }  # fmt: skip


def refined(
    data: DataSettings, given: Parameters, *, part: int = 0, methods: Sequence[str] = METHODS
) -> dict[str, list[MapStage]]:
    """Return cells of Table 2 (:func:`recamlib.studies.table2.systems`) from the parameters of a notebook.

    Parameters
    ----------
    data
        The images.
    given
        The parameters, which hold those of notebook 03.
    part, methods
        See :func:`recamlib.studies.table2.systems`.
    """
    bases = classifiers(data, given)
    return systems(
        {"cam": bases, "recam": reactivated(bases, given)}, weights=option(given), scales=given["scales"],
        climb={"steps": given["climb_steps"]}, climbed=given["climb_images"], part=part, methods=methods,
        **irn(given),
    )  # fmt: skip
