"""Stages that train: the classifier (Eq. 1, 4), its reactivation (Eq. 5 to 8), and what they classify."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recamlib.data.access import ImageSet, labels_only
from recamlib.data.views import LabelledViews, SaliencyViews, TrainView
from recamlib.engine.device import default_device, measured
from recamlib.engine.extract import image_features
from recamlib.engine.predict import image_logits
from recamlib.errors import SettingsError
from recamlib.method.convergence import convergence, fit_softmax, head_numbers, one_class_features
from recamlib.method.losses import bce_loss, reactivation_loss, sce_loss, sce_single_loss
from recamlib.method.maps import Gap, class_activation_maps, class_features
from recamlib.method.saliency import eps_loss
from recamlib.method.scores import mean_average_precision
from recamlib.models.backbones import build_backbone
from recamlib.models.base import fold_batch_norm, freeze_batch_norm, freeze_stem
from recamlib.models.classifier import CamClassifier, ReactivationHead
from recamlib.models.weights import load_head
from recamlib.stages.base import DataSettings, Split, Stage, Training, WholeStage
from recamlib.stages.features import WINDOW, Features, FeatureViews, split_cells
from recamlib.stages.saliency import Saliency, SaliencyMaps

LOSSES = {"bce": bce_loss, "sce": sce_loss, "sce_single": sce_single_loss}
# FC1 alone on untouched features: what every classifier has to reach (METHOD, "Is it converged?")
LINEAR: dict[str, Any] = {
    "train": "heads", "optimizer": "adam", "lr": 1e-3, "fc_lr_factor": 1.0, "epochs": 40, "batch_size": 64,
}  # fmt: skip
PROBED = 200  # training images, whole, that show after every epoch how far FC2 is
# what the classifier's mean average precision is taken on: its name, split and number of images
SCORED: tuple[tuple[str, Split, int], ...] = (("train_map", "train_aug", 300), ("val_map", "val", 0))
OTHER_DRAWS = 7919  # reactivation draws its crops and their order with this added to the seed of its base
ONE_CLASS = (
    "reactivation needs two classes or more: softmax over one class is 1 whatever its score, so that its "
    "loss has no gradient; add a class for what the images show otherwise, or use CAM alone"
)
Logits = Callable[[Split, ImageSet], Any]  # to the logits (N, K) of some images of a split


class TrainClassifier(Training):
    """Train backbone and FC1 on image-level labels (Eq. 1 and 4; rows 1 to 3 of Table 1).

    With pre-trained ``weights``, BatchNorm keeps its running statistics and the stem stays fixed, as in the
    authors' code. ``probe`` stores the logits of the val images after every epoch (Figure 4). ``saliency``
    adds a channel for the background and ``saliency_weight`` times the loss of EPS (Table 4), in reactivation
    too. ``checkpointing`` saves a transformer's memory.

    ``train="heads"`` trains FC1 alone, on stored features of whole images, resized by ``scale``, at which
    convergence is measured too. ``fc_init="linear"`` starts FC1 from that layer and then trains everything.
    """

    dataset: DataSettings = DataSettings()
    backbone: str = "resnet_small"
    weights: str | None = None
    output_stride: Literal[8, 14, 16, 32] = 16
    loss: Literal["bce", "sce", "sce_single"] = "bce"
    train: Literal["all", "heads"] = "all"
    scale: float = pydantic.Field(1.0, gt=0)
    fc_init: Literal["random", "linear"] = "random"
    epochs: int = pydantic.Field(12, ge=0)
    optimizer: Literal["sgd", "adam"] = "sgd"
    fc_lr_factor: float = pydantic.Field(10.0, gt=0)
    crop: int = pydantic.Field(96, ge=32)
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    probe: bool = False
    saliency: Saliency | None = None
    saliency_weight: float = pydantic.Field(1.0, ge=0)
    checkpointing: bool = False
    seed: int = pydantic.Field(0, ge=0)
    stage: Literal["TrainClassifier/3"] = "TrainClassifier/3"
    step = "train classifier"

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        if self.train == "heads" and (self.saliency is not None or self.probe):
            raise SettingsError(
                "TrainClassifier.train: 'heads' trains FC1 alone, without saliency and probe; use 'all'"
            )

    @property
    def upstream(self) -> tuple[Stage, ...]:
        maps = (self.salient,) if self.saliency else ()
        features = (self.features,) if self.train == "heads" else ()
        return maps + features + ((self.linear,) if self.fc_init == "linear" else ())

    @property
    def salient(self) -> SaliencyMaps:
        return SaliencyMaps(dataset=self.dataset, saliency=self.saliency)

    def views(self, *, draws: int = 0) -> LabelledViews:
        """Return the training crops, drawn with the seed plus `draws`."""
        images, seed = self.images(), self.seed + draws
        # the long side is from 0.625 to 1.25 crops, as the published [320, 640] for a crop of 512
        sides = round(0.625 * self.crop), round(1.25 * self.crop)
        sizes: dict[str, Any] = {"crop": self.crop, "long_side": sides}
        if self.saliency is None:
            return LabelledViews(images, TrainView(**sizes), seed=seed)
        return SaliencyViews(images, self.salient.reader("train_aug"), **sizes, seed=seed)

    @property
    def features(self) -> Features:
        """Features of whole images from the backbone as it was loaded."""
        names = ("dataset", "backbone", "weights", "scale", "output_stride")
        return Features(**{name: getattr(self, name) for name in names})

    @property
    def linear(self) -> "TrainClassifier":
        """FC1 alone on those features: what this classifier has to be as good as."""
        names = ("dataset", "backbone", "weights", "output_stride", "loss", "scale", "seed")
        return TrainClassifier(**{name: getattr(self, name) for name in names}, **LINEAR)

    def build(self, weights: str | None = None) -> CamClassifier:
        """Return the untrained classifier, its fixed parts fixed."""
        backbone = build_backbone(
            self.backbone, output_stride=self.output_stride, weights=weights, checkpointing=self.checkpointing
        )
        if self.weights:
            freeze_batch_norm(backbone)
            freeze_stem(backbone)
        return CamClassifier(backbone, len(self.images().space), background=self.saliency is not None)

    def eps(self, net: CamClassifier, features: Tensor, views: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the weighted loss of EPS on features of views ``(B, 4, H, W)``; nothing without saliency."""
        if self.saliency is None:
            return {}
        return {"eps": self.saliency_weight * eps_loss(net.scores(features), views[:, 3], labels)}

    def make(self) -> dict[str, Any]:
        if self.train == "heads":
            return self._train_fc1()
        torch.manual_seed(self.seed)
        model = self.build(self.weights)
        if self.epochs == 0:  # nothing is trained: the heads of an export are taken too
            load_head(model.fc1, "fc1", self.weights)
            if self.saliency:
                load_head(model.background, "background", self.weights)
        elif self.fc_init == "linear":
            model.fc1.load_state_dict(self.linear.fc1().state_dict())
        val = self.dataset.images("val")
        heads = [p for n, p in model.named_parameters() if not n.startswith("backbone.")]
        groups = [
            {"params": [p for p in model.backbone.parameters() if p.requires_grad], "lr": self.lr},
            {"params": heads, "lr": self.lr * self.fc_lr_factor},
        ]
        return _train(
            self, model, self.views(), self._step, groups, kind=self.optimizer, seed=self.seed,
            precision=self.precision,
            after_epoch=(lambda net, epoch: {"logits": image_logits(net, val)}) if self.probe else None,
            record_of=lambda net: self._record(lambda _, part: image_logits(net, part, scale=self.scale)),
        )  # fmt: skip

    def _step(self, net: nn.Module, views: Tensor, labels: Tensor) -> dict[str, Tensor]:
        loss = LOSSES[self.loss]
        if self.saliency is None:
            return {"loss": loss(net(views).float(), labels)}
        features = net.features(images_of(views)).float()  # (B, C, h, w)
        with torch.autocast(features.device.type, enabled=False):
            named = loss(net.logits(features), labels)
            eps = self.eps(net, features, views, labels)
        return {"loss": named + sum(eps.values()), self.loss: named, **eps}

    def _train_fc1(self) -> dict[str, Any]:
        pooled = self.features.pooled("train_aug")  # (N, C)
        views = FeatureViews(self.images(), list(pooled[:, :, None, None]))
        torch.manual_seed(self.seed)
        model = _fc1(views.labels.shape[1], pooled.shape[1])
        if self.epochs == 0:
            load_head(model.fc1, "fc1", self.weights)

        def step(net: nn.Module, samples: Tensor, labels: Tensor) -> dict[str, Tensor]:
            return {"loss": LOSSES[self.loss](net.fc1(split_cells(samples)[0].mean((2, 3))), labels)}

        return _train(
            self, model, views, step, [{"params": model.parameters(), "lr": self.lr * self.fc_lr_factor}],
            kind=self.optimizer, seed=self.seed, precision=self.precision,
            record_of=lambda net: self._record(self.logits_of(net.fc1)),
        )  # fmt: skip

    def logits_of(self, fc1: nn.Linear) -> Logits:
        fc1.cpu()
        return lambda split, images: fc1(self.features.pooled(split, images.ids))

    def _record(self, logits: Logits) -> dict[str, float]:
        record, linear = self.precision_of(logits), self.linear
        same = self.model_dump(exclude={"infra"}) == linear.model_dump(exclude={"infra"})
        return {**record, "fc1_map": (record if same else linear.result["convergence"])["val_map"]}

    def precision_of(self, logits: Logits) -> dict[str, float]:
        """Return the mean average precision, percent, on training and val images."""
        record = {}
        for key, split, limit in SCORED:
            images = self.dataset.images(split, limit=limit)
            with torch.inference_mode():
                scores = torch.as_tensor(logits(split, images))
            record[key] = 100 * mean_average_precision(scores, torch.from_numpy(images.label_matrix()))
        return record

    def fc1(self) -> nn.Linear:
        """Return FC1 of a classifier whose backbone was left as loaded."""
        return self.load_into(_fc1(*self.result["shape"])).fc1

    def load(self) -> tuple[CamClassifier, None]:
        model = self.build()
        if self.train == "all":
            return self.load_into(model).eval(), None
        model.backbone, model.fc1 = self.features.build(), self.fc1()
        return model.eval(), None


def _fc1(classes: int, channels: int) -> nn.ModuleDict:
    return nn.ModuleDict({"fc1": nn.Linear(channels, classes, bias=False)})


def _heads(fc1: nn.Linear) -> nn.ModuleDict:
    return nn.ModuleDict({"fc1": fc1, "head": ReactivationHead(fc1.in_features, fc1.out_features)})


def images_of(views: Tensor) -> Tensor:
    """Return the images ``(B, 3, H, W)`` of views that may have a saliency map as fourth channel."""
    return views if views.shape[1] == 3 else views[:, :3].contiguous(memory_format=torch.channels_last)


def _train(
    stage: Training, model: nn.Module, views: Any, step: Callable, groups: list[dict], *,
    record_of: Callable[[nn.Module], dict[str, Any]], **loop: Any,
) -> dict[str, Any]:  # fmt: skip
    history, cost = stage.fit(model, views, step, groups, epochs=stage.epochs, **loop)
    probes = history.pop("probes", [])
    with labels_only():
        record = record_of(model)
    result = stage.store(model, history, cost, images=len(views))
    if probes and "logits" in probes[0]:
        result["probe_logits"] = np.array([p["logits"] for p in probes], dtype=np.float32)  # (E + 1, N, K)
    elif probes:
        record["epochs"] = probes
    answer = convergence(record)
    if not answer.converged:
        print(
            f"{type(stage).__name__} has not converged ({answer.text}), so that it carries no verdict: "
            f"try {'a lower' if answer.spoiled else 'a higher'} rate (lr) or more epochs"
        )
    shape = next(v.shape for k, v in model.state_dict().items() if k.endswith("fc1.weight"))
    return {**result, "convergence": record, "shape": list(shape)}


class Reactivate(Training):
    """Reactivate a converged BCE classifier with SCE (Eq. 5 to 8).

    ``sce_weight=0`` is the control of Table 1: as many further epochs at the same rates, with BCE alone.
    ``lr`` is the rate of FC2; backbone and FC1 have ``base_lr_factor`` times that. The maps of Eq. 5 pass
    gradients to both, as in the authors' code, unless ``detach_maps``; ``gap`` is what Eq. 5 divides by
    (:func:`recamlib.method.maps.class_features`). ``train="heads"`` trains FC1 and FC2 on the features of a
    base that was itself trained so. Crops and their order are drawn anew, not as the base drew them.
    """

    base: TrainClassifier = TrainClassifier()
    train: Literal["all", "heads"] = "all"
    sce_weight: float = pydantic.Field(1.0, ge=0)
    epochs: int = pydantic.Field(4, ge=0)
    lr: float = pydantic.Field(5e-4, gt=0)
    base_lr_factor: float = pydantic.Field(0.1, ge=0)
    detach_maps: bool = False
    gap: Gap = "pixels"
    stage: Literal["Reactivate/3"] = "Reactivate/3"
    step = "reactivate"

    def __init__(self, **data: Any) -> None:
        super().__init__(**data)
        if self.train == "heads" and self.base.train != "heads":
            raise SettingsError(
                "Reactivate.train: 'heads' needs the features of a base with train='heads'; this one trained "
                "its backbone: use 'all'"
            )
        if len(self.dataset.classes) == 1:
            raise SettingsError(ONE_CLASS)

    @property
    def dataset(self) -> DataSettings:
        return self.base.dataset

    @property
    def seed(self) -> int:
        return self.base.seed

    def build(self) -> nn.ModuleDict:
        """Return classifier and head, untrained; running statistics are always fixed here."""
        classifier = self.base.build()
        freeze_batch_norm(classifier.backbone)
        head = ReactivationHead(classifier.backbone.channels, classifier.fc1.out_features)
        return nn.ModuleDict({"classifier": classifier, "head": head})

    def make(self) -> dict[str, Any]:
        _ = self.base.result  # trains what has to be there first
        if len(self.images().space) == 1:
            raise SettingsError(ONE_CLASS)
        torch.manual_seed(self.seed + OTHER_DRAWS)
        views: Any
        if self.train == "heads":
            model, step = _heads(self.base.fc1()), self._head_step
            views = FeatureViews(self.images(), [f[0] for f in self.base.features.of("train_aug")])
        else:
            model, step, views = self.build(), self._step, self.base.views(draws=OTHER_DRAWS)
            model.classifier.load_state_dict(self.base.load()[0].state_dict())
        first = [p for n, p in model.named_parameters() if not n.startswith("head.") and p.requires_grad]
        groups = [
            {"params": first, "lr": self.lr * self.base_lr_factor},
            {"params": list(model.head.parameters()), "lr": self.lr},
        ]
        if self.epochs == 0 and self.sce_weight:
            load_head(model.head.fc2, "fc2", self.base.weights)
        start = model.head.fc2.weight.detach().clone()
        return _train(
            self, model, views, step, groups, seed=self.seed + OTHER_DRAWS, precision=self.base.precision,
            after_epoch=(lambda net, _: self._fc2(net, views, start, PROBED)[1]) if self.sce_weight else None,
            record_of=lambda net: self._record(net, views, start),
        )  # fmt: skip

    def _step(self, net: nn.Module, views: Tensor, labels: Tensor) -> dict[str, Tensor]:
        features = net.classifier.features(images_of(views)).float()  # (B, C, h, w)
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

    def _head_step(self, net: nn.Module, views: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses of `_step` on stored features; maps are made of the classes present alone."""
        features, ratio = split_cells(views)  # (B, C, 1, n), (B, 1, 1)
        bce = bce_loss(net.fc1(features.mean((2, 3)) * ratio[..., 0]), labels)
        if self.sce_weight == 0:
            return {"loss": bce, "bce": bce}
        sce = reactivation_loss(
            self._class_features(features, ratio, net.fc1.weight, labels), labels, classifier=net.head
        )
        return {"loss": bce + self.sce_weight * sce, "bce": bce, "sce": sce}

    def _class_features(self, features: Tensor, ratio: Tensor, fc1: Tensor, labels: Tensor) -> Tensor:
        """Return the features (B, K, C) of Eq. 5 of padded cells; rows of absent classes mean nothing."""
        present = labels.topk(int(labels.sum(1).max()), dim=1).indices  # (B, P), those present first
        maps = class_activation_maps(features, fc1[present])  # (B, P, 1, n)
        maps = maps.detach() if self.detach_maps else maps
        pooled = class_features(features, maps, gap=self.gap)  # (B, P, C)
        pooled = pooled * ratio if self.gap == "pixels" else pooled
        rows = pooled.new_zeros(*labels.shape, pooled.shape[2])
        return rows.scatter(1, present[..., None].expand_as(pooled), pooled)

    @torch.no_grad()
    def _fc2(
        self, net: Any, views: Any, start: Tensor, limit: int = 0
    ) -> tuple[tuple[Tensor, Tensor, Tensor], dict[str, float]]:
        """Return what FC2 sees of training images (`one_class_features`), and how far it is trained on it."""
        if self.train == "heads":
            weight = net.fc1.weight.detach().cpu()
            cells, labels = (rows[: limit or None].split(64) for rows in (views.cells, views.labels))
            rows = (self._class_features(*split_cells(c), weight, y) for c, y in zip(cells, labels))
        else:
            weight = net.classifier.fc1.weight.detach().cpu()
            images = self.dataset.images("train_aug", limit=limit)
            labels = torch.from_numpy(images.label_matrix()).split(1)
            features = _whole(net.classifier, images, scale=self.base.scale)
            rows = (class_features(f, class_activation_maps(f, weight), gap=self.gap) for f in features)
        columns = zip(*(one_class_features(row, y) for row, y in zip(rows, labels)))
        pooled: Any = tuple(torch.cat(column) for column in columns)
        fc2 = net.head.fc2.weight.detach().cpu()
        return pooled, {
            **head_numbers(*pooled, fc2=fc2), "length": float(pooled[0].norm(dim=1).mean()),
            "cosine": float(F.cosine_similarity(fc2.flatten(), start.flatten(), dim=0)),
        }  # fmt: skip

    def _record(self, net: Any, views: Any, start: Tensor) -> dict[str, Any]:
        """Return what shows whether the base and FC2 have converged, and how well FC1 classifies after it."""

        def logits(_: Split, images: ImageSet) -> np.ndarray:
            return image_logits(net.classifier, images, scale=self.base.scale)

        after = self.base.precision_of(self.base.logits_of(net.fc1) if self.train == "heads" else logits)
        record = dict(self.base.result["convergence"])
        record |= {f"{name}_after": value for name, value in after.items()}
        if not self.sce_weight:
            return record
        pooled, mine = self._fc2(net, views, start)
        classes = net.head.fc2.out_features
        softmax = fit_softmax(*pooled, classes=classes, weight_decay=self.weight_decay)
        fitted = head_numbers(*pooled, fc2=softmax)
        return {
            **record, "fc2_accuracy": mine.pop("accuracy"), **mine, "softmax_accuracy": fitted["accuracy"],
            "softmax_sce": fitted["sce"], "ln_k": float(np.log(classes)),
        }  # fmt: skip

    def load(self) -> tuple[CamClassifier, Tensor]:
        """Return the reactivated classifier and FC2's weight (K, C)."""
        if self.train == "all":
            model = self.load_into(self.build()).eval()
            return model.classifier, model.head.fc2.weight.detach()
        classifier, heads = self.base.load()[0], self.load_into(_heads(self.base.fc1()))
        classifier.fc1.load_state_dict(heads.fc1.state_dict())
        return classifier, heads.head.fc2.weight.detach()


def _whole(classifier: CamClassifier, images: ImageSet, *, scale: float) -> Iterator[Tensor]:
    """Yield features (1, C, h, w) of whole images from a classifier's backbone."""
    folded = fold_batch_norm(classifier.backbone)
    for start in range(0, len(images.ids), WINDOW):
        names = images.ids[start : start + WINDOW]
        yield from image_features(folded, [images.image(name) for name in names], scale=scale)


class Classify(WholeStage):
    """Logits of a trained classifier on whole images, resized by ``scale``: accuracy of Figure 1a."""

    model: TrainClassifier | Reactivate = pydantic.Field(TrainClassifier(), discriminator="stage")
    split: Split = "val"
    scale: float = pydantic.Field(1.0, gt=0)
    stage: Literal["Classify/2"] = "Classify/2"
    key = "logits"

    def make(self) -> dict[str, Any]:
        images = self.model.dataset.images(self.split)
        model = fold_batch_norm(self.model.load()[0], default_device())
        with measured() as cost, labels_only():
            logits = np.array(image_logits(model, images, scale=self.scale), dtype=np.float32)
        return {"logits": logits, "labels": images.label_matrix(), "cost": cost, "images": len(images.ids)}
