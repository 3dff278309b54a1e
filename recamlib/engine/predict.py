"""Predictions for whole images: a classifier's and a segmentation network's, the latter in windows."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.data.access import ImageSet
from recamlib.data.views import normalise, rescale
from recamlib.engine.extract import PRECISIONS, check_calls
from recamlib.errors import SettingsError
from recamlib.models.base import layout
from recamlib.models.classifier import CamClassifier

OVERLAP = 1 / 3  # share of a window that the next one sees again
Network = Callable[[Tensor], Tensor]


@torch.inference_mode()
def image_logits(model: CamClassifier, images: ImageSet, *, scale: float = 1.0) -> list[list[float]]:
    """Return class scores ``(N, K)`` of whole images, resized by `scale`, from a model in evaluation mode."""
    check_calls([], scales=[scale])
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows = []
    for name in images.ids:
        x = normalise(rescale(images.image(name), scale))[None]  # (1, 3, H, W)
        x = x.to(device, memory_format=layout(device))
        rows.append(model(x).float().squeeze(0).tolist())
    model.train(was_training)
    return rows


@torch.inference_mode()
def segment_image(
    network: Network, image: Tensor, *, scales: Sequence[float] = (1.0,), mirror: bool = False,
    window: int = 0, device: torch.device | str = "cpu", precision: str = "32-true",
) -> Tensor:  # fmt: skip
    """Return class probabilities ``(K + 1, H, W)`` of an image ``(3, H, W)``, uint8: float32, on the CPU.

    `network` takes normalised images ``(B, 3, h, w)`` to logits ``(B, K + 1, h', w')`` of any resolution. An
    image with a side longer than `window` pixels passes it in overlapping windows; 0 sets no bound. A network
    that gives two classes the same score everywhere:

    >>> network = lambda x: torch.zeros(len(x), 2, 2, 2)
    >>> segment_image(network, torch.zeros(3, 1, 2, dtype=torch.uint8)).tolist()
    [[[0.5, 0.5]], [[0.5, 0.5]]]
    """
    check_calls([image], scales=scales, precision=precision)
    if window and window < 32:
        raise SettingsError(f"window must be 0 (no bound) or at least 32 pixels, got {window}")
    dtype, size = PRECISIONS[precision], tuple(image.shape[1:])
    total = torch.zeros(())
    for scale in scales:
        view = normalise(rescale(image, scale))[None].to(device)  # (1, 3, h, w)
        views = torch.cat([view, view.flip(3)]) if mirror else view
        with torch.autocast(view.device.type, dtype=dtype) if dtype else nullcontext():
            logits = _windows(network, views, window)
        probabilities = logits.float().softmax(1)  # (1 or 2, K + 1, h, w)
        if mirror:
            probabilities = (probabilities[:1] + probabilities[1:].flip(3)) / 2
        total = total + _stretch(probabilities, size)[0].cpu()
    return total / len(scales)


def _windows(network: Network, views: Tensor, window: int) -> Tensor:
    """Return logits ``(B, K + 1, h, w)`` at the size of the views, in windows where a side is too long."""
    height, width = views.shape[2:]
    views = views.contiguous(memory_format=layout(views.device))
    if not window or max(height, width) <= window:
        return _stretch(network(views), (height, width))
    total, seen = torch.zeros(()), torch.zeros(height, width, device=views.device)
    for top in _starts(height, window):
        for left in _starts(width, window):
            rows, columns = slice(top, top + window), slice(left, left + window)
            part = views[:, :, rows, columns].contiguous(memory_format=layout(views.device))
            logits = _stretch(network(part), tuple(part.shape[2:])).float()
            if not total.ndim:
                total = logits.new_zeros(len(views), logits.shape[1], height, width)
            total[:, :, rows, columns] += logits
            seen[rows, columns] += 1
    return total / seen


def _starts(length: int, window: int) -> list[int]:
    """Return where windows begin so that they cover a side evenly."""
    if length <= window:
        return [0]
    count = math.ceil((length - window) / (window * (1 - OVERLAP))) + 1
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def _stretch(values: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=False)
