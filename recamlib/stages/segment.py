"""Stages of segmentation: pseudo masks, a network that learns from them, and its upper bound."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from recamlib.data.access import labels_only
from recamlib.data.images import labels_from_png, labels_to_png
from recamlib.data.views import PairedView, PairedViews
from recamlib.engine.device import measured, per_image
from recamlib.errors import DataError, WeightsError
from recamlib.method.losses import multiscale_loss
from recamlib.method.scores import masked_argmax
from recamlib.models.segmenters import Segmenter, build_segmenter
from recamlib.stages.base import DataSettings, ImageStage, Request, Split, Training
from recamlib.stages.maps import AdvCams, ExtractCams
from recamlib.stages.refine import SaliencyMerge, Walk


def to_mask(maps: np.ndarray, classes: Sequence[int], threshold: float) -> np.ndarray:
    """Return the mask (H, W) of maps (P, H, W): the highest class above the threshold, else 0."""
    return np.array([0, *(k + 1 for k in classes)], dtype=np.uint8)[masked_argmax(maps, threshold)]


class PseudoMasks(ImageStage):
    """0-1 masks of maps: the class with the highest map where it is above the threshold, else background.

    Unless given, the threshold is the fixed one: one swept on true masks would let those reach the training.
    """

    maps: ExtractCams | AdvCams | Walk | SaliencyMerge = pydantic.Field(ExtractCams(), discriminator="stage")
    threshold: float | None = pydantic.Field(None, ge=0, lt=1)
    stage: Literal["PseudoMasks/2"] = "PseudoMasks/2"

    def make(self, requests: Sequence[Request]) -> Iterator[dict[str, Any]]:
        threshold = self.maps.fixed_threshold if self.threshold is None else self.threshold
        space = self.maps.dataset.images("train_aug").space
        values = [*range(space.with_background), space.ignore]
        for item in self.maps.items(requests):
            with labels_only(), measured() as cost:
                mask = to_mask(self.maps.merge(item).numpy(), item["classes"], threshold)
                png = labels_to_png(mask)
            pixels = np.bincount(mask.ravel(), minlength=256)[values]
            yield {"png": png, "pixels": pixels, "cost": per_image(cost, 1)}

    def one(self, split: Split, name: str) -> np.ndarray:
        """Return the pseudo mask (H, W), uint8, of one image."""
        return labels_from_png(np.asarray(next(iter(self.items([(split, name)])))["png"]))

    def training_set(self, *, limit: int = 0) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Return the training images' masks by id, PNG bytes, and the shares of pixels (:meth:`balance`).

        A DataError if not one pixel belongs to a class: there is nothing to learn.
        """
        images = self.maps.images("train_aug", limit=limit)
        stored = list(self.items([("train_aug", name) for name in images.ids]))
        pixels = np.stack([np.asarray(item["pixels"], dtype=np.int64) for item in stored]).sum(0)
        if not pixels[1:-1].sum():
            raise DataError(
                f"the {len(stored)} pseudo masks hold background alone, so there is nothing to learn; "
                "lower the threshold, or look at the maps they are made from"
            )
        shares = dict(zip((*images.space.names, "ignored"), (pixels / pixels.sum()).tolist()))
        return {name: np.asarray(item["png"]) for name, item in zip(images.ids, stored)}, shares

    def balance(self, *, limit: int = 0) -> dict[str, float]:
        """Return the share of the training images' pixels that are background, of each class and ignored."""
        return self.training_set(limit=limit)[1]


class SegmenterStage(Training):
    """What training on pseudo masks and the upper bound share: network, optimizer, views, loop."""

    arch: str = "deeplabv2_small"
    backbone: str | None = None
    weights: str | None = None
    fixed_norm: bool = False
    limit: int = pydantic.Field(0, ge=0)
    steps: int = pydantic.Field(400, ge=0)
    batch_size: int = pydantic.Field(10, ge=1)
    accumulate: int = pydantic.Field(1, ge=1)
    crop: int = pydantic.Field(96, ge=32)
    scale: tuple[float, float] = (0.5, 1.5)
    short_side: int = pydantic.Field(0, ge=0)
    jitter: bool = False
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = pydantic.Field(2.5e-4, gt=0)
    momentum: float = pydantic.Field(0.9, ge=0, lt=1)
    weight_decay: float = pydantic.Field(5e-4, ge=0)
    power: float = pydantic.Field(0.9, ge=0)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    checkpoint_every: int = pydantic.Field(200, ge=0)
    seed: int = pydantic.Field(0, ge=0)

    def build(self, **start: Any) -> Segmenter:
        classes = self.images().space.with_background
        torch.manual_seed(self.seed)
        return build_segmenter(self.arch, num_classes=classes, backbone=self.backbone, **start)

    def learn(self, masks: dict[str, np.ndarray]) -> dict[str, Any]:
        """Train on masks, PNG bytes by id, and return file, digest, history and cost."""
        view = PairedView(
            crop=self.crop, scale=self.scale, short_side=self.short_side, stride=1, jitter=self.jitter
        )
        views = PairedViews(self.images(), lambda id: labels_from_png(masks[id]), view, seed=self.seed)
        net = self.build(weights=self.weights, fixed_norm=self.fixed_norm)
        if self.steps == 0 and not net.head_loaded:  # nothing is trained: an export is taken as it is
            raise WeightsError(f"steps=0 needs a whole network with these classes, {self.weights} holds none")
        history, cost = self.fit(
            net, views, _step, net.param_groups(self.lr), kind=self.optimizer, steps=self.steps,
            power=self.power, accumulate=self.accumulate, seed=self.seed, precision=self.precision,
            checkpoint_every=self.checkpoint_every, describe=f"{type(self).__name__} {self.arch}",
        )  # fmt: skip
        return self.store(net, history, cost, images=len(views))

    def load(self) -> Segmenter:
        return self.load_into(self.build()).eval()


def _step(net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    outputs = net.training_outputs(images)
    with torch.autocast(images.device.type, enabled=False):
        return {"loss": multiscale_loss(outputs, labels, at=net.loss_at)}


class TrainSegmenter(SegmenterStage):
    """Train a segmentation network on pseudo masks, which come from image-level labels alone (Eq. 3)."""

    masks: PseudoMasks = PseudoMasks()
    stage: Literal["TrainSegmenter/2"] = "TrainSegmenter/2"

    @property
    def dataset(self) -> DataSettings:
        return self.masks.maps.dataset

    def make(self) -> dict[str, Any]:
        masks, balance = self.masks.training_set(limit=self.limit)
        shares = ", ".join(f"{key} {share:.1%}" for key, share in balance.items())
        print(f"{len(masks)} pseudo masks to learn from: {shares}")
        return self.learn(masks) | {"balance": balance}


class TrainUpperBound(SegmenterStage):
    """Train a segmentation network on *true* masks: fully supervised, what weak methods are measured against.

    It alone breaks the rule that masks are for metrics only, and all that it gives is labelled so.
    """

    dataset: DataSettings = DataSettings()
    stage: Literal["TrainUpperBound/2"] = "TrainUpperBound/2"

    def make(self) -> dict[str, Any]:
        truth = self.dataset.masks("train_aug")
        # read before the loop starts, which shuts access to masks
        masks = {id: labels_to_png(truth.mask(id)) for id in self.images().ids}
        return self.learn(masks) | {"supervision": "true masks"}
