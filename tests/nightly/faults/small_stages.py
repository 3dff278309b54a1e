"""Stages of every kind, as small as they run, and what is compared of their results."""

import hashlib
from typing import Any

import numpy as np
import orjson

import recamlib as rc
from recamlib.stages.base import ImageStage, Stage
from recamlib.stages.features import Features

DATA = rc.DataSettings(train_count=10, val_count=6, size=48)
CLASSIFIER = {"dataset": DATA, "epochs": 3, "batch_size": 4, "crop": 32, "lr": 0.05, "fc_lr_factor": 1.0}


def stages() -> dict[str, Stage]:
    """Return one stage of every kind by name, each after what it is made from."""
    classifier = rc.TrainClassifier(**CLASSIFIER)
    model = rc.Reactivate(base=classifier, epochs=2, batch_size=4)
    cams = rc.ExtractCams(model=model, weights="w*w'", scales=(1.0, 0.5))
    moved = rc.AdvCams(model=model, scales=(1.0,), steps=2)
    boundary = rc.TrainBoundary(cams=cams, crf=False, epochs=2, batch_size=4, crop=48, radius=3, lr=0.01)
    walk = rc.Walk(cams=cams, boundary=boundary, steps=8, radius=3)
    masks = rc.PseudoMasks(maps=cams)
    settings = {"steps": 6, "batch_size": 4, "crop": 32, "checkpoint_every": 2}
    segmenter = rc.TrainSegmenter(masks=masks, **settings)
    return {
        "Features": Features(dataset=DATA), "TrainClassifier": classifier, "Reactivate": model,
        "Classify": rc.Classify(model=model), "ExtractCams": cams, "AdvCams": moved,
        "ConfidentLabels": boundary.labels,
        "TrainBoundary": boundary, "BoundaryMaps": walk.boundaries, "Walk": walk, "PseudoMasks": masks,
        "TrainSegmenter": segmenter, "TrainUpperBound": rc.TrainUpperBound(dataset=DATA, **settings),
        "Score": rc.Score(of=walk), "SegmentationScore": rc.SegmentationScore(of=segmenter),
        "SaliencyMaps": rc.SaliencyMaps(dataset=DATA), "SaliencyMerge": rc.SaliencyMerge(cams=cams),
        "SaliencyScore": rc.SaliencyScore(dataset=DATA),
    }  # fmt: skip


TRAINING = ("TrainClassifier", "Reactivate", "TrainBoundary", "TrainSegmenter", "TrainUpperBound")
PER_IMAGE = (
    "ExtractCams", "AdvCams", "ConfidentLabels", "BoundaryMaps", "Walk", "PseudoMasks", "SaliencyMaps",
    "SaliencyMerge",
)  # fmt: skip


def run(stage: Stage) -> dict[str, Any]:
    """Compute a stage, all training images of one per image, and return its entries by key."""
    if isinstance(stage, ImageStage):
        ids = DATA.images("train").ids
        return dict(zip(ids, stage.items([("train", name) for name in ids])))
    return {stage.key: stage.result}


def meaning(value: Any) -> Any:
    """Return a value without what two equal runs do not share: seconds, memory, costs."""
    if isinstance(value, dict):
        return {k: meaning(v) for k, v in sorted(value.items()) if k not in ("cost", "seconds")}
    if isinstance(value, list | tuple):
        return [meaning(item) for item in value]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()]
    return value


def digest(entries: dict[str, Any]) -> str:
    """Return a digest of what entries mean, to the last bit."""
    return hashlib.sha256(orjson.dumps(meaning(entries))).hexdigest()
