"""AdvCAM: maps of photographs that are moved, step by step, to where a class is recognised better."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from recamlib.engine.extract import PRECISIONS, batches, check_calls, padded_features
from recamlib.errors import RecamError, SettingsError, check_choice, check_shapes
from recamlib.method.advcam import Penalty, Rivals, Score, advcam_gain, advcam_step
from recamlib.models.base import fold_batch_norm
from recamlib.models.classifier import CamClassifier

HALF_SCALE = 0.5  # takes half the steps, rounded down but at least 1, and its maps count double


@torch.inference_mode(False)  # gradients are needed, wherever it is called from
@torch.enable_grad()
def adversarial_maps(
    model: CamClassifier, images: Sequence[Tensor], weight: Tensor, *, classes: Sequence[Tensor],
    scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0), steps: int = 27, step_size: float = 0.08,
    mu: float = 7.0, mask_threshold: float = 0.5, rivals: Rivals = "all", score: Score = "linear",
    penalty: Penalty = "pixels", precision: str = "32-true",
) -> list[list[Tensor]]:  # fmt: skip
    """Return maps of the classes present in each image, summed over the AdvCAM steps of each class.

    One list an image, one tensor ``(P, h_s, w_s)`` a scale: float32, on the CPU, not normalised.

    What is not named here is as in :func:`recamlib.engine.extract.extract_scale_maps` and
    `recamlib.method.advcam.advcam_gain`. `weight` ``(K, C)`` is the paper's w, or any w'' of
    `recamlib.method.maps.combine_weights`. An image is moved `steps` times, a normalised value by `step_size`
    at most, and each time one map more is summed; scale 0.5 takes half the steps and its maps count double.
    `rivals`, whose scores are to fall, are ``"all"`` other classes, or those ``"present"`` in the image.

    Source: Eq. (10); obtain_CAM_masking.py of AdvCAM, which takes one class after the other, each map from a
    backward pass of its own. Rounding grows with every step, because a pixel that crosses the mask or a kink
    of the network changes the next gradient: after three steps the literal loop in single precision is 3.5e-2
    of the maximum away from itself in double, this function 4e-3. That code leaves the map of the last step
    out, and its factor of 2, once set at scale 0.5, stays for the scales after it.
    """
    check_shapes(fc1=(model.fc1.weight, "classes, channels"), weight=(weight, "classes, channels"))
    check_calls(images, classes, count=len(weight), scales=scales, precision=precision)
    check_choice("rivals", rivals, get_args(Rivals))
    if not (steps >= 1 and step_size > 0 and mu >= 0 and 0 < mask_threshold < 1):
        came = f"steps is {steps}, step_size {step_size}, mu {mu}, mask_threshold {mask_threshold}"
        raise SettingsError(f"{came}: expected 1 or more, above 0, 0 or more, and between 0 and 1")
    device, stride = model.fc1.weight.device, model.backbone.output_stride
    weight = weight.detach().clone().to(device, torch.float32)
    owners = [(i, int(k)) for i, present in enumerate(classes) for k in present]  # image and class
    pictures = [images[i] for i, _ in owners]
    signs = _signs(owners, len(weight), rivals).to(device)  # (owners, K)
    maps: list[list[Tensor]] = [[] for _ in images]
    frozen = fold_batch_norm(model.backbone).requires_grad_(False)
    network = partial(padded_features, frozen, dtype=PRECISIONS[precision])
    held = {"mu": mu, "mask_threshold": mask_threshold, "score": score, "penalty": penalty}
    gain = partial(advcam_gain, weight=weight, **held)
    for scale in scales:
        taken, counted = (max(1, steps // 2), 2) if scale == HALF_SCALE else (steps, 1)
        sums = {}
        for group, views in batches(pictures, scale, device, on_gpu=2**22):
            names = [f"class {owners[n][1]} of image {owners[n][0]}, scale {scale}" for n in group]
            total = _summed_maps(network, gain, views, signs[group], names, steps=taken, step_size=step_size)
            sums |= zip(group, counted * total.cpu(), strict=True)
        for i, image in enumerate(images):
            empty = torch.zeros(0, *(math.ceil(side * scale / stride) for side in image.shape[1:]))
            own = [sums[n] for n, (owner, _) in enumerate(owners) if owner == i]
            maps[i].append(torch.stack(own) if own else empty)
    return maps


def _summed_maps(
    network: Callable[[Tensor], Tensor], gain: Callable[..., tuple[Tensor, Tensor]], views: Tensor,
    signs: Tensor, names: list[str], *, steps: int, step_size: float,
) -> Tensor:  # fmt: skip
    """Return the maps ``(P, h, w)`` of normalised views ``(P, 3, H, W)``, summed over their steps."""
    low, high = (limit(views, (1, 2, 3), keepdim=True)[:, None] for limit in (torch.amin, torch.amax))
    x = torch.stack([views, views.flip(3)], 1)  # (P, 2, 3, H, W), mirror after image
    start, total, finite = None, 0, True
    for step in range(steps + 1):
        last = step == steps
        with torch.set_grad_enabled(not last):
            features = network(x.requires_grad_(not last).flatten(0, 1)).unflatten(0, (-1, 2))
            gains, maps = gain(features, signs=signs, start=start)
        start = maps.detach() if start is None else start
        total = total + maps.detach()
        if not last:
            # Only the direction counts: multiplied by the pixels, it does not vanish in half precision.
            gradient = torch.autograd.grad(gains.sum() * maps[0].numel(), x)[0]
            finite = finite & gradient.isfinite().flatten(1).all(1)  # looked at once: a GPU need not wait
            x = advcam_step(x.detach(), gradient, low, high, step_size=step_size)
    if not finite.all():
        came = f"the gradient for {names[int(finite.int().argmin())]} is not finite"
        raise RecamError(f"{came}: check that all weights are, and use precision 32-true")
    return total


def _signs(owners: list[tuple[int, int]], count: int, rivals: Rivals) -> Tensor:
    """Return ``(len(owners), K)``: 1 for the class of each (image, class), -1 for its rivals, else 0."""
    signs = torch.zeros(len(owners), count)
    for row, (image, own) in zip(signs, owners, strict=True):
        row[slice(None) if rivals == "all" else [k for i, k in owners if i == image]] = -1
        row[own] = 1
    return signs
