"""The losses of the paper as pure functions of logits and labels, and their gradients in closed form.

Logits are scores before sigmoid or softmax, labels are multi-hot in any dtype; both have shape ``(B, K)``:
images, foreground classes. Losses are scalars in nats.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recamlib.errors import DataError, check_choice, check_multi_hot, check_numbers, check_shapes


def _multi_hot(logits: Tensor, labels: Tensor) -> Tensor:
    """Return checked labels ``(B, K)`` in the dtype of the logits."""
    check_shapes(logits=(logits, "images, classes"), labels=(labels, "images, classes"))
    check_multi_hot(labels)
    return labels.to(logits.dtype)


def _check_rivals(labels: Tensor) -> None:
    if labels.shape[1] < 2:
        alone = "a softmax over one class is always 1 and teaches nothing"
        raise DataError(f"there is one class, and {alone}; add a class, or stay with BCE and CAM alone")


def _spread(labels: Tensor) -> Tensor:
    """Return multi-hot labels shared out to sum to 1 an image; one without a class stays all zero."""
    return labels / labels.sum(1, keepdim=True).clamp(min=1)  # (B, K)


def bce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the binary cross-entropy of every class on its own, averaged over classes and images.

    Source: Eq. (1); the multi-label soft margin loss of the authors' code (step/train_recam.py). With both
    logits 0, each term is ln 2.

    >>> round(bce_loss(torch.zeros(1, 2), torch.tensor([[1, 0]])).item(), 4)
    0.6931
    """
    return F.binary_cross_entropy_with_logits(logits, _multi_hot(logits, labels))


def sce_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the softmax cross-entropy against labels shared out to sum to 1, averaged over images.

    An image without a class adds nothing but counts in the mean. Source: Section 4.2 and Table 1, row 2,
    which does not state how several labels are shared out. Two equal logits: ln 2, for one class or both.

    >>> [round(sce_loss(torch.zeros(1, 2), torch.tensor([y])).item(), 4) for y in ([1, 0], [1, 1])]
    [0.6931, 0.6931]
    """
    target = _spread(_multi_hot(logits, labels))  # (B, K)
    _check_rivals(labels)
    return -(target * logits.log_softmax(1)).sum(1).mean()


def sce_single_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of softmax cross-entropy for images of exactly one class, and of BCE for all others.

    Source: Table 1, row 3 ("SCE for single only").

    >>> round(sce_single_loss(torch.zeros(2, 2), torch.tensor([[1, 0], [1, 1]])).item(), 4)
    0.6931
    """
    target = _multi_hot(logits, labels)  # (B, K)
    _check_rivals(labels)
    exclusive = -(target * logits.log_softmax(1)).sum(1)  # (B,)
    separate = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)  # (B,)
    return torch.where(target.sum(1) == 1, exclusive, separate).mean()


def reactivation_loss(class_features: Tensor, labels: Tensor, *, classifier: nn.Module) -> Tensor:
    """Return the softmax cross-entropy of one pooled feature per class present in an image.

    Classes that share an image must compete for its pixels; under BCE each is scored alone. The mean is over
    the classes of an image, then over images; one without a class adds nothing but counts.

    Of the map-weighted, pooled `class_features` ``(B, K, D)``, row k counts only where ``labels[:, k]`` is 1;
    `classifier` maps ``(N, D)`` to ``(N, K)`` logits. Background is not a class here.

    Source: Eq. (7). Averaging follows the authors' code (net/resnet50_cam.py:162-173), which does not handle
    a batch with no class. One image, classes 0 and 2 present, identity classifier: each is ln(e + 2) - 1.

    >>> features, labels = torch.eye(3)[None], torch.tensor([[1, 0, 1]])
    >>> round(reactivation_loss(features, labels, classifier=nn.Identity()).item(), 4)
    0.5514
    """
    check_shapes(
        class_features=(class_features, "images, classes, channels"), labels=(labels, "images, classes")
    )
    check_multi_hot(labels)
    _check_rivals(labels)
    image, target = labels.nonzero(as_tuple=True)  # (N,), (N,): one entry per class present
    if not len(image):
        raise DataError("no image of this batch has a class: leave unlabelled images out of training")
    logits = classifier(class_features[image, target])  # (N, K)
    terms = F.cross_entropy(logits, target, reduction="none")  # (N,)
    share = _spread(labels.to(terms.dtype))[image, target]  # (N,) 1 / classes of the image
    return (terms * share).sum() / len(labels)


def bce_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient ``(B, K)`` of each image's own BCE by its logits, in closed form.

    Source: Eq. (12), first line. Every entry lies within 1 / K of 0; below 0 pulls the logit up.

    >>> bce_gradient(torch.zeros(1, 2), torch.tensor([[1, 0]]))
    tensor([[-0.2500,  0.2500]])
    """
    return (logits.sigmoid() - _multi_hot(logits, labels)) / logits.shape[1]


def sce_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient ``(B, K)`` of each image's own `sce_loss` by its logits, in closed form.

    Source: Eq. (12), second line. It sums to 0, and is 0 for an image without a class.

    >>> sce_gradient(torch.zeros(1, 2), torch.tensor([[1, 0]]))
    tensor([[-0.5000,  0.5000]])
    """
    target = _spread(_multi_hot(logits, labels))  # (B, K)
    return logits.softmax(1) * target.sum(1, keepdim=True) - target


def segmentation_loss(logits: Tensor, masks: Tensor, *, at: str = "logits", ignore: int = 255) -> Tensor:
    """Return the softmax cross-entropy of every pixel whose class is known, averaged over these pixels.

    It is 0, with gradients of 0, if no pixel is known. Logits are ``(B, K + 1, h, w)``, background first;
    masks ``(B, H, W)`` hold 0 to ``K``, or `ignore`. ``at="logits"`` takes the mask's nearest pixel for every
    cell of the logits, ``"masks"`` brings the logits to the size of the masks, bilinearly.

    Source: Eq. (3) up to a constant. ``1 / HW`` is the mean over the known pixels of the whole batch, as
    published (deeplab-pytorch main.py); ``1 / (K + 1)``, which only scales the learning rate, is left out
    there and here. Nearest means by the centre of a cell, as Pillow does it.

    Two classes with equal scores: ln 2 for every known pixel.

    >>> masks = torch.tensor([[[0, 1], [255, 255]]])
    >>> round(segmentation_loss(torch.zeros(1, 2, 2, 2), masks).item(), 4)
    0.6931
    """
    check_choice("at", at, ("logits", "masks"))
    check_shapes(logits=(logits, "images, classes, h, w"), masks=(masks, "images, H, W"))
    check_numbers("masks", masks, logits.shape[1], ignore=ignore)
    logits = logits.float()
    if at == "masks" and logits.shape[2:] != masks.shape[1:]:
        logits = F.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=False)
    elif logits.shape[2:] != masks.shape[1:]:
        masks = F.interpolate(masks[:, None].float(), logits.shape[2:], mode="nearest-exact")[:, 0]
    masks = masks.long()
    total = F.cross_entropy(logits, masks, ignore_index=ignore, reduction="sum")
    return total / (masks != ignore).sum().clamp(min=1)


def multiscale_loss(
    outputs: Sequence[Tensor], masks: Tensor, *, at: str = "logits", ignore: int = 255
) -> Tensor:
    """Return the sum of the `segmentation_loss` of several logits of the same images, each on its own grid.

    Source: Eq. (3) as deeplab-pytorch applies it (main.py): to three image sizes and their maximum.
    """
    if isinstance(outputs, Tensor) or not outputs:
        raise DataError("outputs are no list of logits: pass one tensor (images, classes, h, w) a size")
    return sum(segmentation_loss(logits, masks, at=at, ignore=ignore) for logits in outputs)
