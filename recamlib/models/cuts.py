"""How each network falls into stages, and how a stage loses its stride."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

from torch import nn
from torchvision.models.resnet import BasicBlock


def unstride(stage: nn.Module) -> int:
    """Give every layer of a stage stride 1, in place, and return the stride the stage had."""
    had = 1
    for parent in list(stage.modules()):
        for key, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2):
                child.stride = (1, 1)
            elif isinstance(child, nn.MaxPool2d) and child.stride == 2:
                child.stride, child.padding = 1, child.kernel_size // 2
            elif isinstance(child, nn.AvgPool2d):
                setattr(parent, key, nn.Identity())  # DenseNet's 2x2 average does nothing at stride 1
            else:
                continue
            had = 2
    return had


def _cut_resnet(net: nn.Module) -> dict[str, nn.Module]:
    stem = nn.Sequential(OrderedDict(conv1=net.conv1, bn1=net.bn1, relu=net.relu, maxpool=net.maxpool))
    return {"stem": stem, **{f"layer{i}": getattr(net, f"layer{i}") for i in (1, 2, 3, 4)}}


def _cut_densenet(net: nn.Module) -> dict[str, nn.Module]:
    f = net.features
    stem = nn.Sequential(OrderedDict((k, getattr(f, k)) for k in ("conv0", "norm0", "relu0", "pool0")))
    body = {"stem": stem, "block1": nn.Sequential(OrderedDict(denseblock1=f.denseblock1))}
    for i in (2, 3, 4):
        parts = [f"transition{i - 1}", f"denseblock{i}"] + ["norm5"] * (i == 4)
        body[f"block{i}"] = nn.Sequential(OrderedDict((k, getattr(f, k)) for k in parts))
    body["block4"].add_module("relu5", nn.ReLU(inplace=True))  # a function in torchvision's forward
    return body


def _cut_sequence(*ends: int) -> Callable[[nn.Module], dict[str, nn.Module]]:
    def cut(net: nn.Module) -> dict[str, nn.Module]:
        names = ("stem", "stage2", "stage3", "stage4", "stage5")[: len(ends)]
        return {n: net.features[a:b] for n, a, b in zip(names, (0, *ends), ends, strict=False)}

    return cut


class SmallResNet(nn.Module):
    """Basic blocks behind a 3x3 stem; 24 to 160 channels."""

    def __init__(self, widths: tuple[int, ...] = (24, 24, 48, 96, 160)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, stride=2, padding=1, bias=False)
        self.bn1, self.relu, self.maxpool = nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True), nn.Identity()
        for i, (before, after) in enumerate(pairwise(widths), start=1):
            shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after))
            block = BasicBlock(before, after, stride=2, downsample=shortcut)
            setattr(self, f"layer{i}", nn.Sequential(block))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


CUTS = {
    "resnet_small": _cut_resnet,
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101"), _cut_resnet),
    "mobilenet_v2": _cut_sequence(2, 4, 7, 14, 19),
    **dict.fromkeys(("densenet121", "densenet169"), _cut_densenet),
    "squeezenet1_1": _cut_sequence(2, 5, 8, 13),
}
"""Name of a network -> function that cuts it into stages, shallow to deep."""
