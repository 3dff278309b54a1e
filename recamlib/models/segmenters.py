"""Segmentation networks by name, behind one interface: train, group parameters, predict."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recamlib.errors import DataError, SettingsError, check_choice, check_shapes, nearest
from recamlib.models.backbones import SmallResNet, build_backbone
from recamlib.models.base import freeze_batch_norm
from recamlib.models.deeplabv2 import STRIDE, DeepLabV2, convert_published, scale_maximum
from recamlib.models.weights import REGISTRY, from_registry, load_features, state_of, timm_name, whole_names

_SWIN = {"dynamic_img_size": True, "always_partition": True, "drop_path_rate": 0.3}  # as in UPerNet-Swin-B
# name: family, default backbone, options of the decoder; the small ones are for 100 pixels
_ARCHS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "deeplabv2": ("deeplabv2", "resnet101", {}),
    "deeplabv2_small": ("deeplabv2", "resnet_small", {"rates": (1, 2, 4, 6)}),
    "deeplabv3plus": ("DeepLabV3Plus", "resnet101", {}),
    "deeplabv3plus_small": (
        "DeepLabV3Plus", "resnet_small", {"decoder_channels": 64, "decoder_atrous_rates": (1, 2, 3)},
    ),
    "upernet_swin": ("UPerNet", "timm/swin_base_patch4_window7_224", {"decoder_channels": 512}),
    "upernet_small": ("UPerNet", "resnet_small", {"decoder_channels": 48}),
}  # fmt: skip
ARCHS = tuple(_ARCHS)
_CELL = 4  # pixels of the image per cell of the logits of the networks that are not DeepLabV2


class Segmenter(nn.Module):
    """What every segmentation network here can do; ``forward`` returns logits ``(B, K + 1, h, w)``.

    ``param_groups(lr)`` returns every trained parameter once, in groups for an optimizer; `head_loaded` is
    whether the last layer came from the weights too, `loss_at` is ``at`` of the loss.
    """

    loss_at = "masks"
    _head: tuple[str, ...] = ()

    def __init__(self, arch: str, net: nn.Module) -> None:
        super().__init__()
        self.arch, self.net, self.head_loaded = arch, net, False

    def training_outputs(self, images: Tensor) -> list[Tensor]:
        """Return all logits of normalised images ``(B, 3, H, W)`` that the loss is taken of."""
        return [self(images)]

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return logits ``(B, K + 1, H, W)``, float32, of normalised images, in evaluation mode."""
        mode = self.training
        self.eval()
        try:
            return self._enlarge(self(images).float(), tuple(images.shape[2:]))
        finally:
            self.train(mode)

    def _enlarge(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)

    def _load(self, state: dict[str, Tensor], source: Path) -> None:
        """Load a whole network; a last layer that is absent or made for other classes stays as it is."""
        own = self.net.state_dict()
        head = {k: v for k, v in own.items() if k.startswith(self._head)}
        self.head_loaded = all(k in state and state[k].shape == v.shape for k, v in head.items())
        load_features(self.net, state if self.head_loaded else {**state, **head}, source=source)


class MultiScaleSegmenter(Segmenter):
    """DeepLabV2: logits are the pixelwise maximum over three sizes of the image, at stride 8.

    Source: deeplab-pytorch (main.py, libs/models/msc.py). Trained on the logits of the three sizes and on
    their maximum. The optimizer there holds no BatchNorm parameter: with pre-trained weights BatchNorm is
    fixed in full, statistics, scale and shift; without, it trains as usual.
    """

    loss_at = "logits"
    _head = ("aspp.",)

    def forward(self, images: Tensor) -> Tensor:
        return scale_maximum(self.net.at_scales(_checked(images)))

    def training_outputs(self, images: Tensor) -> list[Tensor]:
        logits = self.net.at_scales(_checked(images))
        return [*logits, scale_maximum(logits)]

    def param_groups(self, lr: float) -> list[dict]:
        """Return the backbone at `lr`, the last layer's weights at ten, its biases at twenty times that."""
        convs = self.net.aspp.values()
        return [
            {"params": _trained(self.net.backbone), "lr": lr},
            {"params": [c.weight for c in convs], "lr": 10 * lr},
            {"params": [c.bias for c in convs], "lr": 20 * lr, "weight_decay": 0.0},
        ]


class PaddedSegmenter(Segmenter):
    """A network of segmentation_models_pytorch whose logits come out at stride 4, of images of any size."""

    _head = ("segmentation_head.",)

    def forward(self, images: Tensor) -> Tensor:
        height, width = _checked(images).shape[2:]
        if self.training and len(images) == 1:
            raise DataError(f"{self.arch} cannot train on one image at a time: use a batch of 2 or more")
        multiple = self.net.encoder.output_stride
        logits = self.net(F.pad(images, (0, -width % multiple, 0, -height % multiple)))
        return logits[..., : math.ceil(height / _CELL), : math.ceil(width / _CELL)]

    def param_groups(self, lr: float) -> list[dict]:
        if self.arch.startswith("deeplabv3plus"):
            new = [*_trained(self.net.decoder), *_trained(self.net.segmentation_head)]
            return [{"params": _trained(self.net.encoder), "lr": lr}, {"params": new, "lr": 10 * lr}]
        groups: tuple[list, list] = ([], [])
        for name, p in self.net.named_parameters():
            plain = p.ndim < 2 or name.endswith("relative_position_bias_table")
            groups[plain].extend([p] if p.requires_grad else [])
        return [{"params": groups[0], "lr": lr}, {"params": groups[1], "lr": lr, "weight_decay": 0.0}]

    def _enlarge(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        # the last cells reach beyond an image that is not made of whole ones
        whole = (logits.shape[2] * _CELL, logits.shape[3] * _CELL)
        return super()._enlarge(logits, whole)[..., : size[0], : size[1]]


def build_segmenter(
    arch: str, *, num_classes: int, backbone: str | None = None, weights: str | Path | None = None,
    fixed_norm: bool = False,
) -> Segmenter:  # fmt: skip
    """Return a segmentation network by name, one of `ARCHS`; those ending in ``_small`` are for 100 pixels.

    `num_classes` counts the background. `backbone` is None for the published one (ResNet-101, Swin-B); for
    DeepLabV2 a name of `build_backbone`; for the others an encoder of segmentation_models_pytorch, or
    ``"timm/NAME"``.

    `weights` are those of `build_backbone`; a file holds a backbone, or a whole network as saved here, for
    DeepLabV2 also any of deeplab-pytorch, see `convert_published`. Only the last layer may be absent or have
    other classes: it then starts at random. With `fixed_norm`, BatchNorm in the backbone keeps the statistics
    that came with the weights, as it always does in a pre-trained DeepLabV2.

    Source: Section 3 and "Network Architectures" in Section 5. Rates: DeepLabV2 as in `MultiScaleSegmenter`;
    DeepLabV3+ new layers at ten times the rate of the encoder; UPerNet one rate, no decay on one-dimensional
    parameters and relative positions. Against the published UPerNet-Swin the auxiliary head on the third
    stage and the dropout before the last layer are missing, and windows are filled up after the shift: sides
    that are multiples of 224 pixels do not differ.

    >>> net = build_segmenter("deeplabv2_small", num_classes=6)
    >>> [tuple(x.shape[2:]) for x in net.training_outputs(torch.zeros(2, 3, 96, 96))]
    [(12, 12), (9, 9), (6, 6), (12, 12)]
    >>> tuple(net.predict(torch.zeros(1, 3, 33, 47)).shape)
    (1, 6, 33, 47)
    """
    check_choice("network", arch, ARCHS)
    if num_classes < 2:
        raise SettingsError(f"num_classes is {num_classes}, expected at least a background and one class")
    if fixed_norm and weights is None:
        raise SettingsError("fixed_norm keeps the statistics of loaded weights: give weights or leave it out")
    family, published, decoder = _ARCHS[arch]
    name = backbone or published
    state, path = state_of(weights, name)
    state = {k.removeprefix("net."): v for k, v in state.items()}
    if family == "deeplabv2":
        if any(".reduce.conv." in key for key in state):  # deeplab-pytorch's names
            state = convert_published(state)
        whole = any(k.startswith("backbone.body.") for k in state)
        body = build_backbone(name, output_stride=STRIDE, weights=None if whole else weights)
        segmenter = MultiScaleSegmenter(arch, DeepLabV2(body, num_classes))
        if whole and path:
            segmenter._load(state, path)
        if weights is not None:
            for module in freeze_batch_norm(segmenter.net).modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.requires_grad_(False)
        return segmenter
    net = _smp_network(family, name, classes=num_classes, weights=weights, **decoder)
    segmenter = PaddedSegmenter(arch, net)
    if path and any(k.startswith("decoder.") for k in state):
        segmenter._load(state, path)
    elif path:
        timm = name.startswith("timm/")
        names = whole_names(name.removeprefix("timm/")) if timm else ()
        load_features(net.encoder.model if timm else net.encoder, state, source=path, whole=names)
    if fixed_norm:
        freeze_batch_norm(net.encoder)
    return segmenter


class SmallEncoder(SmallResNet):
    """``resnet_small`` as segmentation_models_pytorch wants an encoder to be."""

    def __init__(self, depth: int = 5, output_stride: int = 32) -> None:
        super().__init__()
        self.out_channels, self.output_stride = [3, *self.widths], output_stride

    def set_in_channels(self, in_channels: int, pretrained: bool = True) -> None:
        """Images have three channels."""

    def make_dilated(self, output_stride: int) -> None:
        for stride, stage in ((16, self.layer3), (32, self.layer4)):
            rate = max(1, stride // output_stride)
            for conv in stage.modules():
                if rate > 1 and isinstance(conv, nn.Conv2d):
                    conv.stride = (1, 1)
                    if conv.kernel_size == (3, 3):
                        conv.dilation = conv.padding = (rate, rate)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = [images, self.relu(self.bn1(self.conv1(images)))]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            features.append(stage(features[-1]))
        return features


def _smp_network(family: str, name: str, *, classes: int, weights: Any, **options: object) -> nn.Module:
    """Return a network of segmentation_models_pytorch whose logits come out at stride 4."""
    import segmentation_models_pytorch as smp  # seconds to import, and only needed here

    own = {"encoder": SmallEncoder, "pretrained_settings": {}, "params": {}}
    smp.encoders.encoders.setdefault("resnet_small", own)
    encoder = name
    if name.startswith("timm/"):
        encoder = f"tu-{timm_name(name)}"
        options = (_SWIN if encoder.startswith("tu-swin_") else {}) | options
    elif name not in (known := smp.encoders.get_encoder_names()):
        hint = nearest(name, known)
        raise SettingsError(f"unknown backbone {name!r}{hint}: use a name of smp, or timm/NAME")

    def make(_: str, *, pretrained: Any) -> nn.Module:
        given = {"encoder_weights": pretrained, "classes": classes, "upsampling": 1, **options}
        return getattr(smp, family)(encoder, **given)

    chosen: str | bool = encoder.startswith("tu-") or "imagenet"  # smp wants True for timm's
    return from_registry(make, name, pretrained=chosen if weights == REGISTRY else None)


def _checked(images: Tensor) -> Tensor:
    check_shapes(images=(images, "images, 3, height, width"))
    return images


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]
