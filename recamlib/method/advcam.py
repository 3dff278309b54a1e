"""Adversarial climbing (AdvCAM): what an image climbs, and one step of it."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.errors import DataError, SettingsError, nearest

Rivals = Literal["all", "present"]
Score = Literal["linear", "rectified"]
Penalty = Literal["pixels", "channels"]


def climbing_gain(
    features: Tensor,
    weight: Tensor,
    signs: Tensor,
    start: Tensor | None,
    *,
    mu: float,
    mask_threshold: float = 0.5,
    score: Score = "linear",
    penalty: Penalty = "pixels",
) -> tuple[Tensor, Tensor]:
    """What an image climbs: the score of its class over that of the others, its strongest region held still.

    Parameters
    ----------
    features
        Shape ``(P, 2, C, h, w)``: climbs, image and mirror image, channels, feature map.
    weight
        Classifier weights, shape ``(K, C)``.
    signs
        Shape ``(P, K)``: 1 for the class that is climbed, -1 for its rivals, 0 for classes left alone.
    start
        Maps of the image before the first step, shape ``(P, h, w)``, as returned; None at that step.
    mu
        Weight of what holds the region still.
    mask_threshold
        Share of the map's present maximum above which a pixel is held.
    score
        A class score is the mean over pixels of the map before (``"linear"``) or after (``"rectified"``) it
        is cut at 0. Scores are summed over the image and its mirror image.
    penalty
        The change of the map is summed over the held pixels and divided by the number of all pixels, so that
        it has the unit of the score (``"pixels"``), or by twice the number of the class's positive weights
        (``"channels"``).

    Returns
    -------
    Gain ``(P,)``, and maps ``(P, h, w)``: cut at 0, mirror image's added, not normalised.

    Raises
    ------
    SettingsError
        If `score` or `penalty` is unknown.
    DataError
        If the shapes do not fit.

    Notes
    -----
    Source: Eq. (10), with the mask from the moved image, as the text has it. A map without any activation
    holds nothing. Every class score comes from the weights that the map comes from, so for ReCAM from w''.

    The formula leaves the unit of the maps open, but mu = 7 stands for one of them: in the code of AdvCAM,
    the map is a Grad-CAM whose channel weights are the sum of a gradient over the number of its positive
    entries. For a linear head this is the ordinary map divided by ``"channels"``, up to the share that image
    and mirror image have of the active pixels (about a half each). That code climbs ``"rectified"`` scores.

    Examples
    --------
    One channel, two pixels, the mirror image the same. Two classes with weights 1 and 0.5: the score is
    2 * (3 - 1.5); the second pixel is held and its map was 6, now 8: 7 * 2 / 2 is taken off.

    >>> import torch
    >>> features = torch.tensor([[[[[2.0, 4.0]]], [[[4.0, 2.0]]]]])
    >>> weight, signs = torch.tensor([[1.0], [0.5]]), torch.tensor([[1.0, -1.0]])
    >>> climbing_gain(features, weight, signs, torch.tensor([[[4.0, 6.0]]]), mu=7)
    (tensor([-4.]), tensor([[[4., 8.]]]))
    """
    for name, value, known in (("score", score, get_args(Score)), ("penalty", penalty, get_args(Penalty))):
        if value not in known:
            raise SettingsError(f"unknown {name} {value!r}{nearest(value, known)}: use one of {known}")
    if (
        features.ndim != 5 or features.shape[1] != 2 or weight.ndim != 2
        or signs.shape != (len(features), len(weight)) or features.shape[2] != weight.shape[1]
        or (start is not None and start.shape != (len(features), *features.shape[3:]))
    ):  # fmt: skip
        raise DataError(
            f"features have shape {tuple(features.shape)}, weight {tuple(weight.shape)}, signs "
            f"{tuple(signs.shape)}; they must be (climbs, 2, channels, h, w), (classes, channels) and "
            "(climbs, classes), and start (climbs, h, w)"
        )
    own = weight[signs.argmax(1)]  # (P, C)
    pixels = features.shape[3] * features.shape[4]
    if score == "linear":
        scores = (features.mean((3, 4)).sum(1) * (signs @ weight)).sum(1)  # (P,)
    else:
        means = F.relu(weight @ features.flatten(3)).mean(3).sum(1)  # (P, 2, K, hw) -> (P, K)
        scores = (means * signs).sum(1)
    views = F.relu(own[:, None, None] @ features.flatten(3))[:, :, 0]  # (P, 2, hw)
    views = views.unflatten(2, features.shape[3:])
    maps = views[:, 0] + views[:, 1].flip(2)
    now = maps.detach()
    held = now > mask_threshold * now.amax((1, 2), keepdim=True)
    change = ((maps - (now if start is None else start)).abs() * held).sum((1, 2))
    unit = pixels if penalty == "pixels" else 2 * (own > 0).sum(1).clamp(min=1)
    return scores - mu * change / unit, maps


def step_up(images: Tensor, gradient: Tensor, low: Tensor, high: Tensor, *, step_size: float) -> Tensor:
    """Move images along a gradient by at most `step_size`, and keep their values in a range.

    Parameters
    ----------
    images, gradient
        Shape ``(P, 2, 3, H, W)``: climbs, image and mirror image.
    low, high
        Range of values, shape ``(P, 1, 1, 1, 1)``.
    step_size
        What the pixel with the largest gradient of its pair is moved by.

    Notes
    -----
    Source: Eq. (10), with the gradient divided by its largest absolute value as in the code of AdvCAM.

    Examples
    --------
    >>> import torch
    >>> image, gradient = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([1.0, -4.0, 2.0])
    >>> low, high = torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1)
    >>> step_up(image.view(1, 1, 1, 1, 3), gradient.view(1, 1, 1, 1, 3), low, high, step_size=0.4).flatten()
    tensor([0.1000, 0.1000, 1.0000])
    """
    peak = gradient.abs().amax((1, 2, 3, 4), keepdim=True)
    return torch.clamp(images + gradient * (step_size / (peak + 1e-12)), low, high)
