"""Feature extractors by name, at the output stride that class activation maps need."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from recamlib.errors import SettingsError, nearest
from recamlib.models import transformers
from recamlib.models.base import Backbone
from recamlib.models.weights import REGISTRY, from_registry, load_features, state_of, timm_name, whole_names


class SmallResNet(nn.Module):
    """Basic blocks behind a 3x3 stem; 24 to 160 channels."""

    def __init__(self, widths: tuple[int, ...] = (24, 24, 48, 96, 160)) -> None:
        super().__init__()
        self.widths = widths
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True), nn.Identity()
        for i, (before, after) in enumerate(pairwise(widths), start=1):
            shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after))
            block = BasicBlock(before, after, stride=2, downsample=shortcut)
            setattr(self, f"layer{i}", nn.Sequential(block))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class Network(NamedTuple):
    """How a network falls into stages: all that the library has to know of it."""

    #: Shallow to deep: a layer by its name in the network, or several that run one after the other.
    #: ``"+relu"`` is a ReLU that is no layer of the network.
    stages: Mapping[str, Sequence[str]]
    stride: int  # pixels of the image per pixel of the features as published
    channels: int  # of the features
    head: str  # the layer that classifies, left out
    make: Callable[[], nn.Module] | None = None  # None for torchvision, by the row's name


def _features(*ends: int) -> dict[str, tuple[str, ...]]:
    """Return stages of a network whose layers are numbered in ``features``, each up to one of `ends`."""
    names = ("stem", *(f"stage{i}" for i in range(2, len(ends) + 1)))
    return {n: tuple(f"features.{i}" for i in range(a, b)) for n, a, b in zip(names, (0, *ends), ends)}


_RESNET = {"stem": ("conv1", "bn1", "relu", "maxpool"), **{f"layer{i}": f"layer{i}" for i in (1, 2, 3, 4)}}
_DENSENET = {
    "stem": tuple(f"features.{layer}" for layer in ("conv0", "norm0", "relu0", "pool0")),
    "block1": ("features.denseblock1",),
    **{f"block{i}": (f"features.transition{i - 1}", f"features.denseblock{i}") for i in (2, 3)},
    "block4": ("features.transition3", "features.denseblock4", "features.norm5", "+relu"),
}
#: Convolutional backbones that need no prefix. A new one of torchvision is one row more.
NETWORKS = {
    "resnet_small": Network(_RESNET, 32, 160, "", SmallResNet),
    "resnet18": Network(_RESNET, 32, 512, "fc"),
    "resnet34": Network(_RESNET, 32, 512, "fc"),
    "resnet50": Network(_RESNET, 32, 2048, "fc"),
    "resnet101": Network(_RESNET, 32, 2048, "fc"),
    "mobilenet_v2": Network(_features(2, 4, 7, 14, 19), 32, 1280, "classifier"),
    "densenet121": Network(_DENSENET, 32, 1024, "classifier"),
    "densenet169": Network(_DENSENET, 32, 1664, "classifier"),
    "squeezenet1_1": Network(_features(2, 5, 8, 13), 16, 512, "classifier"),
}


class TimmBackbone(Backbone):
    """The same interface over one of timm's feature extractors, whose stages come out together."""

    def __init__(
        self, name: str, net: nn.Module, stage_names: tuple[str, ...], *, channels: int, output_stride: int
    ) -> None:
        super().__init__(name, {"net": net}, channels=channels, output_stride=output_stride)
        self.stage_names = stage_names

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.stage_names, self.body["net"](x), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return self.body["net"](x)[-1]


def build_backbone(
    name: str, *, output_stride: int = 16, weights: str | Path | None = None, checkpointing: bool = False
) -> Backbone:
    """Return a feature extractor by name.

    `name` is one of `NETWORKS` or of `recamlib.models.transformers.SCRATCH`, or ``"timm/NAME"`` for any
    convolutional network of timm and for its ViT (DINOv2's too), DeiT and Swin.

    The last stages are built with stride 1 until `output_stride`, 8, 16 or 32, is reached, without dilation,
    as in the authors' ResNet-50 (net/resnet50.py); timm's own stride reduction dilates. A transformer has its
    own stride: the side of a patch (14 for DINOv2), and 32 for Swin.

    `weights` are None for random ones, ``"imagenet"`` for the registry of torchvision (its first ones, as the
    authors use) or timm, ``"scenes"`` for those of ``resnet_small`` in the package
    (:mod:`recamlib.engine.pretrain`), the path of a .safetensors or .pth file (those of ``recam export``
    too), or the bare name of a file in the weights folder. `checkpointing`, of a transformer, saves memory.
    """
    state, path = state_of(weights, name)
    if path and any(key.startswith("backbone.body.") for key in state):  # what `recam export` writes
        backbone = build_backbone(name, output_stride=output_stride, checkpointing=checkpointing)
        load_features(backbone, state, source=path)
        return backbone
    wanted: dict[str, Any] = {"output_stride": output_stride, "pretrained": weights == REGISTRY}
    if transformers.is_transformer(name):
        return transformers.build_transformer(name, state, path, checkpointing=checkpointing, **wanted)
    if checkpointing:
        raise SettingsError(f"checkpointing is for transformers, and {name} is none: leave it off")
    if name.startswith("timm/"):
        return _build_timm(name, state, path, **wanted)
    if name not in NETWORKS:
        plain = (*NETWORKS, *transformers.SCRATCH)
        hint = nearest(name, plain)
        raise SettingsError(f"unknown backbone {name!r}{hint}: use {', '.join(plain)} or timm/NAME")
    row = NETWORKS[name]
    tag = "IMAGENET1K_V1" if weights == REGISTRY else None
    net = row.make() if row.make else from_registry(torchvision.models.get_model, name, weights=tag)
    whole = tuple(net.state_dict())
    if row.head:
        setattr(net, row.head, nn.Identity())
    if path:
        load_features(net, state, source=path, whole=whole)
    body = {stage: _joined(net, layers) for stage, layers in row.stages.items()}
    stride = row.stride
    unstrided: tuple[str, ...] = ()
    for stage in reversed(body):
        if stride > output_stride and (had := _unstride(body[stage])) > 1:
            stride, unstrided = stride // had, (stage, *unstrided)
    if stride != output_stride:
        raise SettingsError(f"{name} cannot be built at output_stride {output_stride}: use {stride}")
    return Backbone(name, body, channels=row.channels, output_stride=stride, unstrided=unstrided)


def _joined(net: nn.Module, layers: Sequence[str]) -> nn.Module:
    """Return a stage: a layer of the network, or several under their own names."""
    if isinstance(layers, str):
        return net.get_submodule(layers)
    parts = ((x.rpartition(".")[2].strip("+"), x) for x in layers)
    return nn.Sequential(
        OrderedDict((k, nn.ReLU(inplace=True) if x == "+relu" else net.get_submodule(x)) for k, x in parts)
    )


def _unstride(stage: nn.Module) -> int:
    """Give every layer of a stage stride 1, in place, and return the stride the stage had."""
    had = 1
    for parent in list(stage.modules()):
        for key, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                child.stride = (1, 1)
            elif isinstance(child, nn.MaxPool2d | nn.AvgPool2d) and child.stride == child.kernel_size == 2:
                setattr(parent, key, nn.Identity())  # at stride 1 it would be half a pixel off
            elif isinstance(child, nn.MaxPool2d) and child.stride == 2:
                child.stride, child.padding = 1, child.kernel_size // 2
            else:
                continue
            had = 2
    return had


def _build_timm(
    name: str, state: dict[str, Tensor], path: Path | None, *, output_stride: int, pretrained: bool
) -> Backbone:
    import timm  # seconds to import, and only needed for these names

    bare = timm_name(name)
    reduced = {"output_stride": output_stride} if output_stride != 32 else {}
    net = from_registry(timm.create_model, bare, features_only=True, pretrained=pretrained, **reduced)
    reached = net.feature_info.reduction()[-1]
    if reached != output_stride:
        raise SettingsError(f"{name} comes out at stride {reached}, not {output_stride}: try that one")
    if path:
        load_features(net, state, source=path, whole=whole_names(bare))
    channels = net.feature_info.channels()
    names = tuple(f"stage{i}" for i in range(1, len(channels) + 1))
    return TimmBackbone(name, net, names, channels=channels[-1], output_stride=output_stride)
