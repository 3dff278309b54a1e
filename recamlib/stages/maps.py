"""Stages per image: maps of a trained model, plain or by AdvCAM, stored small and merged when read."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor

from recamlib.data.access import ImageSet, labels_only
from recamlib.engine.advcam import adversarial_maps
from recamlib.engine.device import default_device, measured, per_image
from recamlib.engine.extract import extract_scale_maps, pair_maps
from recamlib.errors import SettingsError
from recamlib.method.convergence import Convergence, convergence
from recamlib.method.maps import combine_weights, merge_scales
from recamlib.method.scores import THRESHOLDS
from recamlib.stages.base import DataSettings, ImageStage, Request, Split, Stage
from recamlib.stages.classify import Reactivate, TrainClassifier
from recamlib.stages.features import WINDOW, Features

WeightOption = Literal["w", "w'", "w+w'", "w*w'", "relu(w)", "w*w", "w*random", "relu(w)*relu(w')"]
OPTIONS: tuple[WeightOption, ...] = ("w", "w'", "w+w'", "w*w'")
UNTRAINED: tuple[WeightOption, ...] = ("relu(w)", "w*w", "w*random")  # our own that need no FC2
CONTROLS: tuple[WeightOption, ...] = (*UNTRAINED, "relu(w)*relu(w')")  # all of our own
FEW = 4  # images of AdvCAM between two writes: a killed run loses at most these
BACKGROUND = {"cam": 0.15, "recam": 0.21, "eps": 0.20}  # published thresholds; 0.21 is ReCAM's on VOC
# from requests, images (3, H, W) and classes present (P,) to the maps of every scale of each image
Extractor = Callable[[Sequence[Request], list[Tensor], list[Tensor]], Sequence[Sequence[Tensor]]]


class MapStage(ImageStage):
    """What every stage that makes maps has in common: whole splits, single images, thresholds."""

    published: ClassVar[dict[str, float]] = BACKGROUND
    embedded: ClassVar[float] = 0.55  # chosen on scenes of another seed: no published one fits
    thresholds: ClassVar[tuple[float, ...]] = THRESHOLDS  # that masks of these maps are scored at

    @property
    def dataset(self) -> DataSettings:
        return self.model.dataset

    @property
    def seed(self) -> int:
        return self.model.seed

    def merge(self, item: dict, *, stride: int | None = None) -> Tensor:
        """Return the normalised maps (P, H, W) of a stored item, at image size or at a stride."""
        if not item["classes"]:
            return torch.zeros(0, *(-(-side // (stride or 1)) for side in item["size"]))
        return self._merged(item, stride)

    def _merged(self, item: dict, stride: int | None) -> Tensor:
        scales = [torch.from_numpy(np.array(m)) for m in item["scales"]]  # (P, h_s, w_s)
        cell = getattr(self.model, "base", self.model).output_stride
        return merge_scales(scales, tuple(item["size"]), stride=stride, cell=cell)

    @property
    def convergence(self) -> Convergence:
        """Whether the model at the root has converged."""
        return convergence(self.model.result["convergence"])

    @property
    def reactivated(self) -> bool:
        return isinstance(self.model, Reactivate) and self.model.sce_weight > 0

    @property
    def fixed_threshold(self) -> float:
        """The published background threshold for these maps, or that for the embedded scenes."""
        if self.dataset.name == "hoofed":
            return self.embedded
        return self.published["recam" if self.reactivated and self.dataset.name == "voc12" else "cam"]

    def images(self, split: Split, *, limit: int = 0) -> ImageSet:
        return self.dataset.images(split, limit=limit)

    def run(self, split: Split, *, limit: int = 0) -> Iterator[tuple[str, dict]]:
        """Yield id and stored item of every image of a split."""
        ids = self.images(split, limit=limit).ids
        return zip(ids, self.items([(split, name) for name in ids]))

    def maps(self, split: Split, *, limit: int = 0) -> Iterator[tuple[str, Tensor, list[int]]]:
        """Yield id, normalised maps (P, H, W) and classes present of every image of a split."""
        for name, item in self.run(split, limit=limit):
            yield name, self.merge(item), item["classes"]

    def one(self, split: Split, name: str) -> tuple[Tensor, list[int]]:
        """Return the normalised maps (P, H, W) and the classes present of one image."""
        item = next(iter(self.items([(split, name)])))
        return self.merge(item), item["classes"]


class ModelMaps(MapStage):
    """Maps that a model gives itself: weight option, scales, and how they are stored."""

    model: TrainClassifier | Reactivate = pydantic.Field(TrainClassifier(), discriminator="stage")
    weights: WeightOption = "w"
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        if self.weights not in self.options:
            who = "Reactivate with sce_weight 0" if isinstance(self.model, Reactivate) else "TrainClassifier"
            known = ", ".join(self.options)
            raise SettingsError(f"{who} has no FC2: its maps take weights {known}, not {self.weights!r}")

    @property
    def options(self) -> tuple[WeightOption, ...]:
        return (*OPTIONS, *CONTROLS) if self.reactivated else ("w", *UNTRAINED)

    def make(self, requests: Sequence[Request]) -> Iterator[dict]:
        count, maps_of = self.extractor()
        for start in range(0, len(requests), count):
            window = requests[start : start + count]
            with labels_only(), measured() as cost:
                present, pictures = open_window(self.dataset, window)
                maps = maps_of(window, pictures, present)
            for picture, classes, scales in zip(pictures, present, maps):
                yield {
                    "scales": [m.numpy() for m in scales] if len(classes) else [],
                    "classes": classes.tolist(), "size": list(picture.shape[-2:]),
                    "cost": per_image(cost, len(pictures)),
                }  # fmt: skip

    def extractor(self) -> tuple[int, Extractor]:
        """Return how many images go at once, and what gives their maps, one a scale for each image."""
        raise NotImplementedError


class ExtractCams(ModelMaps):
    """Multi-scale, mirrored class activation maps of the classes in each image's label (Eq. 2 and 9).

    Stored are the ReLU'd, un-normalised maps of every scale at the network's own resolution, of all weight
    options from one forward pass: ``weights`` chooses what is read and is no part of the cache key.
    ``reading="softmax"`` takes the share of a class in a softmax over all classes and the background, as EPS.
    """

    reading: Literal["relu", "softmax"] = "relu"
    stage: Literal["ExtractCams/3"] = "ExtractCams/3"
    step = "extract maps"

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        if self.reading == "relu":
            return
        if getattr(self.model, "base", self.model).saliency is None:
            who = type(self.model).__name__
            raise SettingsError(f"{who} has no background channel: train with saliency, or read with 'relu'")
        if self.weights != "w":
            raise SettingsError(f"a softmax is read with weights 'w' alone, not {self.weights!r}")

    @property
    def stored(self) -> tuple[WeightOption, ...]:
        return self.options if self.reading == "relu" else ("w",)

    @property
    def fixed_threshold(self) -> float:
        return BACKGROUND["eps"] if self.reading == "softmax" else super().fixed_threshold

    def not_in_key(self) -> tuple[str, ...]:
        return ("weights",)

    @property
    def upstream(self) -> tuple[Stage, ...]:
        return (self.model, *self.features)

    @property
    def features(self) -> list[Features]:
        """Stored features at every scale, if the model has trained heads alone."""
        if self.model.train == "all":
            return []
        given = {**dict(getattr(self.model, "base", self.model).features), "mirror": True}
        return [Features(**{**given, "scale": scale}) for scale in self.scales]

    def make(self, requests: Sequence[Request]) -> Iterator[dict]:
        for features in self.features:
            features.items(requests)  # before the maps, whose time is not that of features which many share
        yield from super().make(requests)

    def extractor(self) -> tuple[int, Extractor]:
        classifier, fc2 = self.model.load()
        fc1 = classifier.fc1.weight.detach()
        weights = torch.stack([combine_weights(fc1, fc2, o, seed=self.seed) for o in self.stored])
        if self.model.train == "heads":
            return WINDOW, lambda requests, _, present: self._from_features(requests, weights, present)
        background = classifier.background.weight.detach()[0] if self.reading == "softmax" else None
        classifier.to(default_device())
        return WINDOW, lambda _, pictures, present: extract_scale_maps(
            classifier, pictures, weights, scales=self.scales, classes=present, background=background,
            precision=self.precision,
        )  # fmt: skip

    def _from_features(
        self, requests: Sequence[Request], weights: Tensor, classes: Sequence[Tensor]
    ) -> list[list[Tensor]]:
        columns = (features.items(requests) for features in self.features)
        pairs = zip(*[[torch.from_numpy(np.array(i["features"])).float() for i in c] for c in columns])
        return [[pair_maps(p, weights, k) for p in scales] for scales, k in zip(pairs, classes)]

    def _merged(self, item: dict, stride: int | None) -> Tensor:
        option = self.stored.index(self.weights)
        return super()._merged({**item, "scales": [maps[option] for maps in item["scales"]]}, stride)


class AdvCams(ModelMaps):
    """Maps of images moved to where their class is recognised better (Eq. 10), with any weight option.

    Here the weights are part of the key: every option moves its own way. ``score`` and ``penalty`` are the
    units of :func:`recamlib.method.advcam.advcam_gain`; the defaults are those of AdvCAM's code, with mu 7.
    """

    steps: int = pydantic.Field(27, ge=1)
    step_size: float = pydantic.Field(0.08, gt=0)
    mu: float = pydantic.Field(7.0, ge=0)
    mask_threshold: float = pydantic.Field(0.5, gt=0, lt=1)
    rivals: Literal["all", "present"] = "all"
    score: Literal["linear", "rectified"] = "rectified"
    penalty: Literal["pixels", "channels"] = "channels"
    stage: Literal["AdvCams/2"] = "AdvCams/2"
    step = "advcam"

    def extractor(self) -> tuple[int, Extractor]:
        classifier, fc2 = self.model.load()
        weight = combine_weights(classifier.fc1.weight.detach(), fc2, self.weights)
        classifier.to(default_device())
        names = ("scales", "steps", "step_size", "mu", "mask_threshold", "rivals", "score", "penalty")
        given = {name: getattr(self, name) for name in (*names, "precision")}
        return FEW, lambda _, pictures, present: adversarial_maps(
            classifier, pictures, weight, classes=present, **given
        )


class RefinedMaps(MapStage):
    """Maps that are made from those of another stage, ``cams``."""

    @property
    def model(self) -> TrainClassifier | Reactivate:
        return self.cams.model


def open_window(data: DataSettings, requests: Sequence[Request]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the classes present (P,) and the images (3, H, W) of some requests."""
    sets = [(data.images(split), name) for split, name in requests]
    present = [torch.from_numpy(np.flatnonzero(images.labels(name))) for images, name in sets]
    return present, [images.image(name) for images, name in sets]
