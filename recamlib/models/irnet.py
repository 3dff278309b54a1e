"""The class-boundary network of IRN: a small branch over the stages of a frozen backbone."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recamlib.models.base import Backbone

STRIDE = 4  # pixels of the image per cell of the boundary map
_PROBE = 97  # one more than a multiple of every stride: a network that rounds down shows it
_SMALLEST = 32  # pixels a side; below, some backbones have nothing left to pool


class BoundaryBranch(nn.Module):
    """One narrow projection per stage, brought to stride 4 and merged into one score per cell.

    Source: Section 4.1 refers to IRN (net/resnet50_irn.py). A stage shallower than stride 4, which the
    published ResNet-50 does not have, is averaged to it before the projection.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, width: int = 32, groups: int = 4
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.GroupNorm(groups, width)) for c in channels
        )
        self.merge = nn.Conv2d(width * len(channels), 1, 1)

    def forward(self, stages: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return scores ``(B, ceil(H/4), ceil(W/4))`` of stages ``(B, C, h, w)`` of images of `size` H, W."""
        projected = []
        for x, stride, project in zip(stages, self.strides, self.project):
            if stride < STRIDE:
                x = F.avg_pool2d(x, STRIDE // stride, ceil_mode=True)
                stride = STRIDE
            x = project(x)  # (B, width, h, w)
            # a stage covers whole cells of its own; what lies beyond the image is cut off
            covered = tuple(math.ceil(side / stride) * (stride // STRIDE) for side in size)
            if x.shape[2:] != covered:
                x = F.interpolate(x, covered, mode="bilinear", align_corners=False)
            projected.append(F.relu(_crop(x, size)))  # (B, width, ceil(H/4), ceil(W/4))
        return self.merge(torch.cat(projected, 1))[:, 0].float()


class BoundaryNet(nn.Module):
    """A backbone, frozen in place, and the branch that learns where classes meet: all that has to be stored.

    Source: Section 4.1 refers to IRN. The published network has a second branch, for displacements between
    pixels; the two share nothing that is trained and semantic masks use the boundary alone.

    >>> from recamlib.models.backbones import build_backbone
    >>> net = BoundaryNet(build_backbone("resnet_small"))
    >>> tuple(net(torch.zeros(2, 3, 97, 131)).shape)
    (2, 25, 33)
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False).eval()
        device = next(backbone.parameters()).device
        with torch.no_grad():
            stages = list(backbone.stages(torch.zeros(1, 3, _PROBE, _PROBE, device=device)).values())
        strides = [2 ** round(math.log2(_PROBE / x.shape[2])) for x in stages]
        # a backbone that drops the last rows of an odd image gets images of whole cells
        exact = all(x.shape[2] == math.ceil(_PROBE / s) for x, s in zip(stages, strides))
        self._multiple = 1 if exact else max(strides)
        self.branch = BoundaryBranch([x.shape[1] for x in stages], strides)

    def train(self, mode: bool = True) -> "BoundaryNet":
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``(B, ceil(H/4), ceil(W/4))``, float32, of normalised images ``(B, 3, H, W)``."""
        size = tuple(images.shape[2:])
        height, width = (max(_SMALLEST, math.ceil(n / self._multiple) * self._multiple) for n in size)
        if (height, width) != size:
            images = F.pad(images, (0, width - size[1], 0, height - size[0]))
        with torch.no_grad():  # of the backbone's activations only the outputs of the stages stay in memory
            stages = list(self.backbone.stages(images).values())
        return _crop(self.branch(stages, (height, width)), size)

    @torch.no_grad()
    def boundary(self, images: Tensor) -> Tensor:
        """Return boundary probabilities of images, logits averaged with those of the mirror images."""
        here, mirrored = self(torch.cat([images, images.flip(3)])).chunk(2)
        return ((here + mirrored.flip(2)) / 2).sigmoid()


def _crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the cells at stride 4 that images of `size` H, W have a part in."""
    return x[..., : math.ceil(size[0] / STRIDE), : math.ceil(size[1] / STRIDE)]
