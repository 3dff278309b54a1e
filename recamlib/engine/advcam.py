"""Maps of photographs that are moved, step by step, to where a class is recognised better (AdvCAM)."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from recamlib.data.views import IMAGENET_MEAN, IMAGENET_STD, normalise, rescale
from recamlib.engine.extract import (
    LONGEST,
    PRECISIONS,
    _groups,
    check_classes,
    check_images,
    check_passes,
    padded_features,
)
from recamlib.errors import DataError, RecamError, SettingsError, nearest
from recamlib.method.advcam import Penalty, Rivals, Score, climbing_gain, step_up
from recamlib.models.classifier import CamClassifier
from recamlib.models.fold import fold_batch_norm

HALF_SCALE = 0.5
"""The scale that takes half the steps, rounded down but at least 1, and whose maps count double."""


@torch.inference_mode(False)  # gradients are needed, wherever it is called from
@torch.enable_grad()
def adversarial_maps(
    model: CamClassifier,
    images: Sequence[Tensor],
    weight: Tensor,
    *,
    classes: Sequence[Tensor],
    scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0),
    steps: int = 27,
    step_size: float = 0.08,
    mu: float = 7.0,
    mask_threshold: float = 0.5,
    rivals: Rivals = "all",
    score: Score = "linear",
    penalty: Penalty = "pixels",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    precision: str = "32-true",
    pixels_per_batch: int | None = None,
) -> list[list[Tensor]]:
    """Maps of the classes present in each image, summed over the steps of a climb for each of the classes.

    Parameters
    ----------
    model
        Gives the features; its device is used. It comes back as it was.
    images
        Shape ``(3, H, W)`` each, uint8.
    weight
        Shape ``(K, C)``: the paper's w, or any w'' of `recamlib.method.maps.combine_weights`.
    classes
        Indices of the classes present in each image, shape ``(P,)`` each; may be empty.
    scales
        Factors that each image is resized by. Scale 0.5 takes half the steps and its maps count double.
    steps
        How often an image is moved: one map more is summed.
    step_size
        Largest change of a normalised value in a step.
    mu, mask_threshold, score, penalty
        See `recamlib.method.advcam.climbing_gain`.
    rivals
        Scores that are climbed down: those of ``"all"`` other classes, or of the others that are
        ``"present"`` in the image.
    mean, std
        Of the pixels in [0, 1], one value a channel.
    precision
        ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``.
    pixels_per_batch
        Pixels, mirror images counted, that share a pass; an image and its mirror image always do. None
        chooses 2**19 on a CPU and 2**22 elsewhere.

    Returns
    -------
    One list an image, one tensor ``(P, h_s, w_s)`` a scale: float32, on the CPU, not normalised. They go
    into `recamlib.method.maps.merge_scales`.

    Raises
    ------
    SettingsError
        If a setting is unknown or out of range.
    DataError
        If images are not uint8, or `weight` or `classes` do not fit.
    RecamError
        If a gradient is not finite.

    Notes
    -----
    Source: Eq. (10); obtain_CAM_masking.py of AdvCAM, which climbs one class after the other, takes each map
    from a backward pass of its own and fills the gradients of all parameters. Here a step is one forward and
    one backward pass to the image alone, for several climbs at once. Rounding grows with every step, because
    a pixel that crosses the mask or a kink of the network changes the next gradient: with MobileNetV2 on
    188 x 250 pixels the literal loop in single precision is 1.8e-4 of the maximum away from itself in double
    after one step and 3.5e-2 after three, this function 2e-6 and 4e-3. That code leaves the map of the last
    step out, and its factor of 2, once set at scale 0.5, stays for the scales after it.
    """
    numbers = {"steps": steps, "step_size": step_size, "mu": mu, "mask_threshold": mask_threshold}
    _check(model, weight, **numbers)
    check_images(images)
    check_classes(classes, images, count=len(weight))
    check_passes(scales, precision)
    for name, value, known in (
        ("rivals", rivals, get_args(Rivals)),
        ("score", score, get_args(Score)),
        ("penalty", penalty, get_args(Penalty)),
    ):
        if value not in known:
            raise SettingsError(f"unknown {name} {value!r}{nearest(value, known)}: use one of {known}")
    device, stride = model.fc1.weight.device, model.backbone.output_stride
    pixels = pixels_per_batch or (2**19 if device.type == "cpu" else 2**22)
    weight = weight.detach().clone().to(device, torch.float32)
    climbs = [(i, int(k)) for i, present in enumerate(classes) for k in present]
    signs = _signs(climbs, len(weight), rivals).to(device)  # (climbs, K)
    sizes = [tuple(images[i].shape[1:]) for i, _ in climbs]
    was_training = model.training
    found: list[list[Tensor]] = [[] for _ in images]
    try:
        frozen = copy.deepcopy(fold_batch_norm(model.eval().backbone)).requires_grad_(False)
        frozen = frozen.to(memory_format=torch.channels_last)
        network = partial(padded_features, frozen, dtype=PRECISIONS[precision])
        gain = partial(
            climbing_gain, weight=weight, mu=mu, mask_threshold=mask_threshold, score=score, penalty=penalty
        )
        for scale in scales:
            taken, counted = (max(1, steps // 2), 2) if scale == HALF_SCALE else (steps, 1)
            sums = {}
            for group in _groups(sizes, scale, pixels):
                batch = torch.stack([images[climbs[c][0]] for c in group]).to(device)  # (P, 3, H, W)
                views = normalise(rescale(batch, min(scale, LONGEST / max(batch.shape[2:]))), mean, std)
                names = [f"class {climbs[c][1]} of image {climbs[c][0]}, scale {scale}" for c in group]
                maps = _climb(network, gain, views, signs[group], names, steps=taken, step_size=step_size)
                sums |= zip(group, counted * maps.cpu(), strict=True)
            for i, image in enumerate(images):
                empty = torch.zeros(0, *(math.ceil(side * scale / stride) for side in image.shape[1:]))
                own = [sums[c] for c, (owner, _) in enumerate(climbs) if owner == i]
                found[i].append(torch.stack(own) if own else empty)
    finally:
        model.train(was_training)
    return found


def _climb(
    network: Callable[[Tensor], Tensor],
    gain: Callable[..., tuple[Tensor, Tensor]],
    views: Tensor,
    signs: Tensor,
    names: list[str],
    *,
    steps: int,
    step_size: float,
) -> Tensor:
    """Return the summed maps ``(P, h, w)`` of normalised views ``(P, 3, H, W)``, each climbing for itself."""
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
            x = step_up(x.detach(), gradient, low, high, step_size=step_size)
    if not finite.all():
        raise RecamError(
            f"the gradient for {names[int(finite.int().argmin())]} is not finite: check that the weights of "
            "network and classes are, and use precision 32-true"
        )
    return total


def _signs(climbs: list[tuple[int, int]], count: int, rivals: Rivals) -> Tensor:
    """Return ``(climbs, K)``: 1 for the class of each (image, class), -1 for its rivals, else 0."""
    signs = torch.zeros(len(climbs), count)
    for row, (image, own) in zip(signs, climbs, strict=True):
        row[slice(None) if rivals == "all" else [k for i, k in climbs if i == image]] = -1
        row[own] = 1
    return signs


def _check(model: CamClassifier, weight: Tensor, **settings: float) -> None:
    """Raise if the weight does not fit the model or a number is out of range."""
    if weight.shape != model.fc1.weight.shape:
        raise DataError(f"weight has shape {tuple(weight.shape)}, expected {tuple(model.fc1.weight.shape)}")
    for name, good, expected in (
        ("steps", settings["steps"] >= 1, "at least 1"),
        ("step_size", settings["step_size"] > 0, "more than 0"),
        ("mu", settings["mu"] >= 0, "at least 0"),
        ("mask_threshold", 0 < settings["mask_threshold"] < 1, "between 0 and 1"),
    ):
        if not good:
            raise SettingsError(f"{name} is {settings[name]}, expected a number {expected}")
