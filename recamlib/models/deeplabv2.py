"""DeepLabV2: a dilated backbone, four atrous convolutions side by side, and every image at three sizes."""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet101_Weights

from recamlib.errors import SettingsError
from recamlib.models.backbones import TimmBackbone
from recamlib.models.base import Backbone

RATES = (6, 12, 18, 24)  # dilations of the four convolutions, as published for crops of 321 pixels
SCALES = (1.0, 0.75, 0.5)  # sizes of the image, in sides of the original
STRIDE = 8  # pixels of the image per cell of the logits

_PUBLISHED_MEAN = (122.675, 116.669, 104.008)  # red, green, blue; of pixel values 0 to 255
_PUBLISHED_PARTS = {  # part of a block: names of its convolution and its normalisation in torchvision
    "reduce": ("conv1", "bn1"), "conv3x3": ("conv2", "bn2"), "increase": ("conv3", "bn3"),
    "shortcut": ("downsample.0", "downsample.1"),
}  # fmt: skip


class AtrousPyramid(nn.ModuleDict):
    """Four 3x3 convolutions of different dilation over the same features, summed to class scores."""

    def __init__(self, channels: int, num_classes: int, rates: Sequence[int] = RATES) -> None:
        convs = [nn.Conv2d(channels, num_classes, 3, padding=rate, dilation=rate) for rate in rates]
        super().__init__({f"c{i}": conv for i, conv in enumerate(convs)})
        for conv in convs:
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``(B, K + 1, h, w)`` of features ``(B, C, h, w)``."""
        return sum(conv(features) for conv in self.values())


class DeepLabV2(nn.Module):
    """The network at one size of the image, and at three; its backbone, of stride 8, is dilated in place.

    Source: deeplab-pytorch (libs/models/deeplabv2.py, msc.py). Its weights were trained on pixel values of 0
    to 255 less their mean, to which ``input_scale`` and ``input_shift`` bring normalised images.
    """

    def __init__(self, backbone: Backbone, num_classes: int, rates: Sequence[int] = RATES) -> None:
        super().__init__()
        self.backbone = dilate(backbone)
        self.aspp = AtrousPyramid(backbone.channels, num_classes, rates)
        self.register_buffer("input_scale", torch.ones(3, 1, 1))
        self.register_buffer("input_shift", torch.zeros(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, K + 1, h, w)`` at stride 8 of normalised images ``(B, 3, H, W)``."""
        return self.aspp(self.backbone(images * self.input_scale + self.input_shift))

    def at_scales(self, images: Tensor) -> list[Tensor]:
        """Return the logits of the images at every one of `SCALES`, each at its own size, rounded down."""
        sizes = [[max(1, int(side * scale)) for side in images.shape[2:]] for scale in SCALES[1:]]
        smaller = [F.interpolate(images, s, mode="bilinear", align_corners=False) for s in sizes]
        return [self(images), *map(self, smaller)]


def scale_maximum(logits: Sequence[Tensor]) -> Tensor:
    """Return the pixelwise maximum of logits ``(B, K + 1, h_i, w_i)`` at the size of the first, bilinearly.

    >>> a, b = torch.tensor([[[[1.0, 5.0]]]]), torch.tensor([[[[3.0]]]])
    >>> scale_maximum([a, b])
    tensor([[[[3., 5.]]]])
    """
    size = logits[0].shape[2:]
    resized = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in logits[1:]]
    return torch.stack([logits[0], *resized]).amax(0)


def dilate(backbone: Backbone) -> Backbone:
    """Give the last two stages, which must have lost their strides, dilations 2 and 4, in place.

    Source: deeplab-pytorch libs/models/resnet.py. Unlike in torchvision's dilated ResNet, the first block of
    a stage is dilated, too; a block halves its features in the first 1x1 convolution, not in the 3x3; the
    first pooling rounds up. timm dilates its networks on its own and they are left as they come.
    """
    timm = isinstance(backbone, TimmBackbone)
    if backbone.output_stride != STRIDE or not (timm or backbone.unstrided == backbone.stage_names[-2:]):
        came = f"DeepLabV2 cannot use {backbone.name} at output stride {backbone.output_stride}"
        raise SettingsError(f"{came}: take a ResNet, DenseNet or MobileNet at stride {STRIDE}")
    if timm:
        return backbone
    for stage, rate in zip(list(backbone.body.values())[-2:], (2, 4)):
        for conv in stage.modules():
            if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
                conv.dilation = conv.padding = (rate, rate)
    for module in backbone.modules():
        if isinstance(module, Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
        elif isinstance(module, nn.MaxPool2d):
            module.ceil_mode = True
    return backbone


def convert_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return deeplab-pytorch's tensors under the names of `DeepLabV2` over a ResNet with bottlenecks.

    ``layerN.blockM.reduce.conv``, say, becomes ``backbone.body.layer(N-1).(M-1).conv1``. The last layer of
    DeepLabV1 (``fc``, 91 classes) is left out. The published network takes blue first: the first
    convolution's channels are turned round.
    """
    out = {}
    for key, value in state.items():
        key = key.removeprefix("module.").removeprefix("base.")
        part = re.fullmatch(r"layer(\d+)\.block(\d+)\.(\w+)\.(conv|bn)\.(\w+)", key)
        if part and part[3] in _PUBLISHED_PARTS:
            name = _PUBLISHED_PARTS[part[3]][part[4] == "bn"]
            key = f"backbone.body.layer{int(part[1]) - 1}.{int(part[2]) - 1}.{name}.{part[5]}"
        elif key == "layer1.conv1.conv.weight":
            key, value = "backbone.body.stem.conv1.weight", value.flip(1)
        elif key.startswith("layer1.conv1.bn."):
            key = key.replace("layer1.conv1.bn.", "backbone.body.stem.bn1.")
        if not key.startswith("fc."):
            out[key] = value
    usual = ResNet101_Weights.IMAGENET1K_V1.transforms()  # what images are normalised with everywhere here
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in (usual.mean, usual.std))
    out["input_scale"] = 255 * std
    out["input_shift"] = 255 * mean - torch.tensor(_PUBLISHED_MEAN).view(3, 1, 1)
    return out
