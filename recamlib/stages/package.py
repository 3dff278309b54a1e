"""Stage per image: maps by the methods of the grad-cam package, for comparison."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pydantic

from recamlib.data.access import labels_only
from recamlib.engine.device import default_device, measured
from recamlib.stages.base import Split
from recamlib.stages.classify import Reactivate, TrainClassifier
from recamlib.stages.infra import StageCache
from recamlib.stages.maps import MapStage, Request, open_window, scale_items
from recamlib.studies.packaged import Method, packaged_maps


class PackageCams(MapStage):
    """Grad-CAM, Grad-CAM++, LayerCAM or Score-CAM of a trained classifier, image by image.

    Scales and mirror images are those of :class:`ExtractCams`, and so is the merging: what differs between
    the two is the map alone.
    """

    model: TrainClassifier | Reactivate = pydantic.Field(TrainClassifier(), discriminator="stage")
    method: Method = "gradcam"
    scales: tuple[float, ...] = (1.0,)
    stage: Literal["PackageCams/2"] = "PackageCams/2"
    infra: StageCache = StageCache()

    @infra.apply(item_uid=lambda item: item[1], cache_type="Auto")
    def explain(self, items: Sequence[Request]) -> Iterator[dict]:
        """Yield for each (split, id) the maps of every scale, (P, h, w), classes and cost."""
        classifier, _fc2 = self.model.load()
        classifier.to(default_device())
        for item in items:
            with labels_only(), measured() as cost:
                present, pictures = open_window(self.dataset, [item])
                maps = packaged_maps(
                    classifier, pictures, method=self.method, classes=present, scales=self.scales
                )
            yield from scale_items(pictures, present, maps, cost)

    def items(self, requests: Sequence[Request]) -> Iterator[dict]:
        """Yield the stored item of each request in order, computing what is missing."""
        return self.explain(requests)


def seconds_per_image(stage: MapStage, *, split: Split, limit: int = 0) -> float:
    """Return the mean of the seconds that a stage recorded for each image of a split, or of a part of it."""
    return float(np.mean([item["cost"]["seconds"] for _, item in stage.run(split, limit=limit)]))
