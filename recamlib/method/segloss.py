"""The loss of a segmentation network: pixels against pseudo masks."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from recamlib.engine.processes import mean_over_processes
from recamlib.errors import DataError, SettingsError, nearest

PLACES = ("logits", "masks")
"""Grids that the two sides can be compared on."""


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
    _check(logits, masks, at=at, ignore=ignore)
    logits = logits.float()
    if at == "masks":
        if logits.shape[2:] != masks.shape[1:]:
            logits = F.interpolate(logits, masks.shape[1:], mode="bilinear", align_corners=False)
    elif logits.shape[2:] != masks.shape[1:]:
        masks = F.interpolate(masks[:, None].float(), logits.shape[2:], mode="nearest-exact")[:, 0]
    masks = masks.long()
    total = F.cross_entropy(logits, masks, ignore_index=ignore, reduction="sum")
    return total / mean_over_processes((masks != ignore).sum()).clamp(min=1)


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
    if not outputs:
        raise DataError("there are no logits to compare with the masks: pass a list with at least one tensor")
    return sum(segmentation_loss(logits, masks, at=at, ignore=ignore) for logits in outputs)


def _check(logits: Tensor, masks: Tensor, *, at: str, ignore: int) -> None:
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
