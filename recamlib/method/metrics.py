"""Scores of masks and of classifiers, and their intervals over images; the door to `counts` and `sweep`."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from recamlib.errors import RecamError
from recamlib.method.counts import (
    class_counts,
    confusion,
    iou,
    iou_from_counts,
    mean_iou,
    mean_iou_from_counts,
)
from recamlib.method.sweep import THRESHOLDS, ThresholdSweep

__all__ = [
    "THRESHOLDS",
    "ThresholdSweep",
    "accuracy",
    "bootstrap_average_precision",
    "bootstrap_contrast",
    "bootstrap_difference",
    "bootstrap_interval",
    "class_counts",
    "confusion",
    "iou",
    "iou_from_counts",
    "mean_average_precision",
    "mean_iou",
    "mean_iou_from_counts",
    "split_single_multi",
]

CHUNK = 2**23
"""Numbers that a chunk of bootstrap resamples may hold at once (64 MB)."""


def bootstrap_interval(
    counts: np.ndarray, *, seed: int, repeats: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mIoU that drawing the images again, with replacement, would give.

    Parameters
    ----------
    counts
        Per image, shape ``(N, K + 1, 3)`` as `class_counts` makes them.
    seed
        Seed of the draws.
    repeats
        Number of draws of N images.
    level
        Share of the draws inside the interval.

    Returns
    -------
    Lower and upper end, in [0, 1].

    Raises
    ------
    RecamError
        If there is no image.

    Notes
    -----
    It speaks of the images alone: not of the seed of the training, nor of a threshold chosen on the same
    images.
    """
    return _interval(_resampled([counts], seed=seed, repeats=repeats)[0], level)


def bootstrap_difference(
    a: np.ndarray, b: np.ndarray, *, seed: int, repeats: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Interval of ``mIoU(a) - mIoU(b)`` over the same images, drawn together; see `bootstrap_interval`.

    Raises
    ------
    RecamError
        If the two do not hold the same number of images.
    """
    if a.shape != b.shape:
        raise RecamError(f"counts have shapes {a.shape} and {b.shape}: both must be of the same images")
    return bootstrap_contrast([a, b], (1, -1), seed=seed, repeats=repeats, level=level)


def bootstrap_contrast(
    samples: Sequence[np.ndarray],
    signs: Sequence[float],
    *,
    seed: int,
    repeats: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of the sum of ``sign * mIoU(sample)`` over the same images, drawn together.

    Whether one margin exceeds another is ``[a, b, c, d]`` with signs ``(1, -1, -1, 1)``.
    """
    drawn = _resampled(list(samples), seed=seed, repeats=repeats)  # (S, repeats)
    return _interval(np.asarray(signs, dtype=np.float64) @ drawn, level)


def bootstrap_average_precision(
    scores: Tensor, labels: Tensor, *, seed: int, repeats: int = 200, level: float = 0.95
) -> tuple[float, float]:
    """Interval of `mean_average_precision` that drawing the images ``(N, K)`` again would give, in [0, 1]."""
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(scores), len(scores)) for _ in range(repeats)]
    return _interval(np.array([mean_average_precision(scores[i], labels[i]) for i in drawn]), level)


def split_single_multi(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which images of labels ``(N, K)`` have exactly one class and which have several: ``(N,)``."""
    present = np.asarray(labels).sum(1)
    return present == 1, present > 1


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Share of images whose highest score, of ``(N, K)``, belongs to a class that is present, in [0, 1].

    With one label per image this is the usual top-1 accuracy; images without a class do not count.

    Examples
    --------
    >>> import torch
    >>> accuracy(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1, 0], [0, 1]]))
    0.5
    """
    hit = labels.gather(1, scores.argmax(1, keepdim=True))[:, 0]  # (N,)
    return (hit[labels.sum(1) > 0] > 0).double().mean().item()


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Average precision of the scores ``(N, K)`` of a class, mean over the classes that occur, in [0, 1]."""
    from torchmetrics.functional.classification import multilabel_average_precision  # slow to import

    occurs = labels.sum(0) > 0
    scores, labels = scores[:, occurs], labels[:, occurs].long()
    if scores.shape[1] < 2:  # torchmetrics wants two columns or more
        scores, labels = scores.repeat(1, 2), labels.repeat(1, 2)
    if not scores.numel():
        return float("nan")
    scores = scores.double().sigmoid()  # within [0, 1], or torchmetrics would squash some batches only
    return multilabel_average_precision(scores, labels, num_labels=scores.shape[1]).item()


def _resampled(samples: list[np.ndarray], *, seed: int, repeats: int) -> np.ndarray:
    """Return the mIoU of every sample on every draw, shape ``(len(samples), repeats)``."""
    images, classes = samples[0].shape[:2]
    if not images:
        raise RecamError("no image to draw from: an interval needs at least one scored image")
    rng = np.random.default_rng(seed)
    flat = [s.reshape(images, -1).astype(np.float64) for s in samples]  # (N, (K+1)*3), exact below 2^53
    out = np.empty((len(samples), repeats))
    step = max(1, min(repeats, CHUNK // images))
    for start in range(0, repeats, step):
        size = min(step, repeats - start)
        drawn = rng.integers(0, images, (size, images)) + np.arange(size)[:, None] * images
        times = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)  # how often drawn
        for i, counts in enumerate(flat):
            total = (times.astype(np.float64) @ counts).reshape(size, classes, 3)
            out[i, start : start + size] = mean_iou_from_counts(total)
    return out


def _interval(values: np.ndarray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
