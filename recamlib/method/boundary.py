"""What IRN's boundary branch is trained with: confident labels, and the loss over pairs of cells."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recamlib.errors import DataError, SettingsError
from recamlib.method.walk import pair_affinities, pair_offsets

IGNORE = 255
"""Label of a pixel nobody is sure of."""


class BoundaryLoss(NamedTuple):
    """The loss, its three parts (scalars, nats) and the numbers of pairs they are means over."""

    total: Tensor
    """What is minimised."""
    background: Tensor
    """Mean over pairs of background cells."""
    foreground: Tensor
    """Mean over pairs of cells of one class."""
    negative: Tensor
    """Mean over pairs of cells of different labels."""
    background_pairs: int
    """Pairs of background cells."""
    foreground_pairs: int
    """Pairs of cells of one class."""
    negative_pairs: int
    """Pairs of cells of different labels."""


def boundary_loss(boundary: Tensor, labels: Tensor, *, radius: float = 10, eps: float = 1e-5) -> BoundaryLoss:
    """Teach a boundary to lie between cells of different labels and nowhere else.

    Parameters
    ----------
    boundary
        Probability of a class boundary in each cell, shape ``(B, h, w)``.
    labels
        Confident labels of the same cells, shape ``(B, h, w)``, whole numbers: 0 background, ``k + 1`` class
        k, 255 not known. A pair with an unknown cell counts nowhere.
    radius
        Pairs are nearer than this many cells.
    eps
        Added inside the logarithms and to the numbers of pairs.

    Returns
    -------
    The loss is half the mean over pairs of one label (half of it background, half foreground) and half the
    mean over pairs of different labels. Parts without any pair are 0, and so are their gradients.

    Raises
    ------
    DataError
        If the shapes disagree, the boundary leaves [0, 1], the labels are no whole numbers from 0 on, or the
        image is smaller than the window.
    SettingsError
        If the radius is below 2.

    Notes
    -----
    Source: the boundary part of IRN's loss as the authors' code has it (net/resnet50_irn.py). Pairs start in
    the cells whose whole window lies in the image, see `recamlib.method.walk.pair_affinities`.

    Examples
    --------
    No boundary anywhere costs nothing as long as all labels agree.

    >>> flat, labels = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.int64)
    >>> loss = boundary_loss(flat, labels, radius=2)
    >>> abs(round(loss.total.item(), 4)), loss.background_pairs, loss.negative_pairs
    (0.0, 4, 0)
    """
    if boundary.ndim != 3 or boundary.shape != labels.shape:
        raise DataError(
            f"the boundary has shape {tuple(boundary.shape)} and labels {tuple(labels.shape)}; "
            "both must be (images, h, w)"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels are {labels.dtype}; they must be whole numbers: 0, class + 1, or {IGNORE}")
    if labels.numel() and labels.min() < 0:
        raise DataError(f"labels hold {labels.min().item()}; unknown is {IGNORE}, all others are 0 or more")
    if not ((boundary >= 0) & (boundary <= 1)).all():  # NaN is neither
        raise DataError("the boundary is NaN or outside [0, 1]: pass probabilities, not logits")
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
    background, foreground, negative = (
        torch.where(kind, nats, 0).sum() / (count + eps)
        for kind, count in zip(kinds, counts)
    )
    total = (background / 2 + foreground / 2 + negative) / 2
    return BoundaryLoss(total, background, foreground, negative, *counts)


def confident_labels(foreground: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Labels both masks vouch for: classes from the strict mask, background from the lenient one.

    Parameters
    ----------
    foreground
        Mask at the high background threshold after the CRF, shape ``(H, W)``: 0 or class + 1. What it calls a
        class is a class, whatever the other mask says.
    background
        Mask at the low threshold, same shape. What both call background is background.

    Returns
    -------
    uint8 labels, shape ``(H, W)``; 255 where the strict mask sees nothing but the lenient one does.

    Raises
    ------
    DataError
        If the shapes disagree or the masks are no whole numbers from 0 to 254.

    Notes
    -----
    Source: the authors' step/cam_to_ir_label.py. Two masks that name different classes do not make a pixel
    unknown there, nor here: the strict one wins.

    Examples
    --------
    >>> confident_labels(np.array([[2, 0, 0]]), np.array([[2, 2, 0]]))
    array([[  2, 255,   0]], dtype=uint8)
    """
    masks = np.asarray(foreground), np.asarray(background)
    if masks[0].shape != masks[1].shape:
        raise DataError(f"the masks have shapes {masks[0].shape} and {masks[1].shape}; they must be the same")
    for mask in masks:
        if mask.dtype.kind not in "iu" or (mask.size and not 0 <= mask.min() <= mask.max() < IGNORE):
            raise DataError(f"masks must be whole numbers from 0 to {IGNORE - 1}, got {mask.dtype}")
    strict, lenient = masks
    return np.where(strict > 0, strict, np.where(lenient > 0, IGNORE, 0)).astype(np.uint8)


def check_thresholds(foreground: float, background: float) -> None:
    """Raise unless the threshold of confident foreground lies above the one of confident background.

    Parameters
    ----------
    foreground, background
        Background scores of the two masks, in [0, 1].

    Raises
    ------
    SettingsError
        If they are the wrong way round, equal or out of range.

    Notes
    -----
    Source: the two thresholds of the authors' step/cam_to_ir_label.py, 0.35 and 0.10 in ReCAM.

    Examples
    --------
    >>> check_thresholds(0.35, 0.10)
    """
    if not 0 <= background < foreground <= 1:
        raise SettingsError(
            f"foreground threshold {foreground:g} and background threshold {background:g}: "
            "the first must be above the second, both from 0 to 1"
        )
