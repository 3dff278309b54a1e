"""Two ways to put a saliency map to use: EPS trains on it (ReCAM-E), EDAM merges it into maps (ReCAM-M)."""

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from recamlib.errors import SettingsError, check_multi_hot, check_shapes, check_shares
from recamlib.method.crf import as_array


def eps_loss(
    scores: Tensor, saliency: Tensor, labels: Tensor, *, overlap: float = 0.4, share: float = 0.5
) -> Tensor:
    """Return how far the saliency that class maps and background map stand for is from the given one.

    A scalar: the squared error of ``share * foreground + (1 - share) * (1 - background)``, mean over cells
    and images. A class that is present counts as foreground if more than `overlap` of the cells it claims
    (probability above one half) are salient (above one half), else as background; absent classes are on
    neither side. No gradient passes through this choice.

    `scores` are those of every cell before the softmax, ``(B, K + 1, h, w)``: classes and, last, background.
    `saliency` is in [0, 1], ``(B, H, W)``, any size: its mean over each cell counts. `labels` are multi-hot,
    ``(B, K)``.

    Source: EPS, "Railroad Is Not a Train" (CVPR 2021), which ReCAM-E adds to its losses. Facts followed from
    its public code (eps.py): the softmax over K + 1 channels, the rounding, the division by the claimed cells
    plus 1e-4, the sides of absent classes. It takes the first pixel of the saliency per cell, not the mean.

    One class on two cells, sure of the first. Salient there: 0.9 for 1 and 0.1 for 0. Salient on the other
    one: the class turns background, so everything is, and 0 stands for 1 there.

    >>> import torch
    >>> scores = torch.tensor([[[[0.9, 0.1]], [[0.1, 0.9]]]]).log()
    >>> present = torch.tensor([[1]])
    >>> [round(eps_loss(scores, torch.tensor([[s]]), present).item(), 4) for s in ([1.0, 0.0], [0.0, 1.0])]
    [0.01, 0.5]
    """
    if not (0 <= overlap <= 1 and 0 <= share <= 1):
        raise SettingsError(f"overlap is {overlap} and share {share}: both are shares, from 0 to 1")
    check_shapes(
        labels=(labels, "images, classes"),
        scores=(scores, "images, classes + 1, h, w"),
        saliency=(saliency, "images, H, W"),
    )
    check_multi_hot(labels)
    check_shares("saliency", saliency, hint="divide grey values by 255")
    saliency = saliency.to(scores.dtype)
    target = F.interpolate(saliency[:, None], scores.shape[2:], mode="area")[:, 0]  # (B, h, w)
    shares = scores.softmax(1)  # (B, K + 1, h, w)
    claimed = shares[:, :-1].detach().round().flatten(2)  # (B, K, h*w)
    salient = target.round().flatten(1)[:, None]  # (B, 1, h*w)
    overlaps = (claimed * salient).sum(2) / (claimed.sum(2) + 1e-4)  # (B, K)
    present = labels.to(shares.dtype)
    front = present * (overlaps > overlap)  # (B, K)
    foreground = (shares[:, :-1] * front[..., None, None]).sum(1)  # (B, h, w)
    background = shares[:, -1] + (shares[:, :-1] * (present - front)[..., None, None]).sum(1)
    return F.mse_loss(share * foreground + (1 - share) * (1 - background), target)


def edam_merge(
    maps: np.ndarray, saliency: np.ndarray, *, theta: float = 0.2, alpha: float = 1e-6, beta: float = 0.99999
) -> np.ndarray:
    """Return which map wins, as 1 .. P, or 0 where the image is not salient: ``(H, W)``, uint8.

    Of maps ``(P, H, W)``, in [0, 1], each with peak 1, the first of equals wins. A pixel of saliency
    ``(H, W)``, in [0, 1], of `theta` or less is background, compared as float32. A map below `alpha` is no
    candidate, even where the image is salient; one above `beta` beats the background, even where it is not.

    Source: the post-processing of EDAM (CVPR 2021), which ReCAM-M applies to ReCAM. Facts followed from its
    public code (infer_cls.py): the background scores 1 or 0, dropped maps -2, certain ones 2, the highest
    wins, and the first of equals. There the merge has no effect on the masks after CRF.

    The last two pixels are salient. The first one is certain, the second is not, nobody wants the fourth.

    >>> maps = np.array([[[1.0, 0.9, 0.3, 0.0]], [[0.0, 0.0, 0.4, 0.0]]])
    >>> edam_merge(maps, np.array([[0.1, 0.2, 0.5, 0.9]]))
    array([[1, 0, 2, 0]], dtype=uint8)
    """
    maps, saliency = as_array(maps), as_array(saliency)
    check_shapes(maps=(maps, "classes, height, width"), saliency=(saliency, "height, width"))
    check_shares("saliency", saliency, hint="divide grey values by 255")
    check_shares("maps", maps, hint="merge_scales brings them there")
    if not (0 <= theta <= 1 and 0 <= alpha <= beta):
        came = f"theta is {theta}, alpha {alpha} and beta {beta}"
        raise SettingsError(f"{came}: expected 0 <= theta <= 1, 0 <= alpha <= beta")
    scores = np.where(maps < alpha, -2.0, np.where(maps > beta, 2.0, maps))  # (P, H, W)
    background = saliency.astype(np.float32) <= np.float32(theta)  # (H, W)
    return np.concatenate([background[None].astype(float), scores]).argmax(0).astype(np.uint8)
