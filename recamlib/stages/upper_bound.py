"""Stage of the upper bound: the same network trained on true masks. Nothing else can take it as input."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from recamlib.data.images import labels_from_png, labels_to_png
from recamlib.stages.base import DataSettings
from recamlib.stages.infra import StageCache
from recamlib.stages.segment import SegmenterStage


class TrainUpperBound(SegmenterStage):
    """Train a segmentation network on *true* masks: fully supervised, what weak methods are measured against.

    It breaks the rule that masks are for metrics only, on purpose and alone: no stage but
    :class:`recamlib.stages.SegmentationScore` accepts it, and everything it gives is labelled as such.
    """

    dataset: DataSettings = DataSettings()
    stage: Literal["TrainUpperBound/2"] = "TrainUpperBound/2"
    infra: StageCache = StageCache(work="training")

    @infra.apply(item_uid=str, cache_type="Auto")
    def train(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Train and yield file, digest, history and cost."""
        for name in items:
            truth = self.dataset.masks("train_aug")
            # read before the loop starts, which shuts the door to masks
            made = {id: labels_to_png(truth.mask(id)) for id in self.images().ids}
            result = self.fit(name, lambda id, made=made: labels_from_png(made[id]))
            yield result | {"supervision": "true masks"}
