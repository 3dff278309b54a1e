"""What a pipeline cost, added up from the records of its stages: the time column of Table 2."""

import time
import warnings
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from recamlib.method.scores import masked_argmax
from recamlib.stages.base import Split, Stage
from recamlib.stages.classify import Reactivate, TrainClassifier
from recamlib.stages.maps import ExtractCams, MapStage
from recamlib.stages.refine import SaliencyMerge, TrainBoundary, Walk

TIMED = 16  # images whose masks are made once more to time the last step, which no stage stores


class MixedDevicesWarning(UserWarning):
    """Seconds of different devices are added up or compared."""


def pipeline_cost(stage: MapStage, *, split: Split, limit: int = 0) -> dict[str, Any]:
    """Return what it takes to go from nothing to the 0-1 masks of all training images.

    Training stages count with the seconds they recorded, cached or not. Stages per image count with the mean
    of their records on the images named here, times the number of training images.

    Parameters
    ----------
    stage
        What makes the maps; computed if it is not there yet.
    split, limit
        Images whose records are averaged.

    Returns
    -------
    ``seconds``, ``parts`` (step to seconds), ``peak_memory_mib`` and ``devices``.

    Warns
    -----
    MixedDevicesWarning
        If the records come from different devices.

    Notes
    -----
    Source: Table 2, "from training to 0-1 masks of all training images".
    """
    images = len(stage.dataset.images("train_aug"))
    records = _records(stage, split, limit, images)
    records["masks"] = (images * _mask_seconds(stage, split), 0.0, set())
    devices = sorted(set().union(*(found for _, _, found in records.values())))
    if len(devices) > 1:
        warnings.warn(
            f"the seconds of {type(stage).__name__} come from different devices ({'; '.join(devices)}): "
            "run it again in an empty results folder before reading its time",
            MixedDevicesWarning, stacklevel=2,
        )  # fmt: skip
    return {
        "seconds": float(sum(seconds for seconds, _, _ in records.values())),
        "parts": {name: float(seconds) for name, (seconds, _, _) in records.items()},
        "peak_memory_mib": float(max(memory for _, memory, _ in records.values())),
        "devices": devices,
    }  # fmt: skip


Record = tuple[float, float, set[str]]


def _records(stage: Stage, split: Split, limit: int, images: int) -> dict[str, Record]:
    """Return step to (seconds for all training images, peak memory, devices), upstream steps first."""

    def more(upstream: Stage) -> dict[str, Record]:
        return _records(upstream, split, limit, images)

    if isinstance(stage, TrainClassifier):
        return {"train classifier": _once(stage.result["cost"])}
    if isinstance(stage, Reactivate):
        return more(stage.base) | {"reactivate": _once(stage.result["cost"])}
    if isinstance(stage, TrainBoundary):
        ids = stage.images().ids
        labels = [item["cost"] for item in stage.labels.label([("train_aug", id) for id in ids])]
        trained = _once(stage.result["cost"])
        return more(stage.cams) | {"confident labels": _each(labels, images), "train boundary": trained}
    own = [item["cost"] for _, item in stage.run(split, limit=limit)]
    if isinstance(stage, Walk):
        requests = [(split, id) for id in stage.images(split, limit=limit).ids]
        walls = [item["cost"] for item in stage.boundaries.infer(requests)]
        upstream = more(stage.cams) | more(stage.boundary)
        return upstream | {"boundary maps": _each(walls, images), "random walk": _each(own, images)}
    if isinstance(stage, SaliencyMerge):
        return more(stage.cams) | {"merge with saliency": _each(own, images)}
    step = "extract maps" if isinstance(stage, ExtractCams) else "climb"
    return more(stage.model) | {step: _each(own, images)}


def _once(cost: dict[str, Any]) -> Record:
    return cost["seconds"], cost["peak_memory_mib"], {cost["device"]}


def _each(costs: Sequence[dict[str, Any]], images: int) -> Record:
    seconds = images * float(np.mean([cost["seconds"] for cost in costs]))
    return seconds, max(cost["peak_memory_mib"] for cost in costs), {cost["device"] for cost in costs}


def _mask_seconds(stage: MapStage, split: Split) -> float:
    """Return the median seconds that merging maps and cutting them at a threshold takes an image."""
    times = []
    for name in islice(stage.dataset.images(split).ids, TIMED):
        item = next(iter(stage.items([(split, name)])))
        start = time.perf_counter()
        masked_argmax(stage.merge(item).numpy(), stage.fixed_threshold)
        times.append(time.perf_counter() - start)
    return float(np.median(times))
