"""Masks from maps at every threshold at once: one histogram an image instead of one mask a threshold."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from recamlib.errors import DataError, RecamError
from recamlib.method.counts import counts_of, mean_iou_from_counts

THRESHOLDS = tuple(j / 100 for j in range(101))
"""Background scores from 0 to 1 in steps of 0.01."""


def masked_argmax(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Return which map is highest, as 1 .. P, where it is above the threshold, else 0; ``(H, W)``, uint8.

    Parameters
    ----------
    maps
        Shape ``(P, H, W)``; with P = 0 everything is background.
    threshold
        The background's score, which wins a tie; compared as float32.

    Examples
    --------
    >>> masked_argmax(np.array([[[0.2, 0.8, 0.3]], [[0.1, 0.1, 0.6]]]), 0.2)
    array([[0, 1, 2]], dtype=uint8)
    """
    if not len(maps):
        return np.zeros(maps.shape[1:], dtype=np.uint8)
    return np.where(maps.max(0) > np.float32(threshold), maps.argmax(0) + 1, 0).astype(np.uint8)


class ThresholdSweep:
    """The confusion between truth and thresholded maps, for many thresholds in one pass over the images.

    The rule: a pixel belongs to the class with the highest map there if that value is *above* the threshold,
    else to the background (the threshold is the background's score, and it wins a tie, as in the authors'
    step/eval_cam.py). Values and thresholds are compared as float32. For every image one joint histogram of
    true class, highest class and value bin is counted; each threshold's confusion is a partial sum of it.

    Parameters
    ----------
    num_classes
        Classes with the background, K + 1; ask the label space.
    thresholds
        Ascending.
    keep
        Thresholds whose counts are kept per image, for intervals; None keeps all of them, about 2 KB an image
        with the default thresholds. Everything else stays the same size however many images are added.
    ignore
        Value of the pixels that are left out.

    Raises
    ------
    RecamError
        If the thresholds do not ascend, or a kept one is not among them.

    Examples
    --------
    A map of 0.2 and 0.8 whose second pixel is the object.

    >>> sweep = ThresholdSweep(2, thresholds=(0.1, 0.5, 0.9))
    >>> sweep.add(np.array([[[0.2, 0.8]]], dtype=np.float32), [0], np.array([[0, 1]], dtype=np.uint8))
    >>> sweep.miou.tolist(), sweep.best
    ([0.25, 1.0, 0.25], 0.5)
    """

    def __init__(
        self,
        num_classes: int,
        *,
        thresholds: Sequence[float] = THRESHOLDS,
        keep: Sequence[float] | None = None,
        ignore: int = 255,
    ) -> None:
        self.thresholds = tuple(float(t) for t in thresholds)
        self._edges = np.array(self.thresholds, dtype=np.float32)
        if not self.thresholds or not (np.diff(self._edges) > 0).all():
            raise RecamError(f"thresholds must ascend, got {self.thresholds}")
        self.num_classes, self.ignore = num_classes, ignore
        self._even = self.thresholds == THRESHOLDS
        self._kept = [self._column(t) for t in (self.thresholds if keep is None else keep)]
        shape = (num_classes, num_classes - 1, len(self.thresholds) + 1)
        self._histogram = np.zeros(shape, dtype=np.int64)  # true class, highest class, thresholds below value
        self._images: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        """Return the number of images added."""
        return len(self._images)

    def add(self, maps: Tensor | np.ndarray, classes: Sequence[int], truth: np.ndarray) -> None:
        """Count one image.

        Parameters
        ----------
        maps
            Shape ``(P, H, W)``, one map per class present.
        classes
            Indices of these classes, 0 .. K - 1; the class's pixel value is one more.
        truth
            True mask, shape ``(H, W)``, uint8.

        Raises
        ------
        DataError
            If shapes, classes or values do not fit.
        """
        maps = np.asarray(maps, dtype=np.float32)
        classes = np.asarray(classes, dtype=np.intp)
        if maps.ndim != 3 or maps.shape[1:] != truth.shape or len(maps) != len(classes):
            raise DataError(
                f"maps have shape {maps.shape}, the mask {truth.shape}, {len(classes)} classes are named; "
                "expected maps (classes, height, width) at the size of the mask"
            )
        if classes.size and not 0 <= classes.min() <= classes.max() < self.num_classes - 1:
            raise DataError(f"classes {classes.tolist()} are not all within 0 to {self.num_classes - 2}")
        joint = self._joint(maps, truth)  # (K + 1, P or 1, T + 1)
        if len(classes):
            for p, k in enumerate(classes):
                self._histogram[:, k] += joint[:, p]
        else:
            self._histogram[:, 0] += joint[:, 0]  # all in bin 0: background at every threshold
        self._images.append((classes, *self._image_counts(joint, classes)))

    @property
    def miou(self) -> np.ndarray:
        """mIoU at every threshold, shape ``(T,)``, in [0, 1]."""
        return mean_iou_from_counts(np.stack([counts_of(self.at(t)) for t in self.thresholds]))

    @property
    def best(self) -> float:
        """The threshold with the highest mIoU; the lowest of equals."""
        return self.thresholds[int(np.nanargmax(self.miou))]

    def at(self, threshold: float) -> np.ndarray:
        """Return the confusion matrix ``(K + 1, K + 1)`` at one of the thresholds, truth by row."""
        above = self._histogram[:, :, self._column(threshold) + 1 :].sum(2)  # (K + 1, K)
        rest = self._histogram.sum((1, 2)) - above.sum(1)  # (K + 1,)
        return np.concatenate([rest[:, None], above], axis=1)

    def per_image(self, threshold: float) -> np.ndarray:
        """Return the counts of every image at a kept threshold, shape ``(N, K + 1, 3)``, in the order added.

        Columns are intersection, prediction and truth, as in :func:`recamlib.method.metrics.class_counts`.
        """
        column = self._column(threshold)
        if column not in self._kept:
            raise RecamError(f"counts per image were not kept at threshold {threshold}: name it in keep")
        column = self._kept.index(column)
        out = np.zeros((len(self._images), self.num_classes, 3), dtype=np.int64)
        for row, (classes, both_pred, truth) in zip(out, self._images, strict=True):
            row[:, 2] = truth
            row[np.concatenate([[0], classes + 1]), :2] = both_pred[:, :, column]
        return out

    def _column(self, threshold: float) -> int:
        if threshold in self.thresholds:
            return self.thresholds.index(threshold)
        near = min(self.thresholds, key=lambda t: abs(t - threshold))
        raise RecamError(f"threshold {threshold} is not part of this sweep: the nearest one is {near}")

    def _bins(self, values: np.ndarray) -> np.ndarray:
        """Return for every value how many thresholds lie below it."""
        if not self._even:
            return np.searchsorted(self._edges, values)
        # value * 100, cut to a whole number, is j or, where rounding meets an edge, j + 1 for a value between
        # edges j and j + 1; comparing with that very edge settles it.
        index = (values * np.float32(100)).astype(np.intp)
        np.clip(index, 0, len(self._edges) - 1, out=index)
        return index + (values > self._edges.take(index))

    def _joint(self, maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return the image's histogram ``(K + 1, P or 1, T + 1)``."""
        bins, number = len(self.thresholds) + 1, max(1, len(maps))
        index = truth.ravel().astype(np.intp) * number  # (H*W,)
        if len(maps):
            highest = maps[0].ravel()
            winner = np.zeros(highest.shape, dtype=np.uint8)
            for p, values in enumerate(maps[1:], start=1):
                values = values.ravel()
                np.maximum(winner, (values > highest) * np.uint8(p), out=winner)
                highest = np.maximum(highest, values)
            if not 0 <= highest.min() <= highest.max() < np.inf:  # nan fails every comparison
                raise DataError("maps hold values below 0 or not finite: they must be normalised to [0, 1]")
            index += winner
            index *= bins
            index += self._bins(highest)
        else:
            index *= bins
        joint = np.bincount(index, minlength=(self.ignore + 1) * number * bins).reshape(-1, number, bins)
        found = joint.any((1, 2)).nonzero()[0]
        beyond = [int(v) for v in found if v >= self.num_classes and v != self.ignore]
        if beyond:
            raise DataError(f"the mask holds values {beyond[:5]}, expected 0 to {self.num_classes - 1}")
        return joint[: self.num_classes]

    def _image_counts(self, joint: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return intersection and prediction ``(1 + P, 2, kept)``, background first, and the truth."""
        truth = joint.sum((1, 2))  # (K + 1,)
        out = np.empty((1 + len(classes), 2, len(self._kept)), dtype=np.int32)
        up_to = joint.cumsum(2)[:, :, self._kept]  # (K + 1, P, kept): pixels not above each threshold
        out[0, 0], out[0, 1] = up_to[0].sum(0), up_to.sum((0, 1))
        for p, k in enumerate(classes):
            above = joint[:, p].sum(1, keepdims=True) - up_to[:, p]  # (K + 1, kept)
            out[1 + p, 0], out[1 + p, 1] = above[k + 1], above.sum(0)
        return out, truth.astype(np.int32)
