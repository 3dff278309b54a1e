"""The steps of the pipeline as the published code takes them: plain loops, an image at a time, in NCHW.

What is measured is how the numbers are computed, so views, labels, losses that are one line, and files of
images are the library's own. Facts of the published code are those of the method page and of IRN.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from literal import class_features, scale_maps
from literal_walk import random_walk
from torch import Tensor, nn
from torch.utils.data import DataLoader

from recamlib.data.images import labels_to_png
from recamlib.data.views import normalise
from recamlib.engine.fit import epoch_order, set_poly_rate
from recamlib.method.boundary import confident_labels
from recamlib.method.crf import crf_labels
from recamlib.method.losses import bce_loss
from recamlib.method.maps import merge_scales
from recamlib.method.walk import pair_offsets, straight_path
from recamlib.models.classifier import CamClassifier
from recamlib.models.irnet import BoundaryNet

LossStep = Callable[[nn.Module, Tensor, Tensor], Tensor]


def train(
    model: nn.Module,
    views: torch.utils.data.Dataset,
    loss_step: LossStep,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> list[float]:
    """Train in place and return the mean loss of every pass."""
    batch_size = min(batch_size, len(views))
    per_epoch = len(views) // batch_size
    losses: list[float] = []
    for epoch in range(epochs):
        views.set_epoch(epoch)
        order = epoch_order(len(views), seed=seed, epoch=epoch)[: per_epoch * batch_size]
        total = 0.0
        for number, (images, labels, _) in enumerate(DataLoader(views, batch_size=batch_size, sampler=order)):
            set_poly_rate(optimizer, epoch * per_epoch + number, max_steps=epochs * per_epoch)
            model.train()
            optimizer.zero_grad()
            loss = loss_step(model, images, labels)
            loss.backward()
            optimizer.step()
            total += loss.item()
        losses.append(total / per_epoch)
    return losses


def classifier_step(net: CamClassifier, images: Tensor, labels: Tensor) -> Tensor:
    """Eq. (1) on a batch."""
    return bce_loss(net(images), labels)


def reactivation_step(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Eq. (5) to (8): maps of all classes, the product with the features, then an image at a time."""
    features = net.classifier.features(images)  # (B, C, h, w)
    logits = net.classifier.logits(features)
    maps = F.relu(F.conv2d(features, net.classifier.fc1.weight[:, :, None, None]))  # (B, K, h, w)
    maps = maps / (maps.amax((2, 3), keepdim=True) + 1e-5)
    pooled = class_features(features, maps)  # (B, K, C)
    softmax = 0
    for own, present in zip(pooled, labels):
        names = present.nonzero()[:, 0]
        softmax = softmax + F.cross_entropy(net.head(own[names]), names)
    return bce_loss(logits, labels) + softmax / len(labels)


def extract(
    model: CamClassifier, image: Tensor, weight: Tensor, classes: Tensor, scales: Sequence[float], file: Path
) -> None:
    """Store the maps of one image twice, at stride 4 and at image size."""
    with torch.no_grad():
        maps = [m[classes] for m in scale_maps(model, image, weight, scales=tuple(scales), paired=True)]
        size = tuple(image.shape[1:])
        np.savez(file, cam=merge_scales(maps, size, stride=4), high_res=merge_scales(maps, size))


def confident(image: Tensor, file: Path, classes: Sequence[int], *, strict: float, lenient: float) -> bytes:
    """Return the confident labels of one image as PNG, from its stored maps, by two dense CRFs."""
    maps = np.load(file)["high_res"]
    names = np.array([0, *(k + 1 for k in classes), 255], dtype=np.uint8)
    found = []
    for threshold in (strict, lenient):
        scores = np.pad(maps, ((1, 0), (0, 0), (0, 0)), constant_values=threshold)
        found.append(crf_labels(image, scores.argmax(0), num_labels=len(scores)))
    labels = confident_labels(*found)
    return labels_to_png(names[np.where(labels == 255, len(names) - 1, labels)])


class BothBranches(nn.Module):
    """IRN with gradients recorded through its backbone, its branch of boundaries and that of displacements.

    Semantic masks do not use the displacements.
    """

    def __init__(self, net: BoundaryNet, *, radius: int, cells: tuple[int, int]) -> None:
        super().__init__()
        self.net = net
        net.backbone.requires_grad_(True)
        channels = [p[0].in_channels for p in net.branch.project]
        widths = [64, 128, 256, 256, 256][-len(channels) :]
        self.project = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, w, 1, bias=False), nn.GroupNorm(16, w))
            for c, w in zip(channels, widths)
        )
        deep = sum(widths[2:])
        self.deep = nn.Sequential(nn.Conv2d(deep, 256, 1, bias=False), nn.GroupNorm(16, 256), nn.ReLU())
        shallow = sum(widths[:2]) + 256
        self.merge = nn.Sequential(
            nn.Conv2d(shallow, 256, 1, bias=False), nn.GroupNorm(16, 256), nn.ReLU(),
            nn.Conv2d(256, 2, 1, bias=False),
        )  # fmt: skip
        self.tables = path_tables(radius, *cells)

    def train(self, mode: bool = True) -> "BothBranches":
        """Set the mode of the branches alone."""
        super().train(mode)
        self.net.backbone.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of boundaries (B, h, w) and displacements (B, 2, h, w)."""
        size = tuple(images.shape[2:])
        stages = [x.detach() for x in self.net.backbone.stages(images).values()]
        edges = self.net.branch(stages, size)
        found = [project(x) for project, x in zip(self.project, stages)]
        found = [
            F.relu(F.interpolate(x, edges.shape[1:], mode="bilinear", align_corners=False)) for x in found
        ]
        deep = self.deep(torch.cat(found[2:], 1))
        return edges, self.merge(torch.cat([*found[:2], deep], 1))


def path_tables(radius: int, height: int, width: int) -> list[tuple[Tensor, Tensor]]:
    """Return, by length of path, cells on the paths (pairs, length, sources) and displacements (pairs, 2).

    Sources are the cells whose whole window lies in the image.
    """
    reach = radius - 1
    rows, columns = np.meshgrid(np.arange(height - reach), np.arange(reach, width - reach), indexing="ij")
    grouped: dict[int, list[tuple[np.ndarray, tuple[int, int]]]] = {}
    for offset in pair_offsets(radius):
        path = straight_path(*offset)
        path = [p for p in path if p not in ((0, 0), offset)]
        cells = [(rows + y) * width + columns + x for y, x in ((0, 0), *path, offset)]
        grouped.setdefault(len(cells), []).append((np.stack([c.ravel() for c in cells]), offset))
    return [
        (torch.from_numpy(np.stack([c for c, _ in group])), torch.tensor([o for _, o in group]))
        for group in grouped.values()
    ]


def boundary_step(net: BothBranches, images: Tensor, labels: Tensor) -> Tensor:
    """IRN's loss on a batch: affinities by tables of indices, and displacements."""
    edges, displaced = net(images)
    edges, labels = edges.sigmoid().flatten(1), labels.long().flatten(1)  # (B, h*w)
    moved = displaced.flatten(2)  # (B, 2, h*w)
    sums = dict.fromkeys(("bg", "fg", "neg", "bg_moved", "fg_moved"), 0.0)
    counts = dict.fromkeys(("bg", "fg", "neg"), 0)
    for table, offsets in net.tables:
        pairs, length, sources = table.shape
        path = edges.index_select(1, table.flatten()).view(-1, pairs, length, sources)
        affinity = 1 - F.max_pool2d(path, (length, 1))[:, :, 0]  # (B, pairs, sources)
        start, end = (
            labels.index_select(1, table[:, i].flatten()).view(-1, pairs, sources) for i in (0, -1)
        )
        known, same = (start != 255) & (end != 255), start == end
        bg, fg, neg = same & (start == 0), known & same & (start != 0), known & ~same
        here, there = (
            moved.index_select(2, table[:, i].flatten()).view(-1, 2, pairs, sources) for i in (0, -1)
        )
        gap = here - there  # (B, 2, pairs, sources)
        short = (gap - offsets.T[None, :, :, None]).abs()
        close, apart = -(affinity + 1e-5).log(), -(1 + 1e-5 - affinity).log()
        sums["bg"] = sums["bg"] + (bg * close).sum()
        sums["fg"] = sums["fg"] + (fg * close).sum()
        sums["neg"] = sums["neg"] + (neg * apart).sum()
        sums["fg_moved"] = sums["fg_moved"] + (fg[:, None] * short).sum()
        sums["bg_moved"] = sums["bg_moved"] + (bg[:, None] * gap.abs()).sum()
        counts = {name: counts[name] + int(m.sum()) for name, m in (("bg", bg), ("fg", fg), ("neg", neg))}
    mean = {name: sums[name] / (counts[name] + 1e-5) for name in counts}
    affinities = (mean["bg"] / 2 + mean["fg"] / 2 + mean["neg"]) / 2
    displacements = sum(sums[f"{k}_moved"] / (2 * counts[k] + 1e-5) for k in ("bg", "fg")) / 2
    net.boundary_loss = affinities.item()
    return affinities + displacements


@torch.no_grad()
def boundary_map(net: BothBranches, image: Tensor) -> Tensor:
    """Return the boundary probabilities (h, w) of an image: it and its mirror image, both branches."""
    view = normalise(image)
    edges, _ = net(torch.stack([view, view.flip(2)]))
    return ((edges[0] + edges[1].flip(1)) / 2).sigmoid()


def walk(file: Path, boundary: Tensor, **settings: float) -> Tensor:
    """Return the walked maps (P, h, w) of stored ones, divided by their largest value."""
    walked = random_walk(torch.from_numpy(np.load(file)["cam"]), boundary, **settings)
    return walked / walked.max().clamp(min=1e-5)


def mask(walked: Tensor, size: tuple[int, int], classes: Sequence[int], threshold: float) -> np.ndarray:
    """Return the pseudo mask (H, W) of walked maps: stretched, beside a background score, the highest."""
    maps = F.interpolate(walked[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    maps = maps[:, : size[0], : size[1]]
    scores = F.pad(maps / maps.max().clamp(min=1e-5), (0, 0, 0, 0, 1, 0), value=threshold)
    return np.array([0, *(k + 1 for k in classes)], dtype=np.uint8)[scores.argmax(0).numpy()]
