"""How much work stages are, before any of it is done: images, floating-point operations, pixels, bytes.

Operations are those of the networks' layers, counted on pictures without content; everything is in
proportion to something that settings and numbers of images say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from recamlib.data.base import ImageSet
from recamlib.data.nominal import SIZES
from recamlib.models.backbones import build_backbone
from recamlib.models.segmenters import build_segmenter
from recamlib.planned import End
from recamlib.stages import (
    BoundaryMaps,
    Classify,
    ConfidentLabels,
    PseudoMasks,
    SaliencyMaps,
    SaliencyMerge,
    SaliencyScore,
    Score,
    SegmentationScore,
    Stage,
    TrainBoundary,
    TrainClassifier,
    TrainSegmenter,
    TrainUpperBound,
    Walk,
    WalkGrid,
)
from recamlib.stages.base import DataSettings, Split

BACKWARD = 3  # operations of a forward and a backward pass, in forward passes
MIRRORED = 2
CHANNELS = {"gradcam": BACKWARD, "gradcam++": BACKWARD, "layercam": BACKWARD}  # passes of a method, per class
Size = tuple[int, int]


@dataclass
class Job:
    """A stage and the images (ids) or other items that are wanted of it."""

    stage: Stage
    items: set[str] = field(default_factory=set)

    @property
    def kind(self) -> str:
        """Name of the stage's class."""
        return type(self.stage).__name__


def jobs_of(ends: Iterable[End]) -> list[Job]:
    """Return all that has to be there for some ends, upstream first, everything once."""
    found: dict[str, Job] = {}
    for end in ends:
        stage = end.stage
        if isinstance(stage, WalkGrid):
            _need(found, stage, {f"beta {i}" for i in range(end.limit)})
        elif isinstance(stage, Score | SegmentationScore | SaliencyScore | Classify):
            _need(found, stage, {"whole"})
        else:
            _need(found, stage, _part(stage, end.split, end.limit))
    return list(found.values())


def _part(stage: Stage, split: Split, limit: int) -> set[str]:
    """Return the ids of a part of a split: a random one of that size, or, below 0, so many first ones."""
    maps = stage.maps if isinstance(stage, PseudoMasks) else stage
    images = maps.dataset.images(split)
    if limit < 0:
        return set(images.ids[:-limit])
    return set((images.select(limit=limit) if limit else images).ids)


def _need(found: dict[str, Job], stage: Stage, items: set[str]) -> None:
    for upstream, wanted in _upstream(stage, items):
        _need(found, upstream, wanted)
    found.setdefault(stage.infra.uid(), Job(stage)).items.update(items)


def _upstream(stage: Stage, items: set[str]) -> list[tuple[Stage, set[str]]]:
    """Return the stages that one reads, and what of them."""
    one = {"model"}
    if isinstance(stage, TrainClassifier):
        if stage.saliency is None:
            return []
        salient = SaliencyMaps(dataset=stage.dataset, saliency=stage.saliency)
        return [(salient, set(stage.dataset.images("train_aug").ids))]
    if isinstance(stage, TrainBoundary):
        return [(stage.labels, set(stage.images().ids))]
    if isinstance(stage, TrainSegmenter):
        return [(stage.masks, set(stage.images().ids))]
    if isinstance(stage, Walk):
        return [(stage.cams, items), (stage.boundaries, items)]
    if isinstance(stage, SaliencyMerge):
        return [(stage.cams, items), (SaliencyMaps(dataset=stage.dataset, saliency=stage.saliency), items)]
    if isinstance(stage, SaliencyScore):
        salient = SaliencyMaps(dataset=stage.dataset, saliency=stage.saliency)
        return [(salient, set(stage.dataset.images(stage.split).ids))]
    if isinstance(stage, Score):
        return [(stage.of, set(stage.images.ids))]
    if isinstance(stage, WalkGrid):
        ids = set(stage.walk.images(stage.split, limit=stage.limit).ids)
        return [(stage.walk.cams, ids), (stage.walk.boundaries, ids)]
    if isinstance(stage, PseudoMasks):
        return [(stage.maps, items)]
    if isinstance(stage, ConfidentLabels):
        return [(stage.cams, items)]
    named = (getattr(stage, name, None) for name in ("base", "net", "model", "of"))
    return [(upstream, one) for upstream in named if isinstance(upstream, Stage)]


def images_of(job: Job) -> int:
    """Return the images that a job goes through once."""
    stage = job.stage
    if isinstance(stage, Score | SegmentationScore):
        return len(stage.images)
    if isinstance(stage, SaliencyScore | Classify):
        data = stage.dataset if isinstance(stage, SaliencyScore) else stage.model.dataset
        return len(data.images(stage.split))
    if isinstance(stage, WalkGrid):
        return len(job.items) * len(stage.walk.images(stage.split, limit=stage.limit))
    if isinstance(stage, TrainBoundary | TrainSegmenter | TrainUpperBound):
        return len(stage.images())
    if hasattr(stage, "epochs"):
        return len(stage.dataset.images("train_aug"))
    return len(job.items)


def picture(data: DataSettings) -> Size:
    """Return height and width of a usual picture of a data set."""
    return SIZES.get(data.name, (data.size, data.size))


@cache
def _classes(data: DataSettings) -> float:
    images: ImageSet = data.images("train")
    return float(images.label_matrix().sum(1).mean())


def work_of(job: Job) -> float:
    """Return a job's work: operations of networks where there is one, else pixels times maps.

    Notes
    -----
    Both are in their own units: a rate belongs to one kind of stage, and the unit cancels out.
    """
    stage, images = job.stage, images_of(job)
    base = getattr(stage, "base", getattr(stage, "model", None))
    base = getattr(base, "base", base)
    size = picture(_data(stage))
    pixels, maps = size[0] * size[1], _classes(_data(stage))
    if isinstance(stage, TrainBoundary):
        net = _root(stage)
        seen = stage.epochs * (images // min(images, stage.batch_size)) * min(images, stage.batch_size)
        return seen * backbone_flops(net.backbone, net.output_stride, (stage.crop, stage.crop))
    if isinstance(stage, BoundaryMaps):
        net = _root(stage.net)
        return images * MIRRORED * backbone_flops(net.backbone, net.output_stride, size)
    if hasattr(stage, "epochs"):  # the classifier and its reactivation
        base = base or stage
        seen = stage.epochs * (images // min(images, stage.batch_size)) * min(images, stage.batch_size)
        crop = (base.crop, base.crop)
        return seen * BACKWARD * backbone_flops(base.backbone, base.output_stride, crop)
    if isinstance(stage, TrainSegmenter | TrainUpperBound):
        crop = (stage.crop, stage.crop)
        return stage.steps * stage.batch_size * BACKWARD * segmenter_flops(stage.arch, stage.backbone, crop)
    if isinstance(stage, SegmentationScore):
        views = [scaled(size, s) for s in stage.scales]
        passes = sum(segmenter_flops(stage.of.arch, stage.of.backbone, view) for view in views)
        return images * (1 + stage.mirror) * passes
    if isinstance(stage, Classify):
        view = scaled(size, stage.scale)
        return images * backbone_flops(base.backbone, base.output_stride, view)
    if hasattr(stage, "scales"):  # maps by passes through the classifier
        passes = 0.0
        for scale in stage.scales:
            once = MIRRORED * backbone_flops(base.backbone, base.output_stride, scaled(size, scale))
            passes += once * _passes(stage, scale, maps)
        return images * passes
    return images * pixels * maps


def _passes(stage: Stage, scale: float, maps: float) -> float:
    """Return the passes through the network for the maps of one scale."""
    if hasattr(stage, "steps"):  # climbing; half the steps at scale 0.5
        steps = max(1, stage.steps // 2) if scale == 0.5 else stage.steps
        return maps * (BACKWARD * steps + 1)
    if hasattr(stage, "method"):
        base = _root(stage)
        return maps * (CHANNELS.get(stage.method) or backbone_channels(base.backbone, base.output_stride))
    return 1


def _root(stage: Stage) -> TrainClassifier:
    """Return the classifier at the root of a stage."""
    model = stage.cams.model if hasattr(stage, "cams") else stage.model
    return getattr(model, "base", model)


def _data(stage: Stage) -> DataSettings:
    """Return the data settings that a stage rests on."""
    for name in ("dataset", "of", "net", "maps", "cams", "model", "walk", "base"):
        found = getattr(stage, name, None)
        if isinstance(found, DataSettings):
            return found
        if isinstance(found, Stage):
            return _data(found)
    raise TypeError(f"{type(stage).__name__} rests on no data")


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


def backbone_channels(name: str, stride: int) -> int:
    """Return the channels of a backbone's features."""
    return _network(_backbone, name, stride).channels


@cache
def segmenter_flops(arch: str, backbone: str | None, size: Size) -> float:
    """Return the operations of one forward pass of a segmentation network."""
    return _flops(_network(_segmenter, arch, backbone), size)


@cache
def activation_bytes(name: str, stride: int, size: Size) -> int:
    """Return the bytes that a backbone keeps of one image for its backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[id(tensor.untyped_storage())] = tensor.numel() * tensor.element_size()
        alive.append(tensor)
        return tensor

    alive: Sequence[torch.Tensor] = []
    net = _network(_backbone, name, stride)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.empty(1, 3, *size, device="meta"))
    weights = sum(p.numel() * p.element_size() for p in net.parameters())
    return max(0, sum(kept.values()) - weights)
