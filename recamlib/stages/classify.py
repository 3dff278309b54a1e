"""Stages that train: the classifier (Eq. 1, 4), its reactivation (Eq. 5 to 8), and what they classify."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from recamlib.data.access import labels_only
from recamlib.data.views import LabelledViews, SaliencyViews, TrainView
from recamlib.engine.device import default_device, measured
from recamlib.engine.predict import image_logits
from recamlib.method.losses import bce_loss, reactivation_loss, sce_loss, sce_single_loss
from recamlib.method.maps import Gap, class_activation_maps, class_features
from recamlib.method.saliency import eps_loss
from recamlib.models.backbones import build_backbone
from recamlib.models.base import freeze_batch_norm, freeze_stem
from recamlib.models.classifier import CamClassifier, ReactivationHead
from recamlib.stages.base import DataSettings, Split, Stage, check_weights, load_weights_into
from recamlib.stages.infra import StageCache
from recamlib.stages.saliency import Saliency, SaliencyMaps
from recamlib.stages.training import run_training, trained

LOSSES = {"bce": bce_loss, "sce": sce_loss, "sce_single": sce_single_loss}


class TrainClassifier(Stage):
    """Train backbone and FC1 on image-level labels (Eq. 1 and 4; rows 1 to 3 of Table 1).

    Defaults train the small embedded network from scratch; profiles hold the paper's settings.
    With pre-trained ``weights``, BatchNorm keeps its running statistics (scale and shift are trained) and the
    stem stays fixed, as in the authors' code. ``probe`` keeps the logits of the val images after every epoch,
    for Figure 4. With ``saliency`` there is one more channel, for the background, and ``saliency_weight``
    times the loss of EPS is added (Table 4); what is reactivated from such a classifier keeps that loss.
    ``checkpointing`` saves memory, not time, and is for transformers.
    """

    dataset: DataSettings = DataSettings()
    backbone: str = "resnet_small"
    weights: str | None = None
    output_stride: Literal[8, 14, 16, 32] = 16
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
    saliency: Saliency | None = None
    saliency_weight: float = pydantic.Field(1.0, ge=0)
    checkpointing: bool = False
    seed: int = pydantic.Field(0, ge=0)
    stage: Literal["TrainClassifier/2"] = "TrainClassifier/2"
    infra: StageCache = StageCache(work="training")

    @property
    def upstream(self) -> tuple[Stage, ...]:
        """The saliency maps, where there are any."""
        return (SaliencyMaps(dataset=self.dataset, saliency=self.saliency),) if self.saliency else ()

    def prepare(self, items: Sequence[str]) -> None:
        """Make the saliency maps, where there are any."""
        if self.saliency is not None:
            self.views()

    def views(self) -> LabelledViews:
        """Return the training crops of this run, from images and image-level labels alone.

        The long side is drawn from 0.625 to 1.25 crops, as the published [320, 640] for a crop of 512.
        """
        images = self.dataset.images("train_aug")
        sizes = {"crop": self.crop, "long_side": (round(0.625 * self.crop), round(1.25 * self.crop))}
        if self.saliency is None:
            return LabelledViews(images, TrainView(**sizes), seed=self.seed)
        maps = SaliencyMaps(dataset=self.dataset, saliency=self.saliency)
        return SaliencyViews(images, maps.reader("train_aug"), **sizes, seed=self.seed)

    def build(self, weights: str | None = None) -> CamClassifier:
        """Return the untrained classifier, its fixed parts fixed."""
        classes = len(self.dataset.images("train_aug").space)
        backbone = build_backbone(
            self.backbone, output_stride=self.output_stride, weights=weights,
            checkpointing=self.checkpointing,
        )  # fmt: skip
        if self.weights:
            freeze_batch_norm(backbone)
            freeze_stem(backbone)
        return CamClassifier(backbone, classes, background=self.saliency is not None)

    def eps(self, net: CamClassifier, features: Tensor, views: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the weighted loss of EPS on features of views ``(B, 4, H, W)``; nothing without saliency."""
        if self.saliency is None:
            return {}
        return {"eps": self.saliency_weight * eps_loss(net.scores(features), views[:, 3], labels)}

    @infra.apply(item_uid=str, cache_type="Auto")
    def train(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Train and yield file, digest, history and cost; the weights are a safetensors file beside it."""
        for name in items:
            torch.manual_seed(self.seed)
            model = self.build(self.weights)
            loss = LOSSES[self.loss]

            def step(net: nn.Module, views: Tensor, labels: Tensor, loss=loss) -> dict[str, Tensor]:
                if self.saliency is None:
                    return {"loss": loss(net(views).float(), labels)}
                features = net.features(images_of(views)).float()  # (B, C, h, w)
                with torch.autocast(features.device.type, enabled=False):
                    named = loss(net.logits(features), labels)
                    eps = self.eps(net, features, views, labels)
                return {"loss": named + sum(eps.values()), self.loss: named, **eps}

            heads = [p for n, p in model.named_parameters() if not n.startswith("backbone.")]
            groups = [
                {"params": trained(model.backbone), "lr": self.lr},
                {"params": heads, "lr": self.lr * self.fc_lr_factor},
            ]
            yield run_training(self, name, model, step, groups, base=self)

    @cached_property
    def result(self) -> dict[str, Any]:
        """History, cost and weights entry; trains if that was not done yet."""
        return self._single(self.train, "model")

    def load(self) -> tuple[CamClassifier, None]:
        """Return the trained classifier on the CPU in evaluation mode."""
        path = check_weights(self.folder, self.result["weights"])
        return load_weights_into(self.build(), path).eval(), None


def images_of(views: Tensor) -> Tensor:
    """Return the images ``(B, 3, H, W)`` of views that may have a saliency map as fourth channel."""
    return views if views.shape[1] == 3 else views[:, :3].contiguous(memory_format=torch.channels_last)


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
    A base that was trained with saliency keeps the loss of EPS beside the two: ReCAM-E of Table 4.
    The maps of Eq. 5 pass gradients to FC1 and the backbone, as in the authors' code, unless ``detach_maps``.
    ``gap`` is what Eq. 5 divides by (:func:`recamlib.method.maps.class_features`).
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
    gap: Gap = "pixels"
    stage: Literal["Reactivate/2"] = "Reactivate/2"
    infra: StageCache = StageCache(work="training")

    @property
    def dataset(self) -> DataSettings:
        """Data settings of the base classifier."""
        return self.base.dataset

    @property
    def seed(self) -> int:
        """Seed of the base classifier, and of this training."""
        return self.base.seed

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
            torch.manual_seed(self.seed)
            model = self.build()
            load_weights_into(model.classifier, path)
            groups = [
                {"params": trained(model.classifier), "lr": self.lr * self.base_lr_factor},
                {"params": list(model.head.parameters()), "lr": self.lr},
            ]
            yield run_training(self, name, model, self._step, groups, base=self.base)

    def _step(self, net: _Joint, views: Tensor, labels: Tensor) -> dict[str, Tensor]:
        features = net(images_of(views)).float()  # (B, C, h, w)
        with torch.autocast(features.device.type, enabled=False):  # maps and losses stay in float32
            bce = bce_loss(net.classifier.logits(features), labels)
            eps = self.base.eps(net.classifier, features, views, labels)
            if self.sce_weight == 0:
                return {"loss": bce + sum(eps.values()), "bce": bce, **eps}
            maps = class_activation_maps(features, net.classifier.fc1.weight)  # (B, K, h, w)
            maps = maps.detach() if self.detach_maps else maps
            pooled = class_features(features, maps, gap=self.gap)  # (B, K, C)
            sce = reactivation_loss(pooled, labels, classifier=net.head)
        return {"loss": bce + self.sce_weight * sce + sum(eps.values()), "bce": bce, "sce": sce, **eps}

    @cached_property
    def result(self) -> dict[str, Any]:
        """History, cost and weights entry; trains if that was not done yet."""
        return self._single(self.train, "model")

    def load(self) -> tuple[CamClassifier, Tensor]:
        """Return the reactivated classifier and FC2's weight (K, C), on the CPU in evaluation mode."""
        path = check_weights(self.folder, self.result["weights"])
        model = load_weights_into(self.build(), path).eval()
        return model.classifier, model.head.fc2.weight.detach()


class Classify(Stage):
    """Logits of a trained classifier on whole images: accuracy of Figure 1a, mean average precision.

    ``scale`` resizes the images: a network trained on small crops does not know objects at their full size.
    """

    model: TrainClassifier | Reactivate = pydantic.Field(TrainClassifier(), discriminator="stage")
    split: Split = "val"
    scale: float = pydantic.Field(1.0, gt=0)
    stage: Literal["Classify/2"] = "Classify/2"
    infra: StageCache = StageCache(work="whole")

    @infra.apply(item_uid=str, cache_type="Auto")
    def logits(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield logits and labels, both (N, K), and cost."""
        for _ in items:
            images = self.model.dataset.images(self.split)
            model, _fc2 = self.model.load()
            model.to(default_device(), memory_format=torch.channels_last)
            with measured() as cost, labels_only():
                logits = np.array(image_logits(model, images, scale=self.scale), dtype=np.float32)
            yield {"logits": logits, "labels": images.label_matrix(), "cost": cost, "images": len(images.ids)}

    @cached_property
    def result(self) -> dict[str, Any]:
        """Logits, labels and cost."""
        return self._single(self.logits, "logits")
