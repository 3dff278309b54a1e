"""The toy study of Sections 1 and 4.2: BCE against SCE on single-label images, gradients of Eq. 12."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from recamlib.data.labels import HOOFED, SPACES
from recamlib.engine.device import bar
from recamlib.errors import check_choice
from recamlib.method.losses import bce_gradient, sce_gradient
from recamlib.method.scores import accuracy
from recamlib.report.claims import seed_interval, sentence, signed, table_row, verdict
from recamlib.stages.base import DataSettings
from recamlib.stages.classify import Classify, TrainClassifier
from recamlib.stages.score import Score
from recamlib.studies.common import convergence_of
from recamlib.studies.common import examples as _examples

LOSSES = {"bce": bce_gradient, "sce": sce_gradient}


def group_data(dataset: str, group: str, *, train_images: int = 0, **more: Any) -> DataSettings:
    """Return the single-label images of a class group: ``"hoofed"`` (those the data set has) or ``"all"``."""
    check_choice("class group", group, ("hoofed", "all"))
    present = SPACES[dataset].classes
    classes = tuple(name for name in present if name in HOOFED.classes)
    return DataSettings.of(
        dataset, train_images=train_images, single_label=True,
        classes=() if group == "all" or len(classes) == len(present) else classes, **more,
    )  # fmt: skip


def magnitude_grid(*, limit: float, points: int = 97) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the four gradient magnitudes over logits z_q (rows) and z_p (columns), and the logits."""
    grid = torch.linspace(-limit, limit, points, dtype=torch.float64)
    zq, zp = torch.meshgrid(grid, grid, indexing="ij")
    logits = torch.stack([zp.flatten(), zq.flatten()], 1)  # (n*n, 2)
    labels = torch.tensor([1.0, 0.0], dtype=torch.float64).expand_as(logits)
    terms = {}
    for name, gradient in LOSSES.items():
        values = gradient(logits, labels).abs().reshape(points, points, 2).numpy()
        terms[f"{name.upper()}, target p"] = values[..., 0]
        terms[f"{name.upper()}, confusing q"] = values[..., 1]
    return terms, grid.numpy()


def pair_gradients(logits: np.ndarray, labels: np.ndarray, *, loss: str) -> dict[str, float]:
    """Return the mean gradient (Eq. 12) on logits (N, K) of the target and of the most confusing class."""
    z, y = (torch.tensor(np.array(values), dtype=torch.float64) for values in (logits, labels))
    gradients = LOSSES[loss](z, y)  # (N, K)
    target, confusing = y.argmax(1, keepdim=True), z.masked_fill(y > 0, -torch.inf).argmax(1, keepdim=True)
    places = {"target": target, "confusing": confusing}
    return {name: gradients.gather(1, place).mean().item() for name, place in places.items()}


def measured(
    classifiers: Mapping[str, Sequence[TrainClassifier]], scores: Mapping[str, Mapping[str, Sequence[Score]]]
) -> dict[str, Any]:
    """Return what one group of classes gives, by loss: one number per seed, percent, and gradients per epoch.

    Of each loss there is one classifier per seed, with ``probe``; `scores` are theirs, by split.
    """
    study: dict[str, Any] = {
        "accuracy": {}, "gradients": {}, "scores": scores,
        "records": {loss: [m.result["convergence"] for m in models] for loss, models in classifiers.items()},
        **convergence_of([score.of for row in next(iter(scores.values())).values() for score in row]),
        "miou": {
            split: {loss: [score.miou for score in row] for loss, row in part.items()}
            for split, part in scores.items()
        },
    }  # fmt: skip
    for loss, models in classifiers.items():
        shown = bar(models, desc=f"{loss} seeds")
        results = [Classify(model=model, scale=model.scale).result for model in shown]
        labels = torch.tensor(np.array(results[0]["labels"]))
        logits = [torch.tensor(np.array(one["logits"])) for one in results]
        study["accuracy"][loss] = [100 * accuracy(z, labels) for z in logits]
        probes = [model.result["probe_logits"] for model in models]
        pairs = [[pair_gradients(z, labels.numpy(), loss=loss) for z in probe] for probe in probes]
        study["gradients"][loss] = {  # (seeds, epochs + 1)
            which: np.array([[epoch[which] for epoch in row] for row in pairs])
            for which in ("target", "confusing")
        }
    return study


def _measures(part: Mapping[str, Any]) -> dict[str, Mapping[str, Sequence[float]]]:
    return {"accuracy": part["accuracy"], **{f"miou_{split}": v for split, v in part["miou"].items()}}


def frame(study: Mapping[str, Any]) -> pd.DataFrame:
    """Return accuracy and mIoU per group, in percent, with intervals over seeds."""
    rows = {}
    for group, part in study.items():
        for measure, values in _measures(part).items():
            name, _, split = measure.partition("_")
            row = rows[f"mIoU ({split})" if split else f"{name} (val)", group] = {}
            for loss, numbers in values.items():
                ends = zip(("here", "low", "high"), seed_interval(numbers))
                row |= {f"{loss.upper()} {end}": value for end, value in ends}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index=["measure", "group"])


def rows(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study as rows for :func:`recamlib.report.results.record`: SCE's differences are to BCE."""
    table = {}
    for group, part in study.items():
        state = {name: part[name] for name in ("converged", "convergence")}
        for measure, values in _measures(part).items():
            for loss, baseline in (("bce", None), ("sce", values["bce"])):
                table[f"{group} {measure} {loss}"] = table_row(
                    values[loss], baseline=baseline, records=part["records"][loss], **state
                )
        for loss, curves in part["gradients"].items():
            for which, values in curves.items():
                table[f"{group} gradient {which} {loss}"] = {"per_seed": values.tolist()}
    return table


def examples(part: Mapping[str, Any], *, count: int) -> list[dict[str, Any]]:
    """Return picture rows of the val images whose IoU differs most between the two losses, first seed."""
    first = {loss: scores[0].of for loss, scores in part["scores"]["val"].items()}
    pictures = _examples(first["bce"], first["sce"], split="val", count=count)
    names = {"CAM": "BCE", "ReCAM": "SCE", "CAM mask": "BCE mask", "ReCAM mask": "SCE mask"}
    return [{names.get(key, key): value for key, value in row.items()} for row in pictures]


def gradient_cases(cases: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Return the four gradient magnitudes of Section 4.2 (Eq. 12 at K = 2) for each case ``(z_p, z_q)``."""
    labels = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    table = {}
    for name, logits in cases.items():
        z = torch.tensor([logits], dtype=torch.float64)
        terms = torch.cat([gradient(z, labels)[0] for gradient in LOSSES.values()]).abs().tolist()
        table[name] = dict(zip(("BCE p", "BCE q", "SCE p", "SCE q"), terms))
    return table


def toy_gradients(cases: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Judge ``gradients_c1`` and ``gradients_c2``: each of the four magnitudes within 0.05 of the paper's."""
    paper = {
        "c1": {"BCE p": 0.0, "BCE q": 0.5, "SCE p": 0.5, "SCE q": 0.5},
        "c2": {"BCE p": 0.5, "BCE q": 0.0, "SCE p": 0.5, "SCE q": 0.5},
    }
    rule = "the four magnitudes of Eq. 12 at K = 2 lie within 0.05 of the paper's"
    claims = {}
    for name, terms in gradient_cases({name: cases[name] for name in paper}).items():
        holds = all(abs(terms[term] - value) < 0.05 for term, value in paper[name].items())
        text = ", ".join(f"{term} {value:.3f}" for term, value in terms.items())
        claims[f"prose.gradients_{name}"] = sentence("holds" if holds else "does not hold", text, rule=rule)
    return claims


def toy_study(
    accuracy: Mapping[str, Sequence[float]], miou: Mapping[str, Mapping[str, Sequence[float]]], *,
    trained: Mapping[str, Any] | None = None,
) -> dict:  # fmt: skip
    """Judge Figure 1's claims on one group of classes, from what `measured` returns of it."""

    def difference(values: Mapping[str, Sequence[float]]) -> tuple[str, str]:
        delta, *span = seed_interval(np.subtract(values["sce"], values["bce"]))
        return verdict(span, +1), signed(delta, *span)

    rest_on, rule = [trained] if trained else [], "SCE minus BCE over seeds lies above zero"
    answer, text = difference(accuracy)
    parts = {split: difference(values) for split, values in miou.items()}
    answers = {answer for answer, _ in parts.values()}
    return {
        "prose.five_hoofed_bce_weaker":
            sentence(answer, f"accuracy of SCE minus BCE {text}", rows=rest_on, rule=rule),
        "prose.sce_cam_higher_miou": sentence(
            answers.pop() if len(answers) == 1 else "cannot tell",
            "mIoU of SCE's maps minus BCE's: " + ", ".join(f"{s} {text}" for s, (_, text) in parts.items()),
            rows=rest_on, rule=rule + " on train and on val",
        ),
    }  # fmt: skip
