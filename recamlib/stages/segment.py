"""Stages of segmentation: a network trained on pseudo masks, and its predictions scored on true ones."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from recamlib.data.access import ImageSet
from recamlib.data.images import labels_from_png
from recamlib.data.views import PairedView, PairedViews
from recamlib.engine import fit as engine
from recamlib.engine.device import measured
from recamlib.method.losses import multiscale_loss
from recamlib.models.segmenters import Segmenter, build_segmenter
from recamlib.stages.base import DataSettings, Stage, check_weights, load_weights_into, store_trained
from recamlib.stages.infra import StageCache
from recamlib.stages.masks import PseudoMasks


class SegmenterStage(Stage):
    """What training on pseudo masks and the upper bound share: network, optimizer, views, loop.

    Subclasses have a ``dataset`` and a ``train`` that calls :meth:`fit`.
    """

    arch: str = "deeplabv2_small"
    backbone: str | None = None
    weights: str | None = None
    fixed_norm: bool = False
    limit: int = pydantic.Field(0, ge=0)
    steps: int = pydantic.Field(400, ge=1)
    batch_size: int = pydantic.Field(10, ge=1)
    accumulate: int = pydantic.Field(1, ge=1)
    crop: int = pydantic.Field(96, ge=32)
    scale: tuple[float, float] = (0.5, 1.5)
    jitter: bool = False
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = pydantic.Field(2.5e-4, gt=0)
    momentum: float = pydantic.Field(0.9, ge=0, lt=1)
    weight_decay: float = pydantic.Field(5e-4, ge=0)
    power: float = pydantic.Field(0.9, ge=0)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    checkpoint_every: int = pydantic.Field(200, ge=0)
    seed: int = pydantic.Field(0, ge=0)

    def images(self) -> ImageSet:
        """Return the training images."""
        images = self.dataset.images("train_aug")
        return images.select(limit=self.limit) if self.limit else images

    def build(self, weights: str | None = None, *, fixed_norm: bool = False) -> Segmenter:
        """Return the untrained network."""
        classes = self.dataset.images("train_aug").space.with_background
        torch.manual_seed(self.seed)
        return build_segmenter(
            self.arch, num_classes=classes, backbone=self.backbone, weights=weights, fixed_norm=fixed_norm
        )

    def fit(self, name: str, read: Callable[[str], np.ndarray]) -> dict[str, Any]:
        """Train on the masks that `read` gives by id and return file, digest, history and cost."""
        view = PairedView(crop=self.crop, scale=self.scale, stride=1, jitter=self.jitter)
        views = PairedViews(self.images(), read, view, seed=self.seed)
        net = self.build(self.weights, fixed_norm=self.fixed_norm)
        optimizer = engine.make_optimizer(
            net.param_groups(self.lr), kind=self.optimizer, momentum=self.momentum,
            weight_decay=self.weight_decay,
        )  # fmt: skip
        with measured() as cost:
            history = engine.fit(
                net, views, _step, optimizer, steps=self.steps, batch_size=self.batch_size, power=self.power,
                accumulate=self.accumulate, seed=self.seed, precision=self.precision,
                checkpoint=self.folder / "checkpoint", checkpoint_every=self.checkpoint_every,
                describe=f"{type(self).__name__} {self.arch}",
            )  # fmt: skip
        return store_trained(self.folder, net, name, history=history, cost=cost, images=len(views))

    @cached_property
    def result(self) -> dict[str, Any]:
        """History, cost and weights entry; trains if that was not done yet."""
        return self._single(self.train, "model")

    def load(self) -> Segmenter:
        """Return the trained network on the CPU in evaluation mode."""
        path = check_weights(self.folder, self.result["weights"])
        return load_weights_into(self.build(), path).eval()


def _step(net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    outputs = net.training_outputs(images)
    with torch.autocast(images.device.type, enabled=False):
        return {"loss": multiscale_loss(outputs, labels, at=net.loss_at)}


class TrainSegmenter(SegmenterStage):
    """Train a segmentation network on pseudo masks, which come from image-level labels alone (Eq. 3).

    Defaults train a small network from scratch; profiles hold the paper's settings. A set of masks that holds
    background alone is refused.
    """

    masks: PseudoMasks = PseudoMasks()
    stage: Literal["TrainSegmenter/2"] = "TrainSegmenter/2"
    infra: StageCache = StageCache(work="training")

    def prepare(self, items: Sequence[str]) -> None:
        """Make the masks of all training images."""
        self.masks.make([("train_aug", id) for id in self.images().ids])

    @property
    def dataset(self) -> DataSettings:
        """Data settings of the classifier at the root."""
        return self.masks.maps.dataset

    @infra.apply(item_uid=str, cache_type="Auto")
    def train(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Train and yield file, digest, history, class balance of the pseudo masks and cost."""
        for name in items:
            made = self.masks.training_set(limit=self.limit)
            balance = self.masks.balance(limit=self.limit)
            shares = ", ".join(f"{key} {share:.1%}" for key, share in balance.items())
            print(f"{len(made)} pseudo masks to learn from: {shares}")
            yield self.fit(name, lambda id, made=made: labels_from_png(made[id])) | {"balance": balance}
