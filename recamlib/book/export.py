"""Trained weights handed on: one safetensors file with a model card, and networks read back from it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from recamlib import paths
from recamlib.engine.device import commit, versions
from recamlib.errors import ResultsError, SettingsError, WeightsError, nearest
from recamlib.files import file_digest, read_yaml, whole_file
from recamlib.models.segmenters import Segmenter, build_segmenter
from recamlib.report.tables import describe_data
from recamlib.stages.base import Stage
from recamlib.stages.classify import Reactivate, TrainClassifier
from recamlib.stages.segment import SegmenterStage, TrainSegmenter, TrainUpperBound

_TRAINED = {c.__name__: c for c in (TrainClassifier, Reactivate, TrainSegmenter, TrainUpperBound)}

_USAGE = {
    "classifier": "`recam run 02 -p dataset={dataset} -p backbone={backbone} -p weights={path}` starts from "
    "it; with `-p TrainClassifier.epochs=0 -p Reactivate.epochs=0` it is taken as it is, FC1 and FC2 too.",
    "network": "`recam submit {path} results.tgz` predicts VOC's test images with it. `TrainSegmenter` "
    "starts from it with `weights={path}`; with `steps=0` it is taken as it is.",
}
_LICENCE = "MIT, as the code; the terms of the images, and of the weights it started from ({}), stay"


def trained_stage(run: Mapping[str, Any], row: str, *, seed: int = 0) -> Stage:
    """Return the stage that trained what a row of a result is of."""
    rows = {name: values["trained"] for name, values in run["rows"].items() if "trained" in values}
    if row not in rows or not 0 <= seed < len(rows[row]):
        hint = nearest(row, rows) or f"; there are {', '.join(rows) or 'none'}"
        raise SettingsError(f"this run trained nothing for row {row!r}, seed number {seed}{hint}")
    folder = paths.results_dir() / "stages" / rows[row][seed]
    if not (folder / "config.yaml").is_file():
        raise ResultsError(f"{folder} is missing: run the notebook again on this machine")
    settings = _without_infra(read_yaml(folder / "config.yaml"))
    stage = _TRAINED[settings["stage"].partition("/")[0]](**settings)
    if stage.folder != folder:
        raise ResultsError(f"{folder} was made by another version of the stages: run the notebook again")
    return stage


def export_model(stage: Any, path: str | Path, **facts: str) -> list[Path]:
    """Write what a stage trained, and a model card with further `facts`; return both paths."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise SettingsError(f"{path} has to end in .safetensors")
    space = stage.dataset.images("train_aug").space
    base = getattr(stage, "base", stage)
    header = {"classes": ",".join(space.classes), "stage": stage.stage}
    if isinstance(stage, SegmenterStage):
        kind, what, tensors = "network", f"segmentation network {stage.arch}", stage.load().state_dict()
        header["network"] = json.dumps({"arch": stage.arch, "backbone": stage.backbone})
    else:
        classifier, fc2 = stage.load()
        kind, what = "classifier", f"{base.backbone} and FC1{', FC2' * (fc2 is not None)}"
        tensors = classifier.state_dict() | ({} if fc2 is None else {"fc2.weight": fc2})
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, metadata=header)
    labels = "true masks: an upper bound" if isinstance(stage, TrainUpperBound) else "image labels alone"
    facts = {
        "what": what, "learnt from": labels, "classes": ", ".join(space.classes), **facts,
        "made by": f"recam-notebooks {commit()}, " + ", ".join(map(" ".join, versions().items())),
        "SHA-256": file_digest(path), "licence": _LICENCE.format(base.weights or "none"),
    }  # fmt: skip
    lines = [f"# {path.stem}\n", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items())]
    usage = _USAGE[kind].format(path=path, backbone=base.backbone, dataset=stage.dataset.name)
    card = path.with_suffix(".md")
    card.write_text("\n".join([*lines, f"\n{usage}\n\n```text\n{stage.describe()}\n```\n"]), encoding="utf-8")
    return [path, card]


def export_row(run: Mapping[str, Any], row: str, path: str | Path, *, seed: int = 0) -> list[Path]:
    """Export what was trained for a row of a result; the card holds the row's data, score and convergence."""
    stage, values = trained_stage(run, row, seed=seed), run["rows"][row]
    span = f", 95 % over {values['interval_over']} {values['low']:.1f} to {values['high']:.1f}"
    return export_model(
        stage, path, **{"trained on": describe_data(run), "convergence": values.get("convergence", ""),
        "score": f"mIoU {values['per_seed'][seed]:.1f} of row {row}; all seeds {values['mean']:.1f}{span}"},
    )  # fmt: skip


def read_network(path: Path) -> tuple[Segmenter, tuple[str, ...]]:
    """Return an exported segmentation network in evaluation mode, and its classes."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
        network, classes = json.loads(header["network"]), tuple(header["classes"].split(","))
    except (SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is no segmentation network of `recam export` ({error!r})") from None
    return build_segmenter(**network, num_classes=len(classes) + 1, weights=path).eval(), classes


def _without_infra(settings: Any) -> Any:
    if not isinstance(settings, dict):
        return settings
    return {name: _without_infra(value) for name, value in settings.items() if name != "infra"}
