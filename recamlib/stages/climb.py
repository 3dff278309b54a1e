"""Stage per image: adversarial climbing, maps of images moved to where their class is recognised better."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pydantic

from recamlib.data.access import labels_only
from recamlib.engine.advcam import adversarial_maps
from recamlib.engine.device import default_device, measured
from recamlib.method.maps import combine_weights
from recamlib.stages.classify import Reactivate, TrainClassifier
from recamlib.stages.infra import StageCache
from recamlib.stages.maps import (
    MapStage,
    Request,
    WeightOption,
    check_option,
    open_window,
    scale_items,
)  # fmt: skip

FEW = 4  # images climbed between two writes: a killed run loses at most these


class AdvCams(MapStage):
    """Maps of adversarially climbed images (Eq. 10), for CAM and for ReCAM with any weight option.

    Unlike in :class:`ExtractCams`, the weights are part of the key: every option climbs its own way.
    ``score`` and ``penalty`` say in which units Eq. 10 is taken
    (:func:`recamlib.method.advcam.advcam_gain`); the defaults are of AdvCAM's code, where mu is 7.
    """

    model: TrainClassifier | Reactivate = pydantic.Field(TrainClassifier(), discriminator="stage")
    weights: WeightOption = "w"
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    steps: int = pydantic.Field(27, ge=1)
    step_size: float = pydantic.Field(0.08, gt=0)
    mu: float = pydantic.Field(7.0, ge=0)
    mask_threshold: float = pydantic.Field(0.5, gt=0, lt=1)
    rivals: Literal["all", "present"] = "all"
    score: Literal["linear", "rectified"] = "rectified"
    penalty: Literal["pixels", "channels"] = "channels"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    stage: Literal["AdvCams/2"] = "AdvCams/2"
    infra: StageCache = StageCache()

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        check_option(self.model, self.weights)

    @infra.apply(item_uid=lambda item: item[1], cache_type="Auto")
    def climb(self, items: Sequence[Request]) -> Iterator[dict]:
        """Yield for each (split, id) the summed maps of every scale, (P, h, w), classes and cost."""
        classifier, fc2 = self.model.load()
        fc1 = classifier.fc1.weight.detach()
        weight = fc1 if self.weights == "w" else combine_weights(fc1, fc2, self.weights)
        classifier.to(default_device())
        for start in range(0, len(items), FEW):
            window = items[start : start + FEW]
            with labels_only(), measured() as cost:
                present, pictures = open_window(self.dataset, window)
                maps = adversarial_maps(
                    classifier, pictures, weight, classes=present, scales=self.scales, steps=self.steps,
                    step_size=self.step_size, mu=self.mu, mask_threshold=self.mask_threshold,
                    rivals=self.rivals, score=self.score, penalty=self.penalty, precision=self.precision,
                )  # fmt: skip
            yield from scale_items(pictures, present, maps, cost)

    def items(self, requests: Sequence[Request]) -> Iterator[dict]:
        """Yield the stored item of each request in order, computing what is missing."""
        return self.climb(requests)
