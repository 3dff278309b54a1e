"""How much work stages are, before any of it is done: operations of networks, pixels, bytes.

Operations are those of the networks' layers, counted on pictures without content; everything is in
proportion to something that settings and numbers of images say.
"""

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from recamlib.book.upstream import Job, root_of
from recamlib.data.nominal import SIZES
from recamlib.models.backbones import build_backbone
from recamlib.models.segmenters import build_segmenter
from recamlib.stages import (
    BoundaryMaps,
    Classify,
    SegmentationScore,
    Stage,
    TrainBoundary,
    TrainSegmenter,
    TrainUpperBound,
)
from recamlib.stages.base import DataSettings

BACKWARD = 3  # operations of a forward and a backward pass, in forward passes
MIRRORED = 2
CHANNELS = {"gradcam": BACKWARD, "gradcam++": BACKWARD, "layercam": BACKWARD}  # passes of a method, per class
Size = tuple[int, int]


def picture(data: DataSettings) -> Size:
    """Return height and width of a usual picture of a data set."""
    return SIZES.get(data.name, (data.size, data.size))


@cache
def _classes(data: DataSettings) -> float:
    return float(data.images("train").label_matrix().sum(1).mean())


def work_of(job: Job) -> float:
    """Return a job's work: operations of networks where there is one, else pixels times maps.

    Notes
    -----
    Both are in their own units: a rate belongs to one kind of stage, and the unit cancels out.
    """
    stage, images = job.stage, job.images
    size = picture(job.data)
    if isinstance(stage, TrainSegmenter | TrainUpperBound):
        crop = (stage.crop, stage.crop)
        return stage.steps * stage.batch_size * BACKWARD * segmenter_flops(stage.arch, stage.backbone, crop)
    if isinstance(stage, SegmentationScore):
        views = [scaled(size, s) for s in stage.scales]
        passes = sum(segmenter_flops(stage.of.arch, stage.of.backbone, view) for view in views)
        return images * (1 + stage.mirror) * passes
    if not job.backbone:
        return images * size[0] * size[1] * _classes(job.data)
    root = root_of(stage)
    if hasattr(stage, "epochs"):
        crop = getattr(stage, "crop", root.crop)
        once = backbone_flops(root.backbone, root.output_stride, (crop, crop))
        batch = min(images, stage.batch_size)
        passes = 1 if isinstance(stage, TrainBoundary) else BACKWARD  # a frozen network has no way back
        return stage.epochs * (images // batch) * batch * passes * once
    if isinstance(stage, BoundaryMaps | Classify):
        view = scaled(size, getattr(stage, "scale", 1.0))
        mirrored = MIRRORED if isinstance(stage, BoundaryMaps) else 1
        return images * mirrored * backbone_flops(root.backbone, root.output_stride, view)
    passes = 0.0
    for scale in stage.scales:
        once = backbone_flops(root.backbone, root.output_stride, scaled(size, scale))
        passes += MIRRORED * once * _passes(stage, scale, _classes(job.data))
    return images * passes


def stored_units(job: Job) -> float:
    """Return what the bytes that a job stores are in proportion to: weights, counts, or cells of maps."""
    stage, images = job.stage, job.images
    if isinstance(stage, TrainSegmenter | TrainUpperBound):
        return _weights(_network(_segmenter, stage.arch, stage.backbone))
    if hasattr(stage, "epochs"):
        if isinstance(stage, TrainBoundary):  # its branch has about the same weights over every backbone
            return 1
        root = root_of(stage)
        return _weights(_network(_backbone, root.backbone, root.output_stride))
    height, width = picture(job.data)
    if job.kind in ("Score", "SegmentationScore", "SaliencyScore", "Classify", "WalkGrid"):
        return images * (1 + len(job.data.images("train").space))
    units = images * height * width * sum(s * s for s in getattr(stage, "scales", (1.0,)))
    return units * (_classes(job.data) if hasattr(stage, "merge") else 1)


def trained_batch(job: Job) -> tuple[int, str, int, Size]:
    """Return images per step, backbone, stride and crop of a training whose activations are kept, else 0."""
    stage = job.stage
    if not hasattr(stage, "epochs") or isinstance(stage, TrainBoundary):
        return 0, "", 0, (0, 0)
    root = root_of(stage)
    return stage.batch_size, root.backbone, root.output_stride, (root.crop, root.crop)


def _weights(net: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in net.parameters())


def _passes(stage: Stage, scale: float, maps: float) -> float:
    """Return the passes through the network for the maps of one scale."""
    if hasattr(stage, "steps"):  # climbing; half the steps at scale 0.5
        steps = max(1, stage.steps // 2) if scale == 0.5 else stage.steps
        return maps * (BACKWARD * steps + 1)
    if hasattr(stage, "method"):
        root = root_of(stage)
        channels = _network(_backbone, root.backbone, root.output_stride).channels
        return maps * CHANNELS.get(stage.method, channels)  # Score-CAM sees every channel alone
    return 1


def scaled(size: Size, scale: float) -> Size:
    """Return a size times a scale, at least what a network takes."""
    return tuple(max(32, round(side * scale)) for side in size)


def _flops(net: nn.Module, size: Size) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, *size, device="meta"))
    return float(counter.get_total_flops())


@cache
def _network(build: Any, *names: Any) -> nn.Module:
    with torch.device("meta"):
        return build(*names).eval()


def _backbone(name: str, stride: int) -> nn.Module:
    return build_backbone(name, output_stride=stride)


def _segmenter(arch: str, backbone: str | None) -> nn.Module:
    return build_segmenter(arch, num_classes=21, backbone=backbone)


@cache
def backbone_flops(name: str, stride: int, size: Size) -> float:
    """Return the operations of one forward pass of a backbone on an image of some size.

    Examples
    --------
    >>> one, four = (backbone_flops("resnet_small", 16, (side, side)) for side in (64, 128))
    >>> round(four / one, 2)
    4.0
    """
    return _flops(_network(_backbone, name, stride), size)


@cache
def segmenter_flops(arch: str, backbone: str | None, size: Size) -> float:
    """Return the operations of one forward pass of a segmentation network."""
    return _flops(_network(_segmenter, arch, backbone), size)


@cache
def activation_bytes(name: str, stride: int, size: Size) -> int:
    """Return the bytes that a backbone keeps of one image for its backward pass."""
    kept: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # or the next tensor might get the number of one that is gone

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[id(tensor.untyped_storage())] = tensor.numel() * tensor.element_size()
        alive.append(tensor)
        return tensor

    net = _network(_backbone, name, stride)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.empty(1, 3, *size, device="meta"))
    return max(0, sum(kept.values()) - _weights(net))
