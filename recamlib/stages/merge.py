"""Stage per image: maps whose background is where the image is not salient, as EDAM merges them."""

from collections.abc import Iterator, Sequence
from typing import Literal

import pydantic
import torch
from torch import Tensor

from recamlib.data.access import labels_only
from recamlib.data.images import labels_from_png, labels_to_png
from recamlib.engine.device import measured, per_image
from recamlib.method.saliency import edam_merge
from recamlib.stages.base import Stage
from recamlib.stages.classify import Reactivate, TrainClassifier
from recamlib.stages.climb import AdvCams
from recamlib.stages.infra import StageCache
from recamlib.stages.maps import ExtractCams, MapStage, Request, no_maps
from recamlib.stages.saliency import Saliency, SaliencyMaps
from recamlib.stages.walk import Walk


class SaliencyMerge(MapStage):
    """EDAM's merge of maps with saliency: on ReCAM's maps it is ReCAM-M (Table 4).

    It is a post-processing: the last step before masks, after IRN's walk where there is one, and IRN itself
    does not take it (its labels need maps that say how sure they are, and these are 0 or 1). There is no
    threshold to choose either.
    """

    cams: ExtractCams | AdvCams | Walk = pydantic.Field(ExtractCams(), discriminator="stage")
    saliency: Saliency = Saliency()
    theta: float = pydantic.Field(0.2, ge=0, le=1)
    alpha: float = pydantic.Field(1e-6, ge=0)
    beta: float = pydantic.Field(0.99999, gt=0)
    stage: Literal["SaliencyMerge/2"] = "SaliencyMerge/2"
    infra: StageCache = StageCache()

    @property
    def model(self) -> TrainClassifier | Reactivate:
        """The classifier at the root."""
        return self.cams.model

    @property
    def fixed_threshold(self) -> float:
        """Between the two values that there are."""
        return 0.5

    @property
    def thresholds(self) -> tuple[float, ...]:
        """That one alone: there is nothing to choose."""
        return (self.fixed_threshold,)

    @property
    def upstream(self) -> tuple[Stage, ...]:
        """The stages that give maps and saliency."""
        return self.cams, SaliencyMaps(dataset=self.dataset, saliency=self.saliency)

    @infra.apply(item_uid=lambda item: item[1], cache_type="Auto")
    def combine(self, items: Sequence[Request]) -> Iterator[dict]:
        """Yield for each (split, id) which of its classes wins as PNG bytes, classes, size and cost."""
        _, salient = self.upstream
        for item, found in zip(self.cams.items(items), salient.make(items), strict=True):
            with labels_only(), measured() as cost:
                maps = self.cams.merge(item)  # (P, H, W)
                if not isinstance(self.cams, Walk):  # EDAM divides by the maximum alone; the walk's is common
                    maps = maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-5)
                mask = edam_merge(
                    maps.numpy(), salient.read(found), theta=self.theta, alpha=self.alpha, beta=self.beta
                )
            yield {
                "png": labels_to_png(mask), "classes": item["classes"], "size": item["size"],
                "cost": per_image(cost, 1),
            }  # fmt: skip

    def items(self, requests: Sequence[Request]) -> Iterator[dict]:
        """Yield the stored item of each request in order, computing what is missing."""
        return self.combine(requests)

    def merge(self, item: dict, *, stride: int | None = None) -> Tensor:
        """Return maps (P, H, W) of 0 and 1, at image size or every so many pixels of it."""
        if not item["classes"]:
            return no_maps(item["size"], stride)
        mask = torch.from_numpy(labels_from_png(item["png"]))[:: stride or 1, :: stride or 1]  # (H, W)
        return (mask == torch.arange(1, len(item["classes"]) + 1)[:, None, None]).float()
