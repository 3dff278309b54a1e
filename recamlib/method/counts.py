"""Pixels counted: confusion, per-class counts that add up over images, and the IoU they give."""

import numpy as np

from recamlib.errors import DataError


def confusion(pred: np.ndarray, truth: np.ndarray, *, num_classes: int, ignore: int = 255) -> np.ndarray:
    """Count pixels by true class and predicted class.

    Parameters
    ----------
    pred, truth
        Pixel values in 0 .. `num_classes` - 1, same shape.
    num_classes
        Classes with the background; ask the label space: ``space.with_background``.
    ignore
        Value in `truth` of the pixels that are left out.

    Returns
    -------
    Shape ``(num_classes, num_classes)``, int64: true class by row, predicted class by column.

    Raises
    ------
    DataError
        If the shapes disagree or a value is not a class.

    Examples
    --------
    >>> confusion(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 255]), num_classes=2)
    array([[1, 1],
           [0, 1]])
    """
    if pred.shape != truth.shape:
        raise DataError(f"prediction has shape {pred.shape} and truth {truth.shape}: resize one of them")
    known = truth != ignore
    pred, truth = pred[known], truth[known]
    for name, values in (("prediction", pred), ("truth", truth)):
        if values.size and not 0 <= values.min() <= values.max() < num_classes:
            raise DataError(
                f"{name} holds values {values.min()} to {values.max()}, expected 0 to {num_classes - 1}"
            )
    index = truth.astype(np.intp) * num_classes + pred
    return np.bincount(index, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_counts(pred: np.ndarray, truth: np.ndarray, *, num_classes: int, ignore: int = 255) -> np.ndarray:
    """Count, for every class, the pixels of the intersection, of the prediction and of the truth.

    Parameters are those of `confusion`.

    Returns
    -------
    Shape ``(num_classes, 3)``, int64. Counts of images add up to the counts of their split.

    Examples
    --------
    >>> class_counts(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 255]), num_classes=2)
    array([[1, 1, 2],
           [1, 2, 1]])
    """
    return counts_of(confusion(pred, truth, num_classes=num_classes, ignore=ignore))


def counts_of(matrix: np.ndarray) -> np.ndarray:
    """Return intersection, prediction and truth ``(K + 1, 3)`` of a confusion matrix."""
    return np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], axis=1)


def iou_from_counts(counts: np.ndarray) -> np.ndarray:
    """Return intersection over union ``(..., K + 1)`` of counts ``(..., K + 1, 3)``; nan without pixels."""
    both, pred, truth = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    union = pred + truth - both
    return np.divide(both, union, out=np.full_like(union, np.nan), where=union > 0)


def background_iou(counts: np.ndarray) -> float:
    """Return the mean IoU of calling every pixel background, from counts ``(N, K + 1, 3)`` of N images.

    Examples
    --------
    Two labels, three pixels of background and one of an object:

    >>> background_iou(np.array([[[2, 3, 3], [0, 1, 1]]]))
    0.375
    """
    truth = np.asarray(counts, dtype=np.int64).sum(0)[:, 2]  # (K + 1,) pixels
    return float(truth[0] / truth.sum() / np.count_nonzero(truth))


def iou(matrix: np.ndarray) -> np.ndarray:
    """Return intersection over union per class, in [0, 1], of a confusion matrix.

    A class that is neither predicted nor there is nan, so that it does not count in the mean.

    Examples
    --------
    >>> iou(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]]))
    array([0.5, 0.5, nan])
    """
    return iou_from_counts(counts_of(matrix))


def mean_iou(matrix: np.ndarray) -> float:
    """Return the mean of `iou` over the classes that are predicted or there, background included."""
    return float(mean_iou_from_counts(counts_of(matrix)))


def mean_iou_from_counts(counts: np.ndarray) -> np.ndarray:
    """Return the mIoU ``(...)`` of counts ``(..., K + 1, 3)``, over the classes predicted or there."""
    values = iou_from_counts(counts)
    there = ~np.isnan(values)
    total, number = np.where(there, values, 0).sum(-1), there.sum(-1)
    return np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
