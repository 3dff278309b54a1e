"""The toy study of Sections 1 and 4.2: BCE against SCE on single-label images, gradients of Eq. 12."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from recamlib.data.labels import HOOFED, SPACES
from recamlib.engine.device import bar
from recamlib.errors import SettingsError, nearest
from recamlib.method.losses import bce_gradient, sce_gradient
from recamlib.method.scores import accuracy
from recamlib.report.claims import seed_interval, table_row
from recamlib.stages import Classify, DataSettings, ExtractCams, Score, TrainClassifier
from recamlib.studies.pictures import examples as _examples

LOSSES = {"bce": bce_gradient, "sce": sce_gradient}


def group_data(dataset: str, group: str, *, train_images: int = 0, **more: Any) -> DataSettings:
    """Return the single-label images of a class group: ``"hoofed"`` (those the data set has) or ``"all"``."""
    if group not in ("hoofed", "all"):
        raise SettingsError(f"no class group {group!r}{nearest(group, ('hoofed', 'all'))}; use hoofed or all")
    present = SPACES[dataset].classes
    classes = tuple(name for name in present if name in HOOFED.classes)
    return DataSettings.of(
        dataset, train_images=train_images, single_label=True,
        classes=() if group == "all" or len(classes) == len(present) else classes, **more,
    )  # fmt: skip


def magnitude_grid(*, limit: float, points: int = 97) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the four gradient magnitudes over a square of logits, and the values of either logit.

    Rows are ``z_q``, columns ``z_p``, as :func:`recamlib.report.plots.gradient_magnitudes` draws them.
    """
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
    """Return the mean gradient on the target's logit and on the most confusing class's (Figure 4).

    Parameters
    ----------
    logits, labels
        Shape ``(N, K)``; every image has one class. The confusing class is the negative one with the highest
        logit.
    loss
        ``"bce"`` or ``"sce"``: which closed form of Eq. 12.
    """
    z, y = (torch.tensor(np.array(values), dtype=torch.float64) for values in (logits, labels))
    gradients = LOSSES[loss](z, y)  # (N, K)
    target, confusing = y.argmax(1, keepdim=True), z.masked_fill(y > 0, -torch.inf).argmax(1, keepdim=True)
    return {
        "target": gradients.gather(1, target).mean().item(),
        "confusing": gradients.gather(1, confusing).mean().item(),
    }


def classifiers(
    data: DataSettings, *, loss: str, seeds: Sequence[int], **training: Any
) -> list[TrainClassifier]:
    """Return one classifier per seed, trained by Adam as in the paper's study."""
    common = {"dataset": data, "loss": loss, "optimizer": "adam", "probe": True}
    return [TrainClassifier(seed=seed, **common, **training) for seed in seeds]


def run(
    data: DataSettings, *, seeds: Sequence[int], scales: Sequence[float], **training: Any
) -> dict[str, Any]:
    """Train, classify, extract and score both losses for every seed.

    Returns
    -------
    ``accuracy[loss]`` and ``miou[split][loss]`` in percent per seed, ``gradients[loss][which]`` of shape
    ``(seeds, epochs + 1)``, ``scores[split][loss]`` as stages.
    """
    labels = data.images("val").label_matrix()
    study: dict[str, Any] = {
        "accuracy": {}, "gradients": {}, "scores": {"train": {}, "val": {}}, "miou": {"train": {}, "val": {}},
    }  # fmt: skip
    for loss in LOSSES:
        models = classifiers(data, loss=loss, seeds=seeds, **training)
        logits = [Classify(model=m).result["logits"] for m in bar(models, desc=f"{loss} seeds")]
        study["accuracy"][loss] = [
            100 * accuracy(torch.tensor(np.array(z)), torch.tensor(labels)) for z in logits
        ]
        pairs = [
            [pair_gradients(z, labels, loss=loss) for z in model.result["probe_logits"]] for model in models
        ]
        study["gradients"][loss] = {
            which: np.array([[epoch[which] for epoch in row] for row in pairs])
            for which in ("target", "confusing")
        }
        for split in ("train", "val"):
            scores = [Score(of=ExtractCams(model=m, scales=tuple(scales)), split=split) for m in models]
            study["scores"][split][loss] = scores
            study["miou"][split][loss] = [s.miou for s in scores]
    return study


def frame(study: Mapping[str, Any]) -> pd.DataFrame:
    """Return accuracy and mIoU per group, measure and loss, with the interval over seeds, in percent."""
    rows = []
    for group, part in study.items():
        measures = {"accuracy (val)": part["accuracy"]}
        measures |= {f"mIoU ({split})": values for split, values in part["miou"].items()}
        for measure, values in measures.items():
            for loss, numbers in values.items():
                mean, low, high = seed_interval(numbers)
                rows.append({
                    "group": group, "measure": measure, "loss": loss,
                    "percent": mean, "low": low, "high": high,
                    "seeds": len(numbers),
                })  # fmt: skip
    return pd.DataFrame(rows)


def rows(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return the study as rows for :func:`recamlib.report.claims.record`: SCE's differences are to BCE."""
    table = {}
    for group, part in study.items():
        measures = {"accuracy": part["accuracy"], **{f"miou_{s}": v for s, v in part["miou"].items()}}
        for measure, values in measures.items():
            table[f"{group} {measure} bce"] = table_row(values["bce"])
            table[f"{group} {measure} sce"] = table_row(values["sce"], baseline=values["bce"])
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
