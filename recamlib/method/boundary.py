"""What IRN's boundary branch is trained with: confident labels, and the loss over pairs of cells."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recamlib.errors import SettingsError, check_numbers, check_shapes
from recamlib.method.walk import check_boundary, pair_affinities, pair_offsets

IGNORE = 255  # label of a pixel nobody is sure of


class BoundaryLoss(NamedTuple):
    """The loss, the means over pairs that it is made of (nats), and the numbers of these pairs."""

    total: Tensor
    background: Tensor
    foreground: Tensor
    negative: Tensor
    background_pairs: int
    foreground_pairs: int
    negative_pairs: int


def boundary_loss(boundary: Tensor, labels: Tensor, *, radius: float = 10, eps: float = 1e-5) -> BoundaryLoss:
    """Teach a boundary to lie between cells of different labels and nowhere else.

    Half of the loss is the mean over pairs of different labels, a quarter that over pairs of background and a
    quarter that over pairs of one class. A part without any pair is 0, and so is its gradient.

    `boundary` is the probability of a class boundary in each cell, ``(B, h, w)``; `labels` of the same cells
    are 0 background, ``k + 1`` class k, 255 not known. A pair with an unknown cell counts nowhere. Pairs are
    nearer than `radius` cells, 2 or more; `eps` is added inside the logarithms and to the numbers of pairs.

    Source: the boundary part of IRN's loss as the authors' code has it (net/resnet50_irn.py).

    No boundary anywhere costs nothing as long as all labels agree.

    >>> flat, labels = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.int64)
    >>> loss = boundary_loss(flat, labels, radius=2)
    >>> abs(round(loss.total.item(), 4)), loss.background_pairs, loss.negative_pairs
    (0.0, 4, 0)
    """
    check_shapes(boundary=(boundary, "images, h, w"), labels=(labels, "images, h, w"))
    check_numbers("labels", labels, IGNORE, ignore=IGNORE)
    check_boundary(boundary)
    affinity = pair_affinities(boundary, radius=radius, sources="inside")  # (B, P, h', w')
    rows, columns, reach = *affinity.shape[-2:], math.ceil(radius) - 1
    source = labels[:, None, :rows, reach : reach + columns]  # (B, 1, h', w')
    target = torch.stack(
        [labels[:, dy : dy + rows, reach + dx : reach + dx + columns] for dy, dx in pair_offsets(radius)], 1
    )  # (B, P, h', w')
    known, same = (source != IGNORE) & (target != IGNORE), source == target
    kinds = (same & (source == 0), known & same & (source != 0), known & ~same)
    nats = -torch.where(same, affinity + eps, 1 + eps - affinity).log()
    counts = [int(kind.sum()) for kind in kinds]
    parts = [torch.where(kind, nats, 0).sum() / (count + eps) for kind, count in zip(kinds, counts)]
    background, foreground, negative = parts
    return BoundaryLoss((background / 2 + foreground / 2 + negative) / 2, *parts, *counts)


def confident_labels(foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Return labels ``(H, W)``, uint8: classes from the strict mask, background from the lenient one.

    `foreground` is the mask at the high background threshold, `background` the one at the low threshold, both
    ``(H, W)`` after the CRF: 0 or class + 1. A pixel that the lenient mask alone takes for a class is 255.
    Source: the authors' step/cam_to_ir_label.py; where the two name different classes, the strict one wins.

    >>> confident_labels(np.array([[2, 0, 0]]), np.array([[2, 2, 0]]))
    array([[  2, 255,   0]], dtype=uint8)
    """
    strict, lenient = np.asarray(foreground), np.asarray(background)
    check_shapes(strict_mask=(strict, "H, W"), lenient_mask=(lenient, "H, W"))
    check_numbers("the strict mask", strict, IGNORE)
    check_numbers("the lenient mask", lenient, IGNORE)
    return np.where(strict > 0, strict, np.where(lenient > 0, IGNORE, 0)).astype(np.uint8)


def check_thresholds(foreground: float, background: float) -> None:
    """Raise unless the threshold of sure foreground (ReCAM: 0.35) is above that of background (0.10)."""
    if not 0 <= background < foreground <= 1:
        came = f"foreground threshold {foreground:g} and background threshold {background:g}"
        raise SettingsError(f"{came}: the first must be above the second, both from 0 to 1")
