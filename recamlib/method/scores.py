"""Scores: pixels counted, IoU, masks at every threshold at once, classifiers, and intervals over images."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from recamlib.errors import DataError, RecamError, SettingsError, check_multi_hot, check_numbers, check_shapes
from recamlib.method.crf import as_array

THRESHOLDS = tuple(j / 100 for j in range(101))  # background scores
CHUNK = 2**23  # numbers that a chunk of bootstrap resamples may hold at once (64 MB)


def confusion(pred: np.ndarray, truth: np.ndarray, *, num_classes: int, ignore: int = 255) -> np.ndarray:
    """Count pixels ``(num_classes, num_classes)`` by true class (row) and predicted class (column).

    `num_classes` counts the background too.

    >>> confusion(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 255]), num_classes=2)
    array([[1, 1],
           [0, 1]])
    """
    if pred.shape != truth.shape:
        raise DataError(f"prediction has shape {pred.shape} and truth {truth.shape}: resize one of them")
    known = truth != ignore
    pred, truth = pred[known], truth[known]
    check_numbers("prediction", pred, num_classes)
    check_numbers("truth", truth, num_classes)
    index = truth.astype(np.intp) * num_classes + pred
    return np.bincount(index, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_counts(pred: np.ndarray, truth: np.ndarray, *, num_classes: int, ignore: int = 255) -> np.ndarray:
    """Count the pixels of intersection, prediction and truth of every class, ``(num_classes, 3)``."""
    return counts_of(confusion(pred, truth, num_classes=num_classes, ignore=ignore))


def counts_of(matrix: np.ndarray) -> np.ndarray:
    """Return intersection, prediction and truth ``(K + 1, 3)`` of a confusion matrix."""
    return np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], axis=1)


def iou_from_counts(counts: np.ndarray) -> np.ndarray:
    """Return the IoU ``(..., K + 1)`` of counts ``(..., K + 1, 3)``; nan for a class in neither of the two.

    >>> iou_from_counts(np.array([[1, 1, 2], [1, 2, 1], [0, 0, 0]]))
    array([0.5, 0.5, nan])
    """
    both, pred, truth = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    union = pred + truth - both
    return np.divide(both, union, out=np.full_like(union, np.nan), where=union > 0)


def floor_iou(counts: np.ndarray) -> float:
    """Return the mIoU that needs no map: the higher of all background and one label of each image all over.

    `counts` are those of N images, ``(N, K + 1, 3)``; an image is painted with the first of its classes.

    Two labels and two images of four pixels: three of background and one of an object; all of an object. All
    background scores 3/8 and 0; the object all over both 5/8.

    >>> floor_iou(np.array([[[0, 0, 3], [0, 0, 1]], [[0, 0, 0], [0, 0, 4]]]))
    0.3125
    """
    truth = np.asarray(counts, dtype=np.int64)[..., 2]  # (N, K + 1) pixels
    there, total = truth[:, 1:] > 0, truth.sum(0)
    label = np.where(there.any(1), there.argmax(1) + 1, 0)  # (N,)
    painted = np.eye(len(total))[label] * truth.sum(1, keepdims=True)  # (N, K + 1)
    both = np.minimum(painted, truth)
    one_label = mean_iou_from_counts(np.stack([both.sum(0), painted.sum(0), total], axis=1))
    return float(max(one_label, total[0] / total.sum() / np.count_nonzero(total)))


def mean_iou(matrix: np.ndarray) -> float:
    """Return the mean IoU over the classes that are predicted or there, background included."""
    return float(mean_iou_from_counts(counts_of(matrix)))


def mean_iou_from_counts(counts: np.ndarray) -> np.ndarray:
    """Return the mIoU of counts ``(..., K + 1, 3)``, over the classes predicted or there."""
    values = iou_from_counts(counts)
    there = ~np.isnan(values)
    total, number = np.where(there, values, 0).sum(-1), there.sum(-1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)


def masked_argmax(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Return which map ``(P, H, W)`` is highest, as 1 .. P, where above the threshold, else 0: uint8.

    The threshold, in [0, 1], is the score of the background, which wins a tie; compared as float32.

    >>> masked_argmax(np.array([[[0.2, 0.8, 0.3]], [[0.1, 0.1, 0.6]]]), 0.2)
    array([[0, 1, 2]], dtype=uint8)
    """
    if not 0 <= threshold <= 1:
        raise SettingsError(f"threshold is {threshold}, expected a number from 0 to 1, as the maps have")
    check_shapes(maps=(maps, "classes, height, width"))
    if not len(maps):
        return np.zeros(maps.shape[1:], dtype=np.uint8)
    highest = maps.max(0)
    if not np.isfinite(highest).all():
        raise DataError("a map has values that are NaN or infinite: were the weights of the network finite?")
    return np.where(highest > np.float32(threshold), maps.argmax(0) + 1, 0).astype(np.uint8)


class ThresholdSweep:
    """The confusion between truth and thresholded maps, for many thresholds in one pass over the images.

    The rule is that of `masked_argmax`, as in the authors' step/eval_cam.py. For every image one joint
    histogram of true class, highest class and value bin is counted; each threshold's confusion is a partial
    sum of it.

    `num_classes` counts the background; `thresholds` ascend from 0 to 1. For intervals, counts are stored per
    image at the thresholds of `keep`, None for all, about 2 KB an image.

    A map of 0.2 and 0.8 whose second pixel is the object.

    >>> sweep = ThresholdSweep(2, thresholds=(0.1, 0.5, 0.9))
    >>> sweep.add(np.array([[[0.2, 0.8]]], dtype=np.float32), [0], np.array([[0, 1]], dtype=np.uint8))
    >>> sweep.miou.tolist(), sweep.best
    ([0.25, 1.0, 0.25], 0.5)
    """

    def __init__(
        self, num_classes: int, *, thresholds: Sequence[float] = THRESHOLDS,
        keep: Sequence[float] | None = None, ignore: int = 255,
    ) -> None:  # fmt: skip
        self.thresholds = tuple(float(t) for t in thresholds)
        self._edges = np.array(self.thresholds, dtype=np.float32)
        if not self.thresholds or not (np.diff(self._edges) > 0).all():
            raise RecamError(f"thresholds must ascend, got {self.thresholds}")
        if not 0 <= self.thresholds[0] <= self.thresholds[-1] <= 1:
            raise SettingsError(f"thresholds must be from 0 to 1, as the maps have, got {self.thresholds}")
        self.num_classes, self.ignore = num_classes, ignore
        self._even = self.thresholds == THRESHOLDS
        self._stored = [self._column(t) for t in (self.thresholds if keep is None else keep)]
        shape = (num_classes, num_classes - 1, len(self.thresholds) + 1)
        self._histogram = np.zeros(shape, dtype=np.int64)  # true class, highest class, thresholds below value
        self._images: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self._images)

    def add(self, maps: Tensor | np.ndarray, classes: Sequence[int] | np.ndarray, truth: np.ndarray) -> None:
        """Count one image: maps ``(P, H, W)`` of the classes present, their indices, true mask ``(H, W)``."""
        maps, classes, truth = (as_array(x) for x in (maps, classes, truth))
        maps = maps.astype(np.float32, copy=False)
        check_shapes(
            maps=(maps, "classes, height, width"), classes=(classes, "classes"), mask=(truth, "height, width")
        )
        if classes.size:
            check_numbers("classes", classes, self.num_classes - 1)
        if len(np.unique(classes)) < len(classes):
            raise DataError(f"classes {classes.tolist()} name one twice: pass indices, not multi-hot labels")
        classes = classes.astype(np.intp)
        check_numbers("the mask", truth, self.num_classes, ignore=self.ignore)
        joint = self._joint(maps, truth)  # (K + 1, P or 1, T + 1)
        for p, k in enumerate(classes if len(classes) else [0]):  # without a map, all is in bin 0
            self._histogram[:, k] += joint[:, p]
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
        """Return the `class_counts` of every image at a stored threshold, ``(N, K + 1, 3)``, as added."""
        column = self._column(threshold)
        if column not in self._stored:
            raise RecamError(f"counts per image were not stored at threshold {threshold}: name it in keep")
        column = self._stored.index(column)
        out = np.zeros((len(self._images), self.num_classes, 3), dtype=np.int64)
        for row, (classes, both_pred, truth) in zip(out, self._images, strict=True):
            row[:, 2] = truth
            row[[0, *classes + 1], :2] = both_pred[:, :, column]
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
        # rounding may put a value on the wrong side of an edge: comparing with that very edge settles it
        index = (values * np.float32(100)).astype(np.intp)
        np.clip(index, 0, len(self._edges) - 1, out=index)
        return index + (values > self._edges.take(index))

    def _joint(self, maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return the image's histogram ``(K + 1, P or 1, T + 1)``."""
        bins, number = len(self.thresholds) + 1, max(1, len(maps))
        index = truth.ravel().astype(np.intp) * (number * bins)  # (H*W,)
        if len(maps):
            highest = maps[0].ravel()
            winner = np.zeros(highest.shape, dtype=np.uint8)
            for p, values in enumerate(maps[1:].reshape(-1, truth.size), start=1):
                np.maximum(winner, (values > highest) * np.uint8(p), out=winner)
                highest = np.maximum(highest, values)
            if not 0 <= highest.min() <= highest.max() < np.inf:  # nan fails every comparison
                raise DataError("maps hold values below 0 or not finite: they must be normalised to [0, 1]")
            index += winner * np.intp(bins) + self._bins(highest)
        joint = np.bincount(index, minlength=(self.ignore + 1) * number * bins).reshape(-1, number, bins)
        return joint[: self.num_classes]

    def _image_counts(self, joint: np.ndarray, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return intersection and prediction ``(1 + P, 2, stored)``, background first, and the truth."""
        truth = joint.sum((1, 2))  # (K + 1,)
        out = np.empty((1 + len(classes), 2, len(self._stored)), dtype=np.int32)
        up_to = joint.cumsum(2)[:, :, self._stored]  # (K + 1, P, stored): pixels not above each threshold
        out[0, 0], out[0, 1] = up_to[0].sum(0), up_to.sum((0, 1))
        for p, k in enumerate(classes):
            above = joint[:, p].sum(1, keepdims=True) - up_to[:, p]  # (K + 1, stored)
            out[1 + p, 0], out[1 + p, 1] = above[k + 1], above.sum(0)
        return out, truth.astype(np.int32)


def bootstrap_interval(
    counts: np.ndarray, *, seed: int, repeats: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """Return the ends, in [0, 1], of an interval of the mIoU that drawing the images again would give.

    `counts` are those of N images, ``(N, K + 1, 3)``; `level` is the share inside the interval of `repeats`
    draws of N images with replacement.
    """
    return bootstrap_contrast([counts], (1,), seed=seed, repeats=repeats, level=level)


def bootstrap_contrast(
    samples: Sequence[np.ndarray], signs: Sequence[float], *, seed: int, repeats: int = 1000,
    level: float = 0.95,
) -> tuple[float, float]:  # fmt: skip
    """Return the interval of the sum of ``sign * mIoU(sample)`` over the same images, drawn together."""
    if len(samples) != len(signs):
        raise DataError(f"{len(samples)} samples came with {len(signs)} signs: one a sample is expected")
    drawn = np.asarray(signs, dtype=np.float64) @ _resampled(list(samples), seed=seed, repeats=repeats)
    if not (repeats > 0 and 0 < level < 1):
        raise SettingsError(f"repeats is {repeats} and level {level}: use 1 or more, and between 0 and 1")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Return the share of images whose highest score, of ``(N, K)``, belongs to a class that is present.

    Images without a class do not count.
    """
    _check_scores(scores, labels)
    hit = labels.gather(1, scores.argmax(1, keepdim=True))[:, 0]  # (N,)
    return (hit[labels.sum(1) > 0] > 0).double().mean().item()


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Return the mean over the classes that occur of average precision, in [0, 1], of logits ``(N, K)``."""
    _check_scores(scores, labels)
    from torchmetrics.functional.classification import multilabel_average_precision  # slow to import

    occurs = labels.sum(0) > 0
    scores, labels = scores[:, occurs], labels[:, occurs].long()
    if scores.shape[1] < 2:  # torchmetrics wants two columns or more
        scores, labels = scores.repeat(1, 2), labels.repeat(1, 2)
    if not scores.numel():
        return float("nan")
    scores = scores.double().sigmoid()  # within [0, 1], or torchmetrics would squash some batches only
    return multilabel_average_precision(scores, labels, num_labels=scores.shape[1]).item()


def _check_scores(scores: Tensor, labels: Tensor) -> None:
    check_shapes(scores=(scores, "images, classes"), labels=(labels, "images, classes"))
    check_multi_hot(labels)
    if not scores.isfinite().all():
        raise DataError("a score is NaN or infinite: the classifier has diverged, train it at a lower rate")


def _resampled(samples: list[np.ndarray], *, seed: int, repeats: int) -> np.ndarray:
    """Return the mIoU of every sample on every draw, shape ``(len(samples), repeats)``."""
    if len({s.shape for s in samples}) != 1 or samples[0].ndim != 3 or samples[0].shape[2] != 3:
        shapes = ", ".join(str(s.shape) for s in samples)
        raise DataError(f"counts have shapes {shapes}: all must be (images, classes, 3), of the same images")
    images, classes = samples[0].shape[:2]
    if not images:
        raise RecamError("no image to draw from: an interval needs at least one scored image")
    rng = np.random.default_rng(seed)
    flat = [s.reshape(images, -1).astype(np.float64) for s in samples]  # (N, (K+1)*3), exact below 2^53
    out = np.empty((len(samples), repeats))
    step = max(1, CHUNK // images)
    for start in range(0, repeats, step):
        size = min(step, repeats - start)
        drawn = rng.integers(0, images, (size, images)) + np.arange(size)[:, None] * images
        times = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)  # how often drawn
        for i, counts in enumerate(flat):
            total = (times.astype(np.float64) @ counts).reshape(size, classes, 3)
            out[i, start : start + size] = mean_iou_from_counts(total)
    return out
