"""Stages of every kind, as small as they run, in processes that import nothing anew; and their digests."""

import hashlib
import json
import multiprocessing
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch

import recamlib as rc
from recamlib.engine import fit as engine
from recamlib.stages.base import ImageStage, Stage
from recamlib.stages.features import Features
from tests.stages import chain as made

DATA = rc.DataSettings(train_count=10, val_count=6, size=48)
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["small_stages"])


def classifier(**more) -> rc.TrainClassifier:
    return made.classifier(dataset=DATA, epochs=3, crop=32, **more)


def stages() -> dict[str, Stage]:
    """Return one stage of every kind by name, each after what it is made from."""
    model = made.reactivated(base=classifier(), epochs=2)
    cams = made.cams(model, weights="w*w'")
    boundary = made.boundary(cams, epochs=2, crop=48, radius=3, lr=0.01)
    walk = made.walked(cams, boundary=boundary, steps=8, radius=3)
    masks, settings = rc.PseudoMasks(maps=cams), {"steps": 6, "crop": 32}
    segmenter = made.segmenter(masks=masks, **settings)
    bound = rc.TrainUpperBound(dataset=DATA, batch_size=4, checkpoint_every=2, **settings)
    found = [
        Features(dataset=DATA), model.base, model, rc.Classify(model=model), cams, made.advcams(model),
        boundary.labels, boundary, walk.boundaries, walk, masks, segmenter, bound, rc.Score(of=walk),
        rc.SegmentationScore(of=segmenter), rc.SaliencyMaps(dataset=DATA), rc.SaliencyMerge(cams=cams),
        rc.SaliencyScore(dataset=DATA),
    ]  # fmt: skip
    return {type(stage).__name__: stage for stage in found}


def chain() -> dict[str, Stage]:
    return {"model": classifier(), "cams": made.cams(classifier())}


def digests() -> dict[str, str]:
    return {name: digest(run(stage)) for name, stage in chain().items()}


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
    return hashlib.sha256(orjson.dumps(meaning(entries))).hexdigest()


def start(stage: str, results: Path, log: Path) -> multiprocessing.Process:
    """Start a run: ``log`` gets a byte for every training step, ``log.json`` the digest."""
    process = FORKS.Process(target=child, args=(stage, str(results), str(log)))
    with pytest.MonkeyPatch.context() as patch:  # for the process that all are forked from
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        patch.setenv("TQDM_DISABLE", "1")
        process.start()
    return process


def child(name: str, results: str, log: str) -> None:
    os.environ |= {"RECAM_RESULTS": results, "RECAM_WORKERS": "0"}
    torch.set_num_threads(1)
    steps, out = (os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) for path in (log, f"{log}.out"))
    os.dup2(out, 1)
    os.dup2(out, 2)
    original = engine._step
    engine._step = lambda *args, **kwargs: (original(*args, **kwargs), os.write(steps, b"s"))[0]
    try:
        stage = stages()[name]
        found = {"digest": digest(run(stage)), "folder": str(stage.folder)}
    except BaseException:
        traceback.print_exc()
        raise
    Path(f"{log}.json").write_text(json.dumps(found))


def finished(stage: str, results: Path, log: Path) -> dict[str, Any]:
    """Run to the end; return digest, folder, training steps and the seconds it took."""
    begin, process = time.perf_counter(), start(stage, results, log)
    process.join()
    assert process.exitcode == 0, Path(f"{log}.out").read_text()
    seconds, steps = time.perf_counter() - begin, log.read_bytes().count(b"s")
    return {**json.loads(Path(f"{log}.json").read_text()), "seconds": seconds, "steps": steps}
