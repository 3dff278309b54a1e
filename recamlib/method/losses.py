"""The losses of the paper as pure functions of logits and labels, and their gradients in closed form."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recamlib.errors import DataError, SettingsError, nearest

PLACES = ("logits", "masks")
"""Grids that the two sides of `segmentation_loss` can be compared on."""


def _check(logits: Tensor, labels: Tensor, *, softmax: bool = False) -> Tensor:
    """Return the labels in the dtype of the logits, or raise if they are not multi-hot or do not fit."""
    if logits.ndim != 2 or logits.shape != labels.shape:
        raise DataError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}; "
            "both must be (images, classes)"
        )
    _check_labels(labels, softmax=softmax)
    return labels.to(logits.dtype)


def _check_labels(labels: Tensor, *, softmax: bool) -> None:
    """Raise unless labels ``(B, K)`` hold 0 and 1, and two classes or more where they compete."""
    strange = (labels != 0) & (labels != 1)
    if strange.any():
        raise DataError(
            f"labels hold {labels[strange][0].item():g}; they must be multi-hot, 0 and 1: "
            "turn class indices into them with torch.nn.functional.one_hot"
        )
    if softmax and labels.shape[1] < 2:
        raise DataError(
            "there is one class, and a softmax over one class is always 1: it has no gradient and teaches "
            "nothing; add a class that the images can be told from, or stay with BCE and CAM alone"
        )


def _spread(labels: Tensor) -> Tensor:
    """Multi-hot labels shared out to sum to 1 per image; an image without a class stays all zero."""
    return labels / labels.sum(1, keepdim=True).clamp(min=1)  # (B, K)


def bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of every class on its own, averaged over classes and images.

    Parameters
    ----------
    logits
        Scores before the sigmoid, shape ``(B, K)``: images, foreground classes.
    labels
        Image-level labels in {0, 1}, shape ``(B, K)``, any dtype.

    Returns
    -------
    Scalar in nats.

    Raises
    ------
    DataError
        If the shapes disagree (both are named) or a label is neither 0 nor 1.

    Notes
    -----
    Source: Eq. (1), then the mean over the batch; equal to the multi-label soft margin loss that the
    authors' code calls (step/train_recam.py).

    Examples
    --------
    Both logits 0: each term is ln 2.

    >>> round(bce_loss(torch.zeros(1, 2), torch.tensor([[1, 0]])).item(), 4)
    0.6931
    """
    return F.binary_cross_entropy_with_logits(logits, _check(logits, labels))


def sce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy against the labels shared out to sum to 1 per image.

    Classes that are present together compete with each other here, which is why the paper finds this
    loss alone worse than BCE on images with several labels (Table 1, "SCE only").

    Parameters
    ----------
    logits
        Scores before the softmax, shape ``(B, K)``: images, foreground classes.
    labels
        Image-level labels in {0, 1}, shape ``(B, K)``, any dtype.

    Returns
    -------
    Scalar in nats: sum over images divided by ``B``. An image without a class adds nothing but counts.

    Raises
    ------
    DataError
        If the shapes disagree (both are named) or a label is neither 0 nor 1.

    Notes
    -----
    Source: Section 4.2 and Table 1, row 2. With one label per image it is the usual cross-entropy. How the
    paper shares out several labels is not stated; an equal share keeps the loss of an image on one scale.

    Examples
    --------
    Two equal logits: ln 2, whether one of the classes is present or both.

    >>> [round(sce_loss(torch.zeros(1, 2), torch.tensor([y])).item(), 4) for y in ([1, 0], [1, 1])]
    [0.6931, 0.6931]
    """
    target = _spread(_check(logits, labels, softmax=True))  # (B, K)
    return -(target * logits.log_softmax(1)).sum(1).mean()


def sce_single_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy on images with exactly one class, binary cross-entropy on all the others.

    Parameters
    ----------
    logits
        Scores, shape ``(B, K)``: images, foreground classes.
    labels
        Image-level labels in {0, 1}, shape ``(B, K)``, any dtype.

    Returns
    -------
    Scalar in nats: sum over all images of the batch divided by ``B``.

    Raises
    ------
    DataError
        If the shapes disagree (both are named) or a label is neither 0 nor 1.

    Notes
    -----
    Source: Table 1, row 3 ("SCE for single only").

    Examples
    --------
    A single-label image costs ln 2; one with both classes costs ln 2 per class, averaged.

    >>> round(sce_single_loss(torch.zeros(2, 2), torch.tensor([[1, 0], [1, 1]])).item(), 4)
    0.6931
    """
    target = _check(logits, labels, softmax=True)  # (B, K)
    exclusive = -(target * logits.log_softmax(1)).sum(1)  # (B,)
    separate = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)  # (B,)
    return torch.where(target.sum(1) == 1, exclusive, separate).mean()


def reactivation_loss(class_features: Tensor, labels: Tensor, *, classifier: nn.Module) -> Tensor:
    """Softmax cross-entropy over one pooled feature per class present in the image.

    Classes that share an image must compete for its pixels; under BCE each is scored alone.

    Parameters
    ----------
    class_features
        Map-weighted, pooled features, shape ``(B, K, D)``: images, foreground classes,
        channels. Row ``k`` counts only where ``labels[:, k]`` is 1.
    labels
        Image-level labels in {0, 1}, shape ``(B, K)``. Background is not a class here.
    classifier
        Maps ``(N, D)`` to ``(N, K)`` logits (no softmax).

    Returns
    -------
    Scalar in nats: mean over the classes of an image, then sum over images divided by ``B``.
    Images without a class add nothing but still count in ``B``.

    Raises
    ------
    DataError
        If shapes disagree (both are named), a label is neither 0 nor 1, no image has a class, or there is
        only one class: a softmax over it is always 1.

    Notes
    -----
    Source: Eq. (7). Averaging follows the authors' code (net/resnet50_cam.py:162-173), which does
    not handle a batch with no class; here it raises.

    Examples
    --------
    One image, classes 0 and 2 present, identity classifier: each term is ln(e + 2) - 1.

    >>> features, labels = torch.eye(3)[None], torch.tensor([[1, 0, 1]])
    >>> round(reactivation_loss(features, labels, classifier=nn.Identity()).item(), 4)
    0.5514
    """
    if class_features.ndim != 3 or class_features.shape[:2] != labels.shape:
        raise DataError(
            f"class features have shape {tuple(class_features.shape)} and labels {tuple(labels.shape)}; "
            "they must be (images, classes, channels) and (images, classes)"
        )
    _check_labels(labels, softmax=True)
    image, target = labels.nonzero(as_tuple=True)  # (N,), (N,): one entry per class present
    if not len(image):
        raise DataError("no image of this batch has a class: leave unlabelled images out of training")
    logits = classifier(class_features[image, target])  # (N, K)
    terms = F.cross_entropy(logits, target, reduction="none")  # (N,)
    share = _spread(labels.to(terms.dtype))[image, target]  # (N,) 1 / classes of the image
    return (terms * share).sum() / len(labels)


def bce_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of one image's binary cross-entropy with respect to its logits, in closed form.

    Parameters
    ----------
    logits
        Scores, shape ``(B, K)``.
    labels
        Image-level labels in {0, 1}, shape ``(B, K)``.

    Returns
    -------
    Shape ``(B, K)``, each row the gradient of that image's own loss (no division by ``B``): below 0 pulls
    the logit up. Every entry lies within 1 / K of 0.

    Raises
    ------
    DataError
        If the shapes disagree (both are named) or a label is neither 0 nor 1.

    Notes
    -----
    Source: Eq. (12), first line.

    Examples
    --------
    >>> bce_gradient(torch.zeros(1, 2), torch.tensor([[1, 0]]))
    tensor([[-0.2500,  0.2500]])
    """
    return (logits.sigmoid() - _check(logits, labels)) / logits.shape[1]


def sce_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of one image's softmax cross-entropy with respect to its logits, in closed form.

    Parameters
    ----------
    logits
        Scores, shape ``(B, K)``.
    labels
        Image-level labels in {0, 1}, shape ``(B, K)``; several per image are shared out as in `sce_loss`.

    Returns
    -------
    Shape ``(B, K)``, each row the gradient of that image's own loss (no division by ``B``); it sums to 0.
    All zero for an image without a class.

    Raises
    ------
    DataError
        If the shapes disagree (both are named) or a label is neither 0 nor 1.

    Notes
    -----
    Source: Eq. (12), second line.

    Examples
    --------
    >>> sce_gradient(torch.zeros(1, 2), torch.tensor([[1, 0]]))
    tensor([[-0.5000,  0.5000]])
    """
    target = _spread(_check(logits, labels))  # (B, K)
    return logits.softmax(1) * target.sum(1, keepdim=True) - target


def segmentation_loss(logits: Tensor, masks: Tensor, *, at: str = "logits", ignore: int = 255) -> Tensor:
    """Softmax cross-entropy of every pixel whose class is known, averaged over these pixels.

    Parameters
    ----------
    logits
        Scores before the softmax, shape ``(B, K + 1, h, w)``: images, classes with background first.
    masks
        Class of every pixel, shape ``(B, H, W)``, any integer dtype: 0 to ``K``, or `ignore`.
    at
        ``"logits"`` takes the mask's nearest pixel for every cell of the logits; ``"masks"`` brings the
        logits to the size of the masks, bilinearly.
    ignore
        The value of pixels that do not count.

    Returns
    -------
    Scalar in nats; 0, with gradients of 0, if no pixel is known. Processes that train together divide by the
    known pixels of all of them.

    Raises
    ------
    DataError
        If the shapes do not belong together, or a mask holds a value that is no class.
    SettingsError
        If `at` is unknown.

    Notes
    -----
    Source: Eq. (3) up to a constant. ``1 / HW`` is kept as the mean over the known pixels of the whole batch,
    as published (deeplab-pytorch main.py); ``1 / (K + 1)``, which only scales the learning rate, is left
    out there and here. DeepLabV2 is trained at the logits' size, the other networks at the masks'. Nearest
    means by the centre of a cell, as Pillow does it and PyTorch's ``"nearest-exact"``, not ``"nearest"``.

    Examples
    --------
    Two classes with equal scores: ln 2 for every known pixel.

    >>> import torch
    >>> masks = torch.tensor([[[0, 1], [255, 255]]])
    >>> round(segmentation_loss(torch.zeros(1, 2, 2, 2), masks).item(), 4)
    0.6931
    """
    _check_masks(logits, masks, at=at, ignore=ignore)
    logits = logits.float()
    if at == "masks":
        if logits.shape[2:] != masks.shape[1:]:
            logits = F.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=False)
    elif logits.shape[2:] != masks.shape[1:]:
        masks = F.interpolate(masks[:, None].float(), logits.shape[2:], mode="nearest-exact")[:, 0]
    masks = masks.long()
    total = F.cross_entropy(logits, masks, ignore_index=ignore, reduction="sum")
    return total / (masks != ignore).sum().clamp(min=1)


def multiscale_loss(
    outputs: Sequence[Tensor], masks: Tensor, *, at: str = "logits", ignore: int = 255
) -> Tensor:
    """Sum of the losses of several logits of the same images, each on its own grid.

    Parameters
    ----------
    outputs
        Logits ``(B, K + 1, h_i, w_i)``: for DeepLabV2 those of three image sizes and their maximum.
    masks, at, ignore
        As in `segmentation_loss`.

    Returns
    -------
    Scalar in nats; one output costs what `segmentation_loss` says.

    Notes
    -----
    Source: Eq. (3) as deeplab-pytorch applies it (main.py): four terms of equal weight.

    Examples
    --------
    >>> import torch
    >>> masks = torch.zeros(1, 4, 4, dtype=torch.uint8)
    >>> round(multiscale_loss([torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 2, 2)], masks).item(), 4)
    1.3863
    """
    if isinstance(outputs, Tensor) or not outputs:
        raise DataError("outputs are no list of logits: pass one tensor (images, classes, h, w) a size")
    return sum(segmentation_loss(logits, masks, at=at, ignore=ignore) for logits in outputs)


def _check_masks(logits: Tensor, masks: Tensor, *, at: str, ignore: int) -> None:
    """Raise unless logits and masks are of the same images and the masks hold classes of the logits."""
    if at not in PLACES:
        raise SettingsError(f"at is {at!r}{nearest(at, PLACES)}, expected one of {PLACES}")
    if logits.ndim != 4 or masks.ndim != 3 or len(logits) != len(masks):
        raise DataError(
            f"logits have shape {tuple(logits.shape)} and masks {tuple(masks.shape)}; "
            "they must be (images, classes, h, w) and (images, H, W)"
        )
    if masks.is_floating_point() or masks.is_complex():
        raise DataError(f"masks have dtype {masks.dtype}, expected class numbers of an integer dtype")
    strange = (masks != ignore) & ((masks < 0) | (masks >= logits.shape[1]))
    if strange.any():
        raise DataError(
            f"a mask holds the value {masks[strange][0].item()}, expected 0 to {logits.shape[1] - 1} or "
            f"{ignore}: were the network and the masks made for the same classes?"
        )
