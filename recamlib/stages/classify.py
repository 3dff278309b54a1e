"""Stages that train: the classifier (Eq. 1, 4), its reactivation (Eq. 5 to 8), and what they classify."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from recamlib import engine
from recamlib.cams import class_activation_maps, class_features
from recamlib.data.base import ImageSet, labels_only
from recamlib.data.views import LabelledViews, TrainView, normalise
from recamlib.losses import bce_loss, reactivation_loss, sce_loss, sce_single_loss
from recamlib.models.backbones import build_backbone, freeze_batch_norm, freeze_stem
from recamlib.models.classifier import CamClassifier, ReactivationHead
from recamlib.provenance import default_device, measured
from recamlib.stages.base import (
    DataSettings,
    Split,
    Stage,
    check_weights,
    load_weights_into,
    store_trained,
)  # fmt: skip
from recamlib.stages.infra import StageCache

LOSSES = {"bce": bce_loss, "sce": sce_loss, "sce_single": sce_single_loss}


class TrainClassifier(Stage):
    """Train backbone and FC1 on image-level labels (Eq. 1 and 4; rows 1 to 3 of Table 1).

    Defaults train the small embedded network from scratch; profiles hold the paper's settings.
    With pre-trained ``weights``, BatchNorm keeps its running statistics (scale and shift are trained) and the
    stem stays fixed, as in the authors' code. ``probe`` keeps the logits of the val images after every epoch,
    for Figure 4.
    """

    dataset: DataSettings = DataSettings()
    backbone: str = "resnet_small"
    weights: str | None = None
    output_stride: Literal[8, 16] = 16
    loss: Literal["bce", "sce", "sce_single"] = "bce"
    epochs: int = pydantic.Field(12, ge=1)
    batch_size: int = pydantic.Field(16, ge=1)
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = pydantic.Field(0.1, gt=0)
    fc_lr_factor: float = pydantic.Field(10.0, gt=0)
    momentum: float = pydantic.Field(1e-4, ge=0, lt=1)
    weight_decay: float = pydantic.Field(1e-4, ge=0)
    crop: int = pydantic.Field(96, ge=32)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    probe: bool = False
    seed: int = pydantic.Field(0, ge=0)
    stage: Literal["TrainClassifier"] = "TrainClassifier"
    infra: StageCache = StageCache(version="1")

    def views(self) -> LabelledViews:
        """Return the training crops of this run, from images and image-level labels alone.

        The long side is drawn from 0.625 to 1.25 crops, as the published [320, 640] for a crop of 512.
        """
        view = TrainView(crop=self.crop, long_side=(round(0.625 * self.crop), round(1.25 * self.crop)))
        return LabelledViews(self.dataset.images("train_aug"), view, seed=self.seed)

    def build(self, weights: str | None = None) -> CamClassifier:
        """Return the untrained classifier, its fixed parts fixed."""
        classes = len(self.dataset.images("train_aug").space)
        backbone = build_backbone(self.backbone, output_stride=self.output_stride, weights=weights)
        if self.weights:
            freeze_batch_norm(backbone)
            freeze_stem(backbone)
        return CamClassifier(backbone, classes)

    @infra.apply(item_uid=str, cache_type="Auto")
    def train(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Train and yield file, digest, history and cost; the weights are a safetensors file beside it."""
        for name in items:
            torch.manual_seed(self.seed)
            model = self.build(self.weights)
            loss = LOSSES[self.loss]

            def step(net: nn.Module, images: Tensor, labels: Tensor, loss=loss) -> dict[str, Tensor]:
                return {"loss": loss(net(images).float(), labels)}

            groups = [
                {"params": _trained(model.backbone), "lr": self.lr},
                {"params": list(model.fc1.parameters()), "lr": self.lr * self.fc_lr_factor},
            ]
            yield run_training(self, name, model, model, step, groups)

    @cached_property
    def result(self) -> dict[str, Any]:
        """History, cost and weights entry; trains if that was not done yet."""
        return self._single(self.train, "model")

    def load(self) -> tuple[CamClassifier, None]:
        """Return the trained classifier on the CPU in evaluation mode."""
        path = check_weights(self.folder, self.result["weights"])
        return load_weights_into(self.build(), path).eval(), None


class _Joint(nn.Module):
    """Classifier and reactivation head as one module, for training and for the weights file."""

    def __init__(self, classifier: CamClassifier, head: ReactivationHead) -> None:
        super().__init__()
        self.classifier, self.head = classifier, head

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier.features(images)


class Reactivate(Stage):
    """Reactivate a converged BCE classifier with SCE (Eq. 5 to 8).

    ``sce_weight=0`` is the control of Table 1: as many further epochs at the same rates, with BCE alone.
    The maps of Eq. 5 pass gradients to FC1 and the backbone, as in the authors' code, unless ``detach_maps``.
    """

    base: TrainClassifier = TrainClassifier()
    sce_weight: float = pydantic.Field(1.0, ge=0)
    epochs: int = pydantic.Field(4, ge=1)
    batch_size: int = pydantic.Field(16, ge=1)
    lr: float = pydantic.Field(5e-4, gt=0)
    base_lr_factor: float = pydantic.Field(0.1, ge=0)
    momentum: float = pydantic.Field(1e-4, ge=0, lt=1)
    weight_decay: float = pydantic.Field(1e-4, ge=0)
    detach_maps: bool = False
    stage: Literal["Reactivate"] = "Reactivate"
    infra: StageCache = StageCache(version="1")

    @property
    def dataset(self) -> DataSettings:
        """Data settings of the base classifier."""
        return self.base.dataset

    def build(self) -> _Joint:
        """Return classifier and head, untrained; running statistics are always fixed here."""
        classifier = self.base.build()
        freeze_batch_norm(classifier.backbone)
        return _Joint(classifier, ReactivationHead(classifier.backbone.channels, classifier.fc1.out_features))

    @infra.apply(item_uid=str, cache_type="Auto")
    def train(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Train from the base's weights and yield file, digest, history and cost."""
        for name in items:
            path = check_weights(self.base.folder, self.base.result["weights"])
            torch.manual_seed(self.base.seed)
            model = self.build()
            load_weights_into(model.classifier, path)
            groups = [
                {"params": _trained(model.classifier), "lr": self.lr * self.base_lr_factor},
                {"params": list(model.head.parameters()), "lr": self.lr},
            ]
            yield run_training(self, name, model, model.classifier, self._step, groups)

    def _step(self, net: _Joint, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        features = net(images).float()  # (B, C, h, w)
        with torch.autocast(features.device.type, enabled=False):  # maps and losses stay in float32
            bce = bce_loss(net.classifier.logits(features), labels)
            if self.sce_weight == 0:
                return {"loss": bce, "bce": bce}
            maps = class_activation_maps(features, net.classifier.fc1.weight)  # (B, K, h, w)
            pooled = class_features(features, maps.detach() if self.detach_maps else maps)  # (B, K, C)
            sce = reactivation_loss(pooled, labels, classifier=net.head)
        return {"loss": bce + self.sce_weight * sce, "bce": bce, "sce": sce}

    @cached_property
    def result(self) -> dict[str, Any]:
        """History, cost and weights entry; trains if that was not done yet."""
        return self._single(self.train, "model")

    def load(self) -> tuple[CamClassifier, Tensor]:
        """Return the reactivated classifier and FC2's weight (K, C), on the CPU in evaluation mode."""
        path = check_weights(self.folder, self.result["weights"])
        model = load_weights_into(self.build(), path).eval()
        return model.classifier, model.head.fc2.weight.detach()


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def run_training(
    stage: TrainClassifier | Reactivate, name: str, model: nn.Module, classifier: CamClassifier, step, groups
) -> dict[str, Any]:
    """Run one training stage: optimizer, loop, stored weights, cost; then the checkpoint goes."""
    base = stage if isinstance(stage, TrainClassifier) else stage.base
    views = base.views()
    optimizer = engine.make_optimizer(
        groups, kind=base.optimizer if stage is base else "sgd",
        momentum=stage.momentum, weight_decay=stage.weight_decay,
    )  # fmt: skip
    probe = None
    if base.probe and stage is base:
        val = base.dataset.images("val")
        probe = lambda net, epoch: {"logits": predict(net, val)}  # noqa: E731
    with measured() as cost:
        history = engine.fit(
            model, views, step, optimizer, epochs=stage.epochs, batch_size=stage.batch_size, seed=base.seed,
            checkpoint=stage.folder / "checkpoint", precision=base.precision, after_epoch=probe,
            describe=f"{type(stage).__name__} {base.loss if stage is base else stage.sce_weight}",
        )  # fmt: skip
    probes = [p["logits"] for p in history.pop("probes", [])]
    result = store_trained(stage.folder, model, name, history=history, cost=cost, images=len(views))
    if probes:
        result["probe_logits"] = np.array(probes, dtype=np.float32)  # (E + 1, N, K)
    return result


@torch.inference_mode()
def predict(model: CamClassifier, images: ImageSet) -> list[list[float]]:
    """Return logits (N, K) of whole images at their own size, one at a time, model on its own device."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows = []
    for name in images.ids:
        x = normalise(images.image(name))[None].to(device, memory_format=torch.channels_last)  # (1, 3, H, W)
        rows.append(model(x).float().squeeze(0).tolist())
    model.train(was_training)
    return rows


class Classify(Stage):
    """Logits of a trained classifier on whole images: accuracy of Figure 1a, mean average precision."""

    model: TrainClassifier | Reactivate = pydantic.Field(TrainClassifier(), discriminator="stage")
    split: Split = "val"
    stage: Literal["Classify"] = "Classify"
    infra: StageCache = StageCache(version="1")

    @infra.apply(item_uid=str, cache_type="Auto")
    def logits(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield logits and labels, both (N, K), and cost."""
        for _ in items:
            images = self.model.dataset.images(self.split)
            model, _fc2 = self.model.load()
            model.to(default_device(), memory_format=torch.channels_last)
            with measured() as cost, labels_only():
                logits = np.array(predict(model, images), dtype=np.float32)
            yield {"logits": logits, "labels": images.label_matrix(), "cost": cost, "images": len(images.ids)}

    @cached_property
    def result(self) -> dict[str, Any]:
        """Logits, labels and cost."""
        return self._single(self.logits, "logits")
