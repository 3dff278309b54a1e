"""Stages per image: class activation maps of a trained model, kept small and merged when read."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from recamlib.data.access import ImageSet, labels_only
from recamlib.engine.device import default_device, measured, per_image
from recamlib.engine.extract import extract_scale_maps, pair_maps
from recamlib.errors import SettingsError
from recamlib.method.convergence import Convergence, convergence
from recamlib.method.maps import combine_weights, merge_scales
from recamlib.method.scores import THRESHOLDS
from recamlib.stages.base import DataSettings, Split, Stage
from recamlib.stages.classify import Reactivate, TrainClassifier
from recamlib.stages.features import Features
from recamlib.stages.infra import StageCache

WeightOption = Literal["w", "w'", "w+w'", "w*w'", "relu(w)", "w*w", "w*random", "relu(w)*relu(w')"]
OPTIONS: tuple[WeightOption, ...] = ("w", "w'", "w+w'", "w*w'")
# Options of our own that need no FC2, and all of them where there is one.
UNTRAINED: tuple[WeightOption, ...] = ("relu(w)", "w*w", "w*random")
CONTROLS: tuple[WeightOption, ...] = (*UNTRAINED, "relu(w)*relu(w')")
WINDOW = 32  # images decoded at once, so that equal sizes meet in one batch; a killed run loses at most these
BACKGROUND = {"cam": 0.15, "recam": 0.21, "eps": 0.20}  # published thresholds; 0.21 is ReCAM's on VOC
# Nothing published fits the embedded scenes: chosen with the profile quick on scenes of another seed.
EMBEDDED = {"maps": 0.55, "walk": 0.5}

Request = tuple[Split, str]
"""Split and image id, the key of everything that is stored per image."""


class MapStage(Stage):
    """What every stage that makes maps has in common: whole splits, single images, what they cost."""

    @property
    def dataset(self) -> DataSettings:
        """Data settings of the classifier at the root."""
        return self.model.dataset

    @property
    def seed(self) -> int:
        """Seed of the classifier at the root; what is trained on these maps takes it too."""
        return self.model.seed

    def items(self, requests: Sequence[Request]) -> Iterator[dict]:
        """Yield the stored item of each request in order, computing what is missing."""
        raise NotImplementedError

    def merge(self, item: dict, *, stride: int | None = None) -> Tensor:
        """Return the normalised maps (P, H, W) of a stored item, at image size or at a stride."""
        if not item["scales"]:
            return no_maps(item["size"], stride)
        scales = [torch.from_numpy(np.array(m)) for m in item["scales"]]  # (P, h_s, w_s)
        return merge_scales(scales, tuple(item["size"]), stride=stride, cell=self.cell)

    @property
    def cell(self) -> int:
        """Pixels of the image per cell of the network's features."""
        return getattr(self.model, "base", self.model).output_stride

    @property
    def convergence(self) -> Convergence:
        """Whether the model at the root has converged; trains it if that was not done yet."""
        return convergence(self.model.result["convergence"])

    @property
    def reactivated(self) -> bool:
        """Whether the maps are ReCAM's."""
        return isinstance(self.model, Reactivate) and self.model.sce_weight > 0

    @property
    def fixed_threshold(self) -> float:
        """The published background threshold for these maps; for the embedded scenes one of `EMBEDDED`."""
        if self.dataset.name == "hoofed":
            return EMBEDDED["maps"]
        return BACKGROUND["recam" if self.reactivated and self.dataset.name == "voc12" else "cam"]

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Background thresholds that masks of these maps are scored at."""
        return THRESHOLDS

    def images(self, split: Split, *, limit: int = 0) -> ImageSet:
        """Return the images of a split, or a random part of them (the same one for every stage)."""
        images = self.dataset.images(split)
        return images.select(limit=limit) if limit else images

    def run(self, split: Split, *, limit: int = 0) -> Iterator[tuple[str, dict]]:
        """Yield (id, stored item) for every image of a split, computing what is missing."""
        ids = self.images(split, limit=limit).ids
        return zip(ids, self.items([(split, name) for name in ids]))

    def maps(
        self, split: Split, *, limit: int = 0, stride: int | None = None
    ) -> Iterator[tuple[str, Tensor, list[int]]]:
        """Yield (id, normalised maps (P, H, W), classes present) for every image of a split."""
        for name, item in self.run(split, limit=limit):
            yield name, self.merge(item, stride=stride), item["classes"]

    def one(self, split: Split, name: str) -> tuple[Tensor, list[int]]:
        """Return the normalised maps (P, H, W) and the classes present of one image."""
        item = next(iter(self.items([(split, name)])))
        return self.merge(item), item["classes"]


class ExtractCams(MapStage):
    """Multi-scale, mirrored class activation maps of the classes in each image's label (Eq. 2 and 9).

    All weight options come from the same features, so one forward pass fills the cache for the four of them:
    ``weights`` chooses what is read and is no part of the cache key. What is stored per image are the ReLU'd,
    un-normalised maps of every scale at the network's own resolution (about a thirtieth of a full-size map);
    :meth:`maps` merges them. ``reading="softmax"`` takes the share of a class in a softmax over all classes
    and the background instead, as EPS does; it needs a model that was trained with saliency.
    """

    model: TrainClassifier | Reactivate = pydantic.Field(TrainClassifier(), discriminator="stage")
    weights: WeightOption = "w"
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    reading: Literal["relu", "softmax"] = "relu"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    stage: Literal["ExtractCams/3"] = "ExtractCams/3"
    infra: StageCache = StageCache()

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        check_option(self.model, self.weights)
        if self.reading == "softmax" and getattr(self.model, "base", self.model).saliency is None:
            raise SettingsError(
                f"{type(self.model).__name__} has no background channel to read a softmax with: train the "
                "classifier with saliency, or read its maps with 'relu'"
            )
        if self.reading == "softmax" and self.weights != "w":
            raise SettingsError(f"a softmax is read with weights 'w' alone, not {self.weights!r}")

    @property
    def options(self) -> tuple[WeightOption, ...]:
        """Weight options that are stored together."""
        return options_of(self.model) if self.reading == "relu" else ("w",)

    @property
    def fixed_threshold(self) -> float:
        """The published background threshold for these maps."""
        return BACKGROUND["eps"] if self.reading == "softmax" else super().fixed_threshold

    @infra.apply(item_uid=lambda item: item[1], exclude_from_cache_uid=("weights",), cache_type="Auto")
    def extract(self, items: Sequence[Request]) -> Iterator[dict]:
        """Yield for each (split, id) the maps of every scale, (N, P, h, w), classes present and cost."""
        classifier, fc2 = self.model.load()
        fc1 = classifier.fc1.weight.detach()
        weights = torch.stack([combine_weights(fc1, fc2, o, seed=self.seed) for o in self.options])
        background = classifier.background.weight.detach()[0] if self.reading == "softmax" else None
        heads = self.model.train == "heads"
        if not heads:
            classifier.to(default_device())
        for start in range(0, len(items), WINDOW):
            window = items[start : start + WINDOW]
            with labels_only(), measured() as cost:
                present, pictures = open_window(self.dataset, window)
                if heads:
                    maps = self._from_features(window, weights, present)
                else:
                    maps = extract_scale_maps(
                        classifier, pictures, weights, scales=self.scales, classes=present,
                        background=background, precision=self.precision,
                    )  # fmt: skip
            yield from scale_items(pictures, present, maps, cost)

    def _from_features(
        self, requests: Sequence[Request], weights: Tensor, classes: Sequence[Tensor]
    ) -> list[list[Tensor]]:
        """Return the maps of some images from stored features, as `extract_scale_maps` does from pictures."""
        base = getattr(self.model, "base", self.model)
        given = {**dict(base.features), "mirror": True}
        stages = [Features(**{**given, "scale": scale}) for scale in self.scales]
        columns = [stage.extract(requests) for stage in stages]
        pairs = zip(*[[torch.from_numpy(np.array(i["features"])).float() for i in c] for c in columns])
        return [[pair_maps(p, weights, k) for p in scales] for scales, k in zip(pairs, classes)]

    def items(self, requests: Sequence[Request]) -> Iterator[dict]:
        """Yield the stored item of each request in order, computing what is missing."""
        return self.extract(requests)

    def merge(self, item: dict, *, stride: int | None = None) -> Tensor:
        """Merge one stored item at image size, or at a stride; (P, H, W) in [0, 1]."""
        if not item["scales"]:  # an image without a class has no map
            return no_maps(item["size"], stride)
        option = self.options.index(self.weights)
        scales = [torch.from_numpy(np.array(m[option])) for m in item["scales"]]  # (P, h_s, w_s)
        return merge_scales(scales, tuple(item["size"]), stride=stride, cell=self.cell)


def options_of(model: TrainClassifier | Reactivate) -> tuple[WeightOption, ...]:
    """Return the weight options that a model's maps can be read with."""
    reactivated = isinstance(model, Reactivate) and model.sce_weight > 0
    return (*OPTIONS, *CONTROLS) if reactivated else ("w", *UNTRAINED)


def check_option(model: TrainClassifier | Reactivate, option: WeightOption) -> None:
    """Raise SettingsError if a model has no second layer to read maps with."""
    if option not in options_of(model):
        who = "Reactivate with sce_weight 0" if isinstance(model, Reactivate) else "TrainClassifier"
        known = ", ".join(options_of(model))
        raise SettingsError(f"{who} has no FC2: its maps take weights {known}, not {option!r}")


def open_window(data: DataSettings, requests: Sequence[Request]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the classes present (P,) and the images (3, H, W) of some requests."""
    sets = [(data.images(split), name) for split, name in requests]
    present = [torch.from_numpy(np.flatnonzero(images.labels(name))) for images, name in sets]
    return present, [images.image(name) for images, name in sets]


def scale_items(
    pictures: Sequence[Tensor], present: Sequence[Tensor], maps: Sequence[Sequence[Tensor]], cost: dict
) -> Iterator[dict]:
    """Yield what is stored of each image: its maps of every scale, classes, size and share of the cost."""
    for picture, classes, scales in zip(pictures, present, maps):
        yield {
            "scales": [m.numpy() for m in scales] if len(classes) else [],
            "classes": classes.tolist(), "size": list(picture.shape[-2:]),
            "cost": per_image(cost, len(pictures)),
        }  # fmt: skip


def no_maps(size: Sequence[int], stride: int | None) -> Tensor:
    """Return the maps of an image without a class: none, at the size they would have."""
    return torch.zeros(0, *(-(-side // (stride or 1)) for side in size))
