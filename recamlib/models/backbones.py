"""Feature extractors by name, at the output stride that class activation maps need."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import torchvision
from torch import Tensor, nn

from recamlib.errors import SettingsError, WeightsError, nearest
from recamlib.models.cuts import CUTS, SmallResNet, unstride
from recamlib.models.weights import REGISTRY, find_weights, load_features, read_weights

NAMES = tuple(CUTS)
"""Convolutional backbones that need no prefix."""

SCRATCH = ("vit_small_scratch", "swin_small_scratch")
"""Transformers that need none, made for training from scratch on pictures of about 100 pixels on a CPU."""

STRIDES = (8, 14, 16, 32)
"""Output strides a backbone can be built for; 14 is the patch of some transformers."""


class Backbone(nn.Module):
    """A feature extractor cut into stages.

    Attributes
    ----------
    name
        The name it was built by.
    channels
        Channels of the features, ``C``.
    output_stride
        Pixels of the image per pixel of the features.
    stage_names
        Names of the stages, shallow to deep.
    """

    def __init__(self, name: str, body: dict[str, nn.Module], *, channels: int, output_stride: int) -> None:
        super().__init__()
        self.name, self.channels, self.output_stride = name, channels, output_stride
        self.stage_names = tuple(body)
        self.body = nn.ModuleDict(body)

    def stem(self) -> list[nn.Module]:
        """Return the first convolution and, if it is next, the normalisation after it."""
        owners = [m for m in self.modules() if next(m.parameters(recurse=False), None) is not None]
        return owners[: 1 + isinstance(owners[1], nn.modules.batchnorm._BatchNorm)]

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the output of every stage by name, for normalised images ``(B, 3, H, W)``."""
        out = {}
        for name, stage in self.body.items():
            x = out[name] = stage(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, C, h, w)`` of normalised images ``(B, 3, H, W)``."""
        for stage in self.body.values():
            x = stage(x)
        return x


class TimmBackbone(Backbone):
    """The same interface over one of timm's feature extractors, whose stages come out together."""

    def __init__(
        self, name: str, net: nn.Module, stage_names: tuple[str, ...], *, channels: int, output_stride: int
    ) -> None:
        super().__init__(name, {"net": net}, channels=channels, output_stride=output_stride)
        self.stage_names = stage_names

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the output of every stage by name, for normalised images ``(B, 3, H, W)``."""
        return dict(zip(self.stage_names, self.body["net"](x), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, C, h, w)`` of normalised images ``(B, 3, H, W)``."""
        return self.body["net"](x)[-1]


def build_backbone(
    name: str, *, output_stride: int = 16, weights: str | Path | None = None, checkpointing: bool = False
) -> Backbone:
    """Return a feature extractor by name.

    Parameters
    ----------
    name
        One of `NAMES` or `SCRATCH`, or ``"timm/NAME"`` for any convolutional network of timm and for its
        ViT (DINOv2's too), DeiT and Swin. ``resnet_small`` is made for training from scratch, too.
    output_stride
        8, 16 or 32: the last stages are built with stride 1 until it is reached. A transformer has its own:
        the side of a patch (14 for DINOv2), and 32 for Swin.
    weights
        None for random ones, ``"imagenet"`` for the registry of torchvision or timm (needs a network), the
        path of a .safetensors or .pth file, or the bare name of a file in the weights folder.
    checkpointing
        Compute activations again in the backward pass instead of keeping them: less memory, more time, the
        same gradients. For transformers.

    Raises
    ------
    SettingsError
        If the name or the stride is unknown (the nearest name is given), or checkpointing is not to be had.
    WeightsError
        If the weights cannot be found or read, or do not fit; the keys are named.

    Notes
    -----
    Stride 1 comes without dilation, as in the authors' ResNet-50 (net/resnet50.py); timm's own stride
    reduction dilates. From the registry come torchvision's first ImageNet weights, as the authors use.
    """
    if output_stride not in STRIDES:
        raise SettingsError(f"output_stride is {output_stride}, expected one of {STRIDES}")
    if name.startswith("timm/") or name in SCRATCH:
        from recamlib.models import transformers  # timm takes seconds to import

        if transformers.is_transformer(name):
            return transformers.build_transformer(
                name, output_stride=output_stride, weights=weights, checkpointing=checkpointing
            )
    if checkpointing:
        raise SettingsError(f"checkpointing is for transformers, and {name} is none: leave it off")
    if name.startswith("timm/"):
        return _build_timm(name, output_stride=output_stride, weights=weights)
    if name not in NAMES:
        plain = (*NAMES, *SCRATCH)
        hint = nearest(name, plain)
        raise SettingsError(f"unknown backbone {name!r}{hint}: use {', '.join(plain)} or timm/NAME")
    body = CUTS[name](_torchvision_net(name, weights))
    stride = 16 if name == "squeezenet1_1" else 32
    for stage in reversed(body.values()):
        if stride <= output_stride:
            break
        stride //= unstride(stage)
    if stride != output_stride:
        raise SettingsError(f"{name} cannot be built at output_stride {output_stride}: use {stride}")
    channels = [m for m in body[next(reversed(body))].modules() if isinstance(m, nn.Conv2d)][-1].out_channels
    if name.startswith("densenet"):
        channels = body["block4"].norm5.num_features
    elif name == "squeezenet1_1":
        channels *= 2  # a fire module puts two equal branches side by side
    return Backbone(name, body, channels=channels, output_stride=stride)


def freeze_batch_norm(module: nn.Module) -> nn.Module:
    """Make every BatchNorm inside use its running statistics for good; scale and shift are still trained.

    Works in place, survives ``.train()`` and changes no key of the state, as in the authors' ResNet-50.
    """
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, _FixedStatistics):
            child.__class__ = _fixed(type(child))
            child.eval()
    return module


def freeze_stem(backbone: Backbone) -> Backbone:
    """Stop training the first convolution and the normalisation after it (the authors' conv1 and bn1).

    In a transformer that is the projection of patches; it has no BatchNorm, and its LayerNorms are trained.
    """
    for module in backbone.stem():
        module.requires_grad_(False)
    return backbone


class _FixedStatistics:
    """Mix-in that keeps a BatchNorm in evaluation mode."""

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)


@cache
def _fixed(kind: type) -> type:
    return type(f"Fixed{kind.__name__}", (_FixedStatistics, kind), {})


def _torchvision_net(name: str, weights: str | Path | None) -> nn.Module:
    if name == "resnet_small":
        if weights == REGISTRY:
            raise WeightsError("resnet_small has no ImageNet weights: train it from scratch, without weights")
        net = SmallResNet()
    else:
        tag = "IMAGENET1K_V1" if weights == REGISTRY else None
        net = _from_registry(torchvision.models.get_model, name, weights=tag)
        setattr(net, "fc" if hasattr(net, "fc") else "classifier", nn.Identity())
    if weights not in (None, REGISTRY):
        path = find_weights(weights)
        load_features(net, read_weights(path), source=path)
    return net


def _build_timm(name: str, *, output_stride: int, weights: str | Path | None) -> Backbone:
    import timm  # seconds to import, and only needed for these names

    bare = name.removeprefix("timm/")
    if not timm.is_model(bare):
        known = timm.list_models()
        raise SettingsError(f"timm has no network {bare!r}{nearest(bare, known)}: see timm.list_models()")
    options = {"features_only": True, "pretrained": weights == REGISTRY}
    if output_stride != 32:
        options["output_stride"] = output_stride
    try:
        net = _from_registry(timm.create_model, bare, **options)
    except (TypeError, NotImplementedError, AssertionError) as error:
        raise SettingsError(f"{name} cannot be built at output_stride {output_stride}: {error}") from error
    reached = net.feature_info.reduction()[-1]
    if reached != output_stride:
        raise SettingsError(f"{name} comes out at stride {reached}, not {output_stride}: try that one")
    if weights not in (None, REGISTRY):
        path = find_weights(weights)
        load_features(net, read_weights(path), source=path, spare=True)
    channels = net.feature_info.channels()
    names = tuple(f"stage{i}" for i in range(1, len(channels) + 1))
    return TimmBackbone(name, net, names, channels=channels[-1], output_stride=output_stride)


def _from_registry(make: Callable[..., nn.Module], name: str, **options: object) -> nn.Module:
    """Build a network; when its weights cannot be downloaded, say how to do without."""
    try:
        return make(name, **options)
    except (OSError, RuntimeError) as error:
        if not (options.get("weights") or options.get("pretrained")):
            raise
        raise WeightsError(
            f"cannot get the {REGISTRY} weights of {name} from the registry ({str(error).splitlines()[0]}): "
            "check the network, or give the path of a weights file"
        ) from error
