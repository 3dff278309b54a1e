"""Class activation maps: the equations of the paper as pure functions of features, weights and maps."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.errors import DataError, SettingsError, check_choice, check_shapes

OPTIONS = ("w", "w'", "w+w'", "w*w'")  # weight options of Eq. (9)
#: Weight options of our own, which cost no training: what a gain of Eq. (9) has to be compared with.
CONTROLS = ("relu(w)", "w*w", "w*random", "relu(w)*relu(w')")
Gap = Literal["pixels", "mask"]  # what the sum of Eq. (5) is divided by


def class_activation_maps(features: Tensor, weight: Tensor, *, eps: float = 1e-5) -> Tensor:
    """Return maps ``(B, K, h, w)``: the class score before pooling, cut at 0 and scaled to [0, 1).

    `features` have shape ``(B, C, h, w)``; classifier weights have ``(K, C)``, or ``(B, K, C)``, some an
    image. `eps` is added to the maximum. Differentiable in both arguments, through the maximum too.

    Source: Eq. (2), with the authors' 1e-5 in the denominator (net/resnet50_cam.py). One channel with values
    1, 2, -1 and weight 1:

    >>> class_activation_maps(torch.tensor([[[[1.0, 2.0, -1.0]]]]), torch.ones(1, 1), eps=0)
    tensor([[[[0.5000, 1.0000, 0.0000]]]])
    """
    axes = "images, classes, channels" if weight.ndim == 3 else "classes, channels"
    check_shapes(features=(features, "images, channels, h, w"), weight=(weight, axes))
    scores = F.relu(weight @ features.flatten(2))  # (B, K, h*w)
    scores = scores / (scores.amax(2, keepdim=True) + eps)
    return scores.unflatten(2, features.shape[2:])  # (B, K, h, w)


def class_features(features: Tensor, maps: Tensor, *, gap: Gap = "pixels", eps: float = 1e-5) -> Tensor:
    """Return the mean over pixels of the features, weighted by the map of each class: ``(B, K, C)``.

    Of features ``(B, C, h, w)`` and maps ``(B, K, h, w)``. The sum over pixels is divided by their number
    (``gap="pixels"``), or by the sum of the map plus `eps` (``"mask"``), so that the feature of a small
    object is as long as that of a large one.

    Source: Eq. (5) and the GAP of Eq. (6), which divides by ``h * w``; ``"mask"`` is our own.

    Two pixels; the first class looks at the first one, the second class at both.

    >>> maps = torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]])
    >>> class_features(torch.tensor([[[[4.0, 6.0]]]]), maps).tolist()
    [[[2.0], [5.0]]]
    """
    check_choice("gap", gap, get_args(Gap))
    check_shapes(features=(features, "images, channels, h, w"), maps=(maps, "images, classes, h, w"))
    sums = maps.flatten(2) @ features.flatten(2).mT  # (B, K, hw) @ (B, hw, C) -> (B, K, C)
    if gap == "pixels":
        return sums / math.prod(features.shape[2:])
    return sums / (maps.sum((2, 3))[..., None] + eps)


def combine_weights(fc1: Tensor, fc2: Tensor | None, option: str, *, seed: int = 0) -> Tensor:
    """Combine the weights of FC1 and FC2, ``(K, C)`` each, into those of the final map, ``(K, C)``.

    `fc1` and `fc2` are the paper's w and w'; options without w' take None for it. ``random`` is a layer of
    the shape of FC2 that nobody trained, drawn from `seed`. Source: below Eq. (9); `CONTROLS` are our own. In
    ``w*w'`` two negative weights count as evidence for the class, in ``relu(w)*relu(w')`` they do not.
    """
    check_choice("weight option", option, OPTIONS + CONTROLS)
    if fc2 is None and "w'" in option:
        raise SettingsError(f"weight option {option!r} needs w', the weights of FC2")
    other = fc1 if fc2 is None else fc2
    check_shapes(fc1=(fc1, "classes, channels"), fc2=(other, "classes, channels"))
    if option == "w*random":
        bound = fc1.shape[1] ** -0.5  # as torch starts a linear layer
        draws = torch.rand(fc1.shape, generator=torch.Generator().manual_seed(seed))
        return fc1 * ((2 * draws - 1) * bound).to(fc1)
    return {
        "w": lambda: fc1,
        "w'": lambda: other,
        "w+w'": lambda: fc1 + other,
        "w*w'": lambda: fc1 * other,
        "relu(w)": lambda: fc1.relu(),
        "w*w": lambda: fc1 * fc1,
        "relu(w)*relu(w')": lambda: fc1.relu() * other.relu(),
    }[option]()


def merge_scales(
    maps: Sequence[Tensor], size: tuple[int, int], *, stride: int | None = None, cell: int = 16,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Sum the maps of one image over scales and bring each class to a maximum of 1: ``(K, h, w)``, in [0, 1).

    `maps` are one ``(K, h_s, w_s)`` tensor a scale, not normalised; `size` is ``(H, W)`` of the image.
    `stride` is the number of its pixels per pixel of the result, rounded up, None for the image's own size;
    `cell` is the output stride of the network, to a multiple of which maps are stretched before they are cut.

    Source: step/make_cam.py of the authors' code.

    >>> merge_scales([torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[1.0]]])], (1, 8), stride=4, eps=0)
    tensor([[[0.5000, 1.0000]]])
    """
    shapes = [tuple(m.shape) for m in maps]
    if not shapes or any(len(s) != 3 or s[0] != shapes[0][0] for s in shapes):
        raise DataError(f"maps have shapes {shapes}, expected (classes, h, w) for each scale of one image")
    if min(*size, cell, 1 if stride is None else stride) < 1:
        raise SettingsError(f"size is {tuple(size)}, stride {stride} and cell {cell}: all must be 1 or more")
    if stride is None:
        (height, width), target = size, [math.ceil(side / cell) * cell for side in size]
    else:
        height, width = target = [math.ceil(side / stride) for side in size]
    if not maps[0].shape[0]:
        return maps[0].new_zeros(0, height, width)
    merged = sum(F.interpolate(m[None], target, mode="bilinear", align_corners=False)[0] for m in maps)
    merged = merged[:, :height, :width]  # (K, h, w)
    return merged / (merged.amax((1, 2), keepdim=True) + eps)
