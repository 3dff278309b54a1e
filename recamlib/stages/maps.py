"""Stages per image: class activation maps of a trained model, kept small and merged when read."""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import exca
import numpy as np
import pydantic
import torch
from torch import Tensor

from recamlib.cams import combine_weights, extract_scale_maps, merge_scales
from recamlib.data.base import labels_only
from recamlib.errors import SettingsError
from recamlib.provenance import default_device
from recamlib.stages.base import Split, Stage
from recamlib.stages.classify import Reactivate, TrainClassifier

WeightOption = Literal["w", "w'", "w+w'", "w*w'"]
OPTIONS: tuple[WeightOption, ...] = ("w", "w'", "w+w'", "w*w'")
WINDOW = 32  # images decoded at once, so that equal sizes meet in one batch; a killed run loses at most these


class ExtractCams(Stage):
    """Multi-scale, mirrored class activation maps of the classes in each image's label (Eq. 2 and 9).

    All weight options come from the same features, so one forward pass fills the cache for the four of them:
    ``weights`` chooses what is read and is no part of the cache key. What is stored per image are the ReLU'd,
    un-normalised maps of every scale at the network's own resolution (about a thirtieth of a full-size map);
    :meth:`maps` merges them.
    """

    model: TrainClassifier | Reactivate = pydantic.Field(TrainClassifier(), discriminator="stage")
    weights: WeightOption = "w"
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    stage: Literal["ExtractCams"] = "ExtractCams"
    infra: exca.MapInfra = exca.MapInfra(version="1")

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        if self.weights not in self._options():
            who = "Reactivate with sce_weight 0" if isinstance(self.model, Reactivate) else "TrainClassifier"
            raise SettingsError(f"{who} has no FC2: its maps are read with weights 'w', not {self.weights!r}")

    def _options(self) -> tuple[WeightOption, ...]:
        return OPTIONS if isinstance(self.model, Reactivate) and self.model.sce_weight > 0 else ("w",)

    @infra.apply(item_uid=lambda item: item[1], exclude_from_cache_uid=("weights",), cache_type="Auto")
    def extract(self, items: Sequence[tuple[Split, str]]) -> Iterator[dict]:
        """Yield for each (split, id) the maps of every scale, (N, P, h, w), classes present and seconds."""
        classifier, fc2 = self.model.load()
        fc1 = classifier.fc1.weight.detach()
        weights = torch.stack([fc1 if o == "w" else combine_weights(fc1, fc2, o) for o in self._options()])
        classifier.to(default_device())
        for start in range(0, len(items), WINDOW):
            window = items[start : start + WINDOW]
            began = time.perf_counter()
            with labels_only():
                sets = [self.model.dataset.images(split) for split, _ in window]
                present = [
                    torch.from_numpy(np.flatnonzero(s.labels(name))) for s, (_, name) in zip(sets, window)
                ]
                pictures = [s.image(name) for s, (_, name) in zip(sets, window)]
                maps = extract_scale_maps(
                    classifier, pictures, weights, scales=self.scales, classes=present,
                    precision=self.precision,
                )  # fmt: skip
            seconds = (time.perf_counter() - began) / len(window)
            for picture, classes, scales in zip(pictures, present, maps):
                yield {
                    "scales": [m.numpy() for m in scales] if len(classes) else [],
                    "classes": classes.tolist(),
                    "size": list(picture.shape[-2:]), "seconds": seconds,
                }  # fmt: skip

    def run(self, split: Split) -> Iterator[tuple[str, dict]]:
        """Yield (id, stored item) for every image of a split, computing what is missing."""
        ids = self.model.dataset.images(split).ids
        items = [(split, name) for name in ids]
        return zip(ids, self.extract(items))

    def maps(self, split: Split, *, stride: int | None = None) -> Iterator[tuple[str, Tensor, list[int]]]:
        """Yield (id, normalised maps (P, H, W) of the chosen weight option, classes present) for a split."""
        for name, item in self.run(split):
            yield name, self.merge(item, stride=stride), item["classes"]

    def merge(self, item: dict, *, stride: int | None = None) -> Tensor:
        """Merge one stored item at image size, or at a stride; (P, H, W) in [0, 1]."""
        if not item["scales"]:  # an image without a class has no map
            return torch.zeros(0, *item["size"])
        option = self._options().index(self.weights)
        scales = [torch.from_numpy(np.array(m[option])) for m in item["scales"]]  # (P, h_s, w_s)
        return merge_scales(scales, tuple(item["size"]), stride=stride)

    def seconds(self, split: Split) -> float:
        """Return the recorded seconds of extracting a split."""
        return sum(item["seconds"] for _, item in self.run(split))
