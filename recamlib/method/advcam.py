"""AdvCAM: the gain that an image is moved to raise, and one step along its gradient."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.errors import check_choice, check_shapes

Rivals = Literal["all", "present"]
Score = Literal["linear", "rectified"]
Penalty = Literal["pixels", "channels"]


def advcam_gain(
    features: Tensor, weight: Tensor, signs: Tensor, start: Tensor | None, *, mu: float,
    mask_threshold: float = 0.5, score: Score = "linear", penalty: Penalty = "pixels",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return gains ``(P,)``, the score of a class over the others with its strongest region held, and maps.

    Maps ``(P, h, w)`` are cut at 0, summed with those of the mirror image, and not normalised. `features` are
    ``(P, 2, C, h, w)``: P pairs of an image and its mirror image. Every score comes from `weight` ``(K, C)``,
    so for ReCAM from w''. `signs` ``(P, K)`` are 1 for the class whose score rises, -1 for its rivals, 0 for
    classes left alone; `start` are the maps before the first step, None at that step.

    `mu` weighs what holds the region still: the pixels above `mask_threshold` times the present maximum of
    the map. `score` is the mean of the map before (``"linear"``) or after (``"rectified"``) it is cut at 0.
    The change of held pixels is divided by the number of all pixels (``penalty="pixels"``), or by twice the
    number of positive weights of the class (``"channels"``).

    Source: Eq. (10), with the mask from the moved image, as the text has it. The formula leaves the unit of
    the maps open; in the code of AdvCAM, whose mu is 7, the map is a Grad-CAM: for a linear head the ordinary
    map divided by ``"channels"``, up to the share that image and mirror image have of the active pixels. That
    code raises ``"rectified"`` scores.

    One channel, two pixels, the mirror image the same. Two classes with weights 1 and 0.5: the score is 2 *
    (3 - 1.5); the second pixel is held and its map was 6, now 8: 7 * 2 / 2 is taken off.

    >>> features = torch.tensor([[[[[2.0, 4.0]]], [[[4.0, 2.0]]]]])
    >>> weight, signs = torch.tensor([[1.0], [0.5]]), torch.tensor([[1.0, -1.0]])
    >>> advcam_gain(features, weight, signs, torch.tensor([[[4.0, 6.0]]]), mu=7)
    (tensor([-4.]), tensor([[[4., 8.]]]))
    """
    check_choice("score", score, get_args(Score))
    check_choice("penalty", penalty, get_args(Penalty))
    shapes = {"features": (features, "pairs, 2, channels, h, w"), "weight": (weight, "classes, channels")}
    first = {} if start is None else {"start": (start, "pairs, h, w")}
    check_shapes(**shapes, signs=(signs, "pairs, classes"), **first)
    own = weight[signs.argmax(1)]  # (P, C)
    pixels = features.shape[3] * features.shape[4]
    if score == "linear":
        scores = (features.mean((3, 4)).sum(1) * (signs @ weight)).sum(1)  # (P,)
    else:
        means = F.relu(weight @ features.flatten(3)).mean(3).sum(1)  # (P, 2, K, hw) -> (P, K)
        scores = (means * signs).sum(1)
    views = F.relu(own[:, None, None] @ features.flatten(3)).unflatten(3, features.shape[3:])[:, :, 0]
    maps = views[:, 0] + views[:, 1].flip(2)
    now = maps.detach()
    held = now > mask_threshold * now.amax((1, 2), keepdim=True)
    change = ((maps - (now if start is None else start)).abs() * held).sum((1, 2))
    unit = pixels if penalty == "pixels" else 2 * (own > 0).sum(1).clamp(min=1)
    return scores - mu * change / unit, maps


def advcam_step(images: Tensor, gradient: Tensor, low: Tensor, high: Tensor, *, step_size: float) -> Tensor:
    """Move pairs of images ``(P, 2, 3, H, W)`` along a gradient, within a range ``(P, 1, 1, 1, 1)``.

    The pixel with the largest gradient of its pair moves by `step_size`. Source: Eq. (10), with the gradient
    divided by its largest absolute value as in the code of AdvCAM.

    >>> image, gradient = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, -4.0, 2.0])
    >>> low, high = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    >>> image, gradient = (x.view(1, 1, 1, 1, 3) for x in (image, gradient))
    >>> advcam_step(image, gradient, low, high, step_size=0.4).flatten()
    tensor([0.1000, 0.1000, 1.0000])
    """
    peak = gradient.abs().amax((1, 2, 3, 4), keepdim=True)
    return torch.clamp(images + gradient * (step_size / (peak + 1e-12)), low, high)
