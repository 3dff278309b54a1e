"""Stage per image: maps after the random walk, which boundaries hold up."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.data.access import labels_only
from recamlib.engine.device import default_device, measured, per_image
from recamlib.errors import DataError
from recamlib.method.walk import random_walks
from recamlib.stages.base import Stage
from recamlib.stages.boundary import STRIDE, BoundaryMaps, Cams, TrainBoundary
from recamlib.stages.classify import Reactivate, TrainClassifier
from recamlib.stages.infra import StageCache
from recamlib.stages.maps import EMBEDDED, ExtractCams, MapStage, Request, no_maps

BATCH = 8  # images whose walks share one sparse product
FIXED = {"recam": 0.28, "cam": 0.25}  # published background thresholds; 0.28 is ReCAM's on VOC


class Walk(MapStage):
    """Random walk of maps over the image (Eq. 11): the maps that become the pseudo masks.

    Stored per image are the walked maps at stride 4, half precision, divided by the largest value of all
    classes, as published.
    """

    cams: Cams = pydantic.Field(ExtractCams(), discriminator="stage")
    boundary: TrainBoundary = TrainBoundary()
    power: float = pydantic.Field(1.0, gt=0)
    radius: int = pydantic.Field(5, ge=2)
    beta: float = pydantic.Field(10.0, gt=0)
    steps: int = pydantic.Field(256, ge=0)
    stage: Literal["Walk/2"] = "Walk/2"
    infra: StageCache = StageCache()

    @property
    def model(self) -> TrainClassifier | Reactivate:
        """The classifier at the root."""
        return self.cams.model

    @property
    def fixed_threshold(self) -> float:
        """The published background threshold for these maps; for the embedded scenes one of `EMBEDDED`."""
        if self.dataset.name == "hoofed":
            return EMBEDDED["walk"]
        return FIXED["recam" if self.reactivated and self.dataset.name == "voc12" else "cam"]

    @property
    def upstream(self) -> tuple[Stage, ...]:
        """The stages that give maps and boundaries."""
        return self.cams, self.boundaries

    @property
    def boundaries(self) -> BoundaryMaps:
        """The stage that gives the boundary maps."""
        return BoundaryMaps(net=self.boundary)

    @infra.apply(item_uid=lambda item: item[1], cache_type="Auto")
    def walk(self, items: Sequence[Request]) -> Iterator[dict]:
        """Yield for each (split, id) the walked maps (P, ceil(H/4), ceil(W/4)), classes, size and cost."""
        stored, held = self.cams.items(items), self.boundaries.infer(items)
        for start in range(0, len(items), BATCH):
            window = items[start : start + BATCH]
            upstream = [next(stored) for _ in window]
            walls = [torch.from_numpy(np.array(next(held)["boundary"])).float() for _ in window]
            with labels_only(), measured() as cost:
                maps = [self.cams.merge(item, stride=STRIDE) ** self.power for item in upstream]
                for (_, name), m, wall in zip(window, maps, walls):
                    if not m.isfinite().all():
                        raise DataError(f"the maps of {name} hold values that are not finite")
                    if m.shape[1:] != wall.shape:
                        raise DataError(
                            f"the maps of {name} have shape {tuple(m.shape[1:])}, its boundary map "
                            f"{tuple(wall.shape)}: was the image changed? delete {self.folder.name}"
                        )
                device = default_device()
                walked = random_walks(
                    [m.to(device) for m in maps], [w.to(device) for w in walls],
                    radius=self.radius, beta=self.beta, steps=self.steps,
                )  # fmt: skip
            for item, m in zip(upstream, walked):
                yield walked_item(m.cpu(), item) | {"cost": per_image(cost, len(window))}

    def items(self, requests: Sequence[Request]) -> Iterator[dict]:
        """Yield the stored item of each request in order, computing what is missing."""
        return self.walk(requests)

    def merge(self, item: dict, *, stride: int | None = None) -> Tensor:
        """Return the walked maps (P, H, W) of a stored item, stretched to image size, peak 1."""
        if not item["classes"]:
            return no_maps(item["size"], stride)
        maps = torch.from_numpy(np.array(item["maps"], dtype=np.float32))
        if stride == STRIDE:
            return maps
        height, width = item["size"]
        maps = F.interpolate(maps[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0]
        maps = maps[:, :height, :width]
        return maps / maps.max().clamp(min=1e-5)


def walked_item(maps: Tensor, item: dict) -> dict:
    """Return what is stored of walked maps (P, h, w): divided by their largest value, in half precision."""
    peak = maps.max().clamp(min=1e-5) if maps.numel() else 1.0
    return {
        "maps": (maps / peak).numpy().astype(np.float16) if item["classes"] else [],
        "classes": item["classes"], "size": item["size"],
    }  # fmt: skip
