"""Stages of IRN: confident labels from maps, the boundary network they train, and its boundary maps."""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from recamlib.data.access import ImageSet, labels_only
from recamlib.data.images import labels_from_png, labels_to_png
from recamlib.data.views import PairedView, PairedViews, normalise
from recamlib.engine import fit as engine
from recamlib.engine.device import default_device, measured, per_image
from recamlib.errors import DataError
from recamlib.method.boundary import boundary_loss, check_thresholds, confident_labels
from recamlib.method.crf import LabelJob, crf_many
from recamlib.method.scores import masked_argmax
from recamlib.models.backbones import build_backbone
from recamlib.models.irnet import BoundaryNet
from recamlib.stages.base import DataSettings, Stage, check_weights, load_weights_into, store_trained
from recamlib.stages.climb import AdvCams
from recamlib.stages.infra import StageCache
from recamlib.stages.maps import ExtractCams, Request

Cams = ExtractCams | AdvCams
STRIDE = 4  # pixels of the image per cell of boundary, labels and walk


class ConfidentLabels(Stage):
    """Pixels that maps are sure about: dense CRF at a high and at a low threshold, what agrees is kept.

    Stored per image is the label map (0 background, k + 1 class k, 255 neither) as the bytes of a PNG.
    ``power`` is applied to the maps first.
    """

    cams: Cams = pydantic.Field(ExtractCams(), discriminator="stage")
    foreground: float = pydantic.Field(0.35, gt=0, lt=1)
    background: float = pydantic.Field(0.10, ge=0, lt=1)
    power: float = pydantic.Field(1.0, gt=0)
    crf: bool = True
    stage: Literal["ConfidentLabels/2"] = "ConfidentLabels/2"
    infra: StageCache = StageCache()

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        check_thresholds(self.foreground, self.background)

    @infra.apply(item_uid=lambda item: item[1], cache_type="Auto")
    def label(self, items: Sequence[Request]) -> Iterator[dict]:
        """Yield for each (split, id) the label map as PNG bytes, the share of pixels kept, and cost."""
        self.cams.items(items)  # what is missing upstream is made first, and not read
        stored, jobs = self.cams.items(items), self._jobs(items)
        solved = crf_many(jobs) if self.crf else (job.labels for job in jobs)  # two maps an image
        for item in stored:
            with labels_only(), measured() as cost:
                names = np.full(256, 255, np.uint8)
                names[: 1 + len(item["classes"])] = [0, *(k + 1 for k in item["classes"])]
                labels = names[confident_labels(*next(solved))]
                png = labels_to_png(labels)
            yield {"png": png, "kept": float((labels != 255).mean()), "cost": per_image(cost, 1)}

    def _jobs(self, items: Sequence[Request]) -> Iterator[LabelJob]:
        """Yield two label maps (2, H, W) an image, at the high and at the low threshold, with local values.

        Local means 0 for the background and p + 1 for the p-th class present.
        """
        for (split, name), item in zip(items, self.cams.items(items)):
            maps = self.cams.merge(item).numpy() ** self.power
            picture = self.cams.dataset.images(split).image(name)
            found = [masked_argmax(maps, threshold) for threshold in (self.foreground, self.background)]
            yield LabelJob(picture, np.stack(found), 1 + len(maps))

    def read(self, item: dict) -> np.ndarray:
        """Return the label map (H, W), uint8, of a stored item."""
        return labels_from_png(item["png"])


class TrainBoundary(Stage):
    """Train IRN's boundary branch on confident labels of the training images.

    ``trunk`` chooses the frozen backbone: ``"pretrained"`` is the classifier's architecture with its
    pre-trained weights, as published; ``"classifier"`` is the trained classifier's own, the only choice where
    there are no pre-trained weights; ``"auto"`` takes the first where it can. ``power`` 1.5 is published for
    AdvCAM. ``limit`` trains on a random part of the images.
    """

    cams: Cams = pydantic.Field(ExtractCams(), discriminator="stage")
    foreground: float = pydantic.Field(0.35, gt=0, lt=1)
    background: float = pydantic.Field(0.10, ge=0, lt=1)
    power: float = pydantic.Field(1.0, gt=0)
    crf: bool = True
    trunk: Literal["auto", "pretrained", "classifier"] = "auto"
    limit: int = pydantic.Field(0, ge=0)
    epochs: int = pydantic.Field(3, ge=1)
    batch_size: int = pydantic.Field(32, ge=1)
    crop: int = pydantic.Field(512, ge=32)
    scale: tuple[float, float] = (0.5, 1.5)
    radius: int = pydantic.Field(10, ge=2)
    lr: float = pydantic.Field(0.1, gt=0)
    momentum: float = pydantic.Field(1e-4, ge=0, lt=1)
    weight_decay: float = pydantic.Field(1e-4, ge=0)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: int = pydantic.Field(0, ge=0)
    stage: Literal["TrainBoundary/2"] = "TrainBoundary/2"
    infra: StageCache = StageCache(work="training")

    @property
    def upstream(self) -> tuple[Stage, ...]:
        """The stage that makes the labels, which has the maps before it."""
        return (self.labels,)

    def prepare(self, items: Sequence[str]) -> None:
        """Make the labels of all training images."""
        self.labels.label([("train_aug", id) for id in self.images().ids])

    @property
    def dataset(self) -> DataSettings:
        """Data settings of the classifier at the root."""
        return self.cams.dataset

    @property
    def labels(self) -> ConfidentLabels:
        """The stage that makes the labels this one trains on."""
        return ConfidentLabels(
            cams=self.cams, foreground=self.foreground, background=self.background, power=self.power,
            crf=self.crf,
        )  # fmt: skip

    def images(self) -> ImageSet:
        """Return the training images."""
        return self.cams.images("train_aug", limit=self.limit)

    def build(self, *, fresh: bool = False) -> BoundaryNet:
        """Return the network: the frozen backbone with its weights, the branch untrained."""
        model = self.cams.model
        base = getattr(model, "base", model)
        if self.trunk == "classifier" or (self.trunk == "auto" and not base.weights):
            backbone = model.load()[0].backbone
        else:
            backbone = build_backbone(base.backbone, output_stride=base.output_stride, weights=base.weights)
        torch.manual_seed(self.seed)
        return BoundaryNet(backbone)

    @infra.apply(item_uid=str, cache_type="Auto")
    def train(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Train and yield file, digest, history and cost; only the branch's weights are stored."""
        for name in items:
            images = self.images()
            made = self.labels.label([("train_aug", id) for id in images.ids])
            stored = dict(zip(images.ids, made))
            kept = float(np.mean([item["kept"] for item in stored.values()]))
            view = PairedView(crop=self.crop, scale=self.scale, stride=STRIDE)
            read = {id: partial(self.labels.read, item) for id, item in stored.items()}
            views = PairedViews(images, lambda id, read=read: read[id](), view, seed=self.seed)
            net = self.build()
            optimizer = engine.make_optimizer(
                [{"params": list(net.branch.parameters()), "lr": self.lr}],
                momentum=self.momentum, weight_decay=self.weight_decay,
            )  # fmt: skip
            with measured() as cost:
                history = engine.fit(
                    net, views, self._step, optimizer, epochs=self.epochs, batch_size=self.batch_size,
                    seed=self.seed, checkpoint=self.folder / "checkpoint", precision=self.precision,
                    describe="TrainBoundary",
                )  # fmt: skip
            result = store_trained(
                self.folder, net.branch, name, history=history, cost=cost, images=len(views)
            )
            yield result | {"kept": kept}

    def _step(self, net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = net(images).float()
        with torch.autocast(logits.device.type, enabled=False):
            loss = boundary_loss(logits.sigmoid(), labels.long(), radius=self.radius)
        return {
            "loss": loss.total, "background": loss.background, "foreground": loss.foreground,
            "negative": loss.negative,
        }  # fmt: skip

    @cached_property
    def result(self) -> dict[str, Any]:
        """History, cost, share of confident pixels and weights entry; trains if that was not done yet."""
        return self._single(self.train, "model")

    def load(self) -> BoundaryNet:
        """Return the trained network on the CPU in evaluation mode."""
        path = check_weights(self.folder, self.result["weights"])
        net = self.build()
        load_weights_into(net.branch, path)
        return net.eval()


class BoundaryMaps(Stage):
    """Boundary probabilities of whole images at stride 4, image and mirror averaged; stored as half."""

    net: TrainBoundary = TrainBoundary()
    stage: Literal["BoundaryMaps/2"] = "BoundaryMaps/2"
    infra: StageCache = StageCache()

    @infra.apply(item_uid=lambda item: item[1], cache_type="Auto")
    def infer(self, items: Sequence[Request]) -> Iterator[dict]:
        """Yield for each (split, id) the boundary map (ceil(H/4), ceil(W/4)) and cost."""
        net = self.net.load().to(default_device(), memory_format=torch.channels_last)
        for split, name in items:
            with labels_only(), torch.inference_mode(), measured() as cost:
                picture = self.net.dataset.images(split).image(name)
                x = normalise(picture)[None].to(default_device(), memory_format=torch.channels_last)
                found = net.boundary(x)[0].float().cpu()  # (h, w)
            if not found.isfinite().all():
                raise DataError(f"the boundary map of {name} is not finite; train again at a lower rate")
            yield {"boundary": found.numpy().astype(np.float16), "cost": per_image(cost, 1)}
