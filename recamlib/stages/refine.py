"""Stages that refine maps: IRN (labels, boundary network, random walk) and the saliency merge of EDAM."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recamlib.data.access import labels_only
from recamlib.data.images import labels_from_png, labels_to_png
from recamlib.data.views import PairedView, PairedViews, normalise
from recamlib.engine.device import default_device, measured, per_image
from recamlib.errors import DataError
from recamlib.method.boundary import boundary_loss, check_thresholds, confident_labels
from recamlib.method.crf import crf_labels, crf_many
from recamlib.method.saliency import edam_merge
from recamlib.method.scores import masked_argmax
from recamlib.method.walk import random_walks
from recamlib.models.backbones import build_backbone
from recamlib.models.base import layout
from recamlib.models.irnet import BoundaryNet
from recamlib.stages.base import DataSettings, ImageStage, Request, Stage, Training
from recamlib.stages.maps import AdvCams, ExtractCams, RefinedMaps
from recamlib.stages.saliency import Saliency, SaliencyMaps

Cams = ExtractCams | AdvCams
STRIDE = 4  # pixels of the image per cell of boundary, labels and walk
BATCH = 8  # images whose walks share one sparse product


class _Confident(Stage):
    """What the labels of IRN and the network that learns from them share: maps, thresholds, CRF or not."""

    cams: Cams = pydantic.Field(ExtractCams(), discriminator="stage")
    foreground: float = pydantic.Field(0.35, gt=0, lt=1)
    background: float = pydantic.Field(0.10, ge=0, lt=1)
    crf: bool = True

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        check_thresholds(self.foreground, self.background)


class ConfidentLabels(_Confident, ImageStage):
    """Pixels that maps are sure about: dense CRF at a high and at a low threshold, where they agree.

    Stored as PNG bytes are label maps: 0 background, k + 1 class k, 255 neither.
    """

    stage: Literal["ConfidentLabels/2"] = "ConfidentLabels/2"
    step = "confident labels"

    def make(self, requests: Sequence[Request]) -> Iterator[dict]:
        self.cams.items(requests)  # what is missing upstream is made first, and not read
        stored, images = self.cams.items(requests), self._labelled(requests)
        solved = crf_many(crf_labels, images) if self.crf else (i["labels"] for i in images)  # two maps each
        for item in stored:
            with labels_only(), measured() as cost:
                names = np.full(256, 255, np.uint8)
                names[: 1 + len(item["classes"])] = [0, *(k + 1 for k in item["classes"])]
                labels = names[confident_labels(*next(solved))]
                png = labels_to_png(labels)
            yield {"png": png, "kept": float((labels != 255).mean()), "cost": per_image(cost, 1)}

    def _labelled(self, requests: Sequence[Request]) -> Iterator[dict[str, Any]]:
        """Yield pictures and label maps (2, H, W): 0, or p + 1 for the p-th class present."""
        for (split, name), item in zip(requests, self.cams.items(requests)):
            maps = self.cams.merge(item).numpy()
            picture = self.cams.dataset.images(split).image(name)
            labels = [masked_argmax(maps, threshold) for threshold in (self.foreground, self.background)]
            yield {"image": picture, "labels": np.stack(labels), "num_labels": 1 + len(maps)}

    def read(self, item: dict) -> np.ndarray:
        """Return the label map (H, W), uint8, of a stored item."""
        return labels_from_png(item["png"])


class TrainBoundary(_Confident, Training):
    """Train IRN's boundary branch on confident labels of the training images, or of ``limit`` of them.

    The frozen backbone, ``trunk``, is ``"pretrained"``, the classifier's architecture with its pre-trained
    weights, as published; ``"classifier"``, the trained classifier's own; or ``"auto"``, the first if it can.
    """

    trunk: Literal["auto", "pretrained", "classifier"] = "auto"
    limit: int = pydantic.Field(0, ge=0)
    epochs: int = pydantic.Field(3, ge=1)
    batch_size: int = pydantic.Field(32, ge=1)
    crop: int = pydantic.Field(512, ge=32)
    scale: tuple[float, float] = (0.5, 1.5)
    radius: int = pydantic.Field(10, ge=2)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: int = pydantic.Field(0, ge=0)
    stage: Literal["TrainBoundary/2"] = "TrainBoundary/2"
    step = "train boundary"

    @property
    def upstream(self) -> tuple[Stage, ...]:
        return (self.labels,)

    @property
    def dataset(self) -> DataSettings:
        return self.cams.dataset

    @property
    def labels(self) -> ConfidentLabels:
        return ConfidentLabels(**{name: getattr(self, name) for name in _Confident.model_fields})

    def build(self) -> BoundaryNet:
        model = self.cams.model
        base = getattr(model, "base", model)
        if self.trunk == "classifier" or (self.trunk == "auto" and not base.weights):
            backbone = model.load()[0].backbone
        else:
            backbone = build_backbone(base.backbone, output_stride=base.output_stride, weights=base.weights)
        torch.manual_seed(self.seed)
        return BoundaryNet(backbone)

    def make(self) -> dict[str, Any]:
        images = self.images()
        stored = dict(zip(images.ids, self.labels.items(self.requests)))
        view = PairedView(crop=self.crop, scale=self.scale, stride=STRIDE)
        views = PairedViews(images, lambda id: labels_from_png(stored[id]["png"]), view, seed=self.seed)
        net = self.build()
        history, cost = self.fit(
            net, views, self._step, [{"params": net.branch.parameters(), "lr": self.lr}], epochs=self.epochs,
            seed=self.seed, precision=self.precision,
        )  # fmt: skip
        result = self.store(net.branch, history, cost, images=len(views))
        return result | {"kept": float(np.mean([item["kept"] for item in stored.values()]))}

    def _step(self, net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = net(images).float()
        with torch.autocast(logits.device.type, enabled=False):
            loss = boundary_loss(logits.sigmoid(), labels.long(), radius=self.radius)
        parts = {name: getattr(loss, name) for name in ("background", "foreground", "negative")}
        return {"loss": loss.total, **parts}

    def load(self) -> BoundaryNet:
        net = self.build()
        self.load_into(net.branch)
        return net.eval()


class BoundaryMaps(ImageStage):
    """Boundary probabilities (ceil(H/4), ceil(W/4)) of whole images, image and mirror averaged; float16."""

    net: TrainBoundary = TrainBoundary()
    stage: Literal["BoundaryMaps/2"] = "BoundaryMaps/2"
    step = "boundary maps"

    def make(self, requests: Sequence[Request]) -> Iterator[dict]:
        place = {"device": default_device(), "memory_format": layout(default_device())}
        net = self.net.load().to(**place)
        for split, name in requests:
            with labels_only(), torch.inference_mode(), measured() as cost:
                picture = self.net.dataset.images(split).image(name)
                x = normalise(picture)[None].to(**place)
                boundary = net.boundary(x)[0].float().cpu()  # (h, w)
            if not boundary.isfinite().all():
                raise DataError(f"the boundary map of {name} is not finite; train again at a lower rate")
            yield {"boundary": boundary.numpy().astype(np.float16), "cost": per_image(cost, 1)}


class Walk(RefinedMaps):
    """Random walk of maps over the image (Eq. 11): the maps that become the pseudo masks.

    ``power`` is applied to the maps before they walk: 1.5 is AdvCAM's, which IRN's labels do not get. Stored
    are walked maps (P, ceil(H/4), ceil(W/4)), float16, over the largest value of all classes, as published.
    """

    cams: Cams = pydantic.Field(ExtractCams(), discriminator="stage")
    boundary: TrainBoundary = TrainBoundary()
    power: float = pydantic.Field(1.0, gt=0)
    radius: int = pydantic.Field(5, ge=2)
    beta: float = pydantic.Field(10.0, gt=0)
    steps: int = pydantic.Field(256, ge=0)
    stage: Literal["Walk/2"] = "Walk/2"
    step = "random walk"
    published: ClassVar[dict[str, float]] = {"recam": 0.28, "cam": 0.25}  # 0.28 is ReCAM's on VOC
    embedded = 0.5

    @property
    def upstream(self) -> tuple[Stage, ...]:
        return self.cams, self.boundaries

    @property
    def boundaries(self) -> BoundaryMaps:
        return BoundaryMaps(net=self.boundary)

    def make(self, requests: Sequence[Request]) -> Iterator[dict]:
        stored, held = (stage.items(requests) for stage in self.upstream)
        for start in range(0, len(requests), BATCH):
            window = requests[start : start + BATCH]
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
                peak = m.max().clamp(min=1e-5) if m.numel() else 1.0
                yield {
                    "maps": (m / peak).cpu().numpy().astype(np.float16) if item["classes"] else [],
                    "classes": item["classes"], "size": item["size"], "cost": per_image(cost, len(window)),
                }  # fmt: skip

    def _merged(self, item: dict, stride: int | None) -> Tensor:
        maps = torch.from_numpy(np.array(item["maps"], dtype=np.float32))
        if stride == STRIDE:
            return maps
        height, width = item["size"]
        maps = F.interpolate(maps[None], scale_factor=STRIDE, mode="bilinear", align_corners=False)[0]
        maps = maps[:, :height, :width]
        return maps / maps.max().clamp(min=1e-5)


class SaliencyMerge(RefinedMaps):
    """EDAM's merge of maps with saliency: on ReCAM's maps it is ReCAM-M (Table 4).

    It comes after IRN's walk, whose labels need maps that say how sure they are: these are 0 or 1.
    """

    cams: ExtractCams | AdvCams | Walk = pydantic.Field(ExtractCams(), discriminator="stage")
    saliency: Saliency = Saliency()
    theta: float = pydantic.Field(0.2, ge=0, le=1)
    alpha: float = pydantic.Field(1e-6, ge=0)
    beta: float = pydantic.Field(0.99999, gt=0)
    stage: Literal["SaliencyMerge/2"] = "SaliencyMerge/2"
    step = "merge with saliency"
    thresholds = (0.5,)  # between the two values that there are

    @property
    def fixed_threshold(self) -> float:
        return self.thresholds[0]

    @property
    def upstream(self) -> tuple[Stage, ...]:
        return self.cams, SaliencyMaps(dataset=self.dataset, saliency=self.saliency)

    def make(self, requests: Sequence[Request]) -> Iterator[dict]:
        _, salient = self.upstream
        for item, grey in zip(self.cams.items(requests), salient.items(requests), strict=True):
            with labels_only(), measured() as cost:
                maps = self.cams.merge(item)  # (P, H, W)
                if not isinstance(self.cams, Walk):  # EDAM divides by the maximum alone; the walk's is common
                    maps = maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-5)
                mask = edam_merge(
                    maps.numpy(), salient.read(grey), theta=self.theta, alpha=self.alpha, beta=self.beta
                )
            yield {
                "png": labels_to_png(mask), "classes": item["classes"], "size": item["size"],
                "cost": per_image(cost, 1),
            }  # fmt: skip

    def _merged(self, item: dict, stride: int | None) -> Tensor:
        mask = torch.from_numpy(labels_from_png(item["png"]))[:: stride or 1, :: stride or 1]  # (H, W)
        return (mask == torch.arange(1, len(item["classes"]) + 1)[:, None, None]).float()
