"""AdvCAM as its authors run it: class after class, Grad-CAM by one backward pass, the step by another."""

import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.data.views import normalise, rescale
from recamlib.models.classifier import CamClassifier


def adversarial_maps(
    model: CamClassifier,
    image: Tensor,
    weight: Tensor,
    *,
    classes: list[int],
    scales: tuple[float, ...],
    steps: int,
    step_size: float = 0.08,
    mu: float = 7.0,
    mask_threshold: float = 0.5,
    rivals: str = "all",
    score: str = "linear",
    penalty: str = "pixels",
) -> list[Tensor]:
    """Un-normalised maps ``(P, h_s, w_s)`` of one image summed over its AdvCAM steps, scale after scale.

    Every pass fills the gradients of all parameters, as they are never switched off.
    """
    found = []
    for scale in scales:
        half = scale == 0.5
        view = normalise(rescale(image, scale))
        maps = [
            (2 if half else 1)
            * _advcam_steps(
                model, view, weight, k, classes if rivals == "present" else list(range(len(weight))),
                steps=max(1, steps // 2) if half else steps, step_size=step_size, mu=mu,
                mask_threshold=mask_threshold, score=score, penalty=penalty,
            )
            for k in classes
        ]  # fmt: skip
        found.append(torch.stack(maps))
    return found


def _advcam_steps(
    model: CamClassifier,
    view: Tensor,
    weight: Tensor,
    k: int,
    compared: list[int],
    *,
    steps: int,
    step_size: float,
    mu: float,
    mask_threshold: float,
    score: str,
    penalty: str,
) -> Tensor:
    low, high = view.min(), view.max()
    x = torch.stack([view, view.flip(2)])  # (2, 3, H, W)
    total = start = None
    for step in range(steps + 1):
        x = x.detach().requires_grad_()
        features = model.features(x)
        features.retain_grad()
        pixels = features[0, 0].numel()
        planes = F.conv2d(features, weight[:, :, None, None])  # (2, K, h, w)
        model.zero_grad()
        planes[:, k].mean((1, 2)).sum().backward(retain_graph=True)  # through the network, as Grad-CAM does
        share = features.grad.mean((2, 3), keepdim=True)  # (2, C, 1, 1): weight / pixels
        grad_cam = F.relu((features * share).sum(1))  # (2, h, w)
        grad_cam = grad_cam[0] + grad_cam[1].flip(1)
        region = grad_cam.detach() * pixels
        total = region if total is None else total + region
        start = grad_cam.detach() if start is None else start
        if step == steps:
            return total
        planes = F.relu(planes) if score == "rectified" else planes
        scores = planes.mean((2, 3)).sum(0)  # (K,)
        mask = grad_cam.detach() / grad_cam.max().detach() > mask_threshold
        change = ((grad_cam - start).abs() * mask).sum()
        if penalty == "channels":
            change = change * pixels / (2 * (weight[k] > 0).sum())
        loss = scores[k] - sum(scores[j] for j in compared if j != k) - mu * change
        model.zero_grad()
        x.grad.zero_()
        loss.backward()
        x = x + step_size * x.grad / x.grad.abs().max()
        x = x.clamp(low, high)
