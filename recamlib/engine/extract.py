"""Maps of whole photographs: several scales, each image with its mirror image, many images at once."""

import math
from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.data.views import normalise, rescale
from recamlib.errors import DataError, SettingsError, check_choice, check_shapes
from recamlib.models.base import Backbone, fold_batch_norm, layout
from recamlib.models.classifier import CamClassifier

#: Precisions of the forward pass, in the names of Lightning Fabric.
PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
#: Sides, in pixels, that a rescaled image is padded to at least and shrunk to at most before the network.
SMALLEST, LONGEST = 32, 2048
ON_CPU = 2**19  # pixels that share a forward pass, mirror images counted: they should fit the caches


def extract_scale_maps(
    model: CamClassifier, images: Sequence[Tensor], weights: Tensor, *, classes: Sequence[Tensor],
    background: Tensor | None = None, scales: Sequence[float] = (1.0, 0.5, 1.5, 2.0),
    precision: str = "32-true",
) -> list[list[Tensor]]:  # fmt: skip
    """Return maps of the classes present at several scales, each summed with those of the mirror image.

    One list an image, one tensor ``(N, P, h_s, w_s)`` a scale: float32, on the CPU, not normalised.

    Images are ``(3, H, W)``, uint8; `weights` ``(N, K, C)`` are as many weight options as wanted; `classes`
    are the indices of those present in each image, ``(P,)``, perhaps none. With `background`, the weights
    ``(C,)`` of a background channel, a map is the share of its class in a softmax over all classes and the
    background in each cell, as EPS reads its maps (facts of its infer.py); without, it is the score,
    cut at 0. `precision` is one of `PRECISIONS`.

    Source: step/make_cam.py of the authors' code. Limits of our own: a rescaled image with a side below 32
    pixels is padded with the mean colour, and one with a side above 2048 is shrunk to that.
    """
    check_shapes(weights=(weights, "options, classes, channels"), fc1=(model.fc1.weight, "outputs, channels"))
    check_calls(images, classes, count=weights.shape[1], scales=scales, precision=precision)
    device = model.fc1.weight.device
    weights = weights.to(device, torch.float32)
    classes = [torch.as_tensor(c, dtype=torch.long, device=device) for c in classes]
    backbone = fold_batch_norm(model.backbone)
    maps: list[list[Tensor]] = [[] for _ in images]
    with torch.inference_mode():
        for scale in scales:
            for group, views in batches(images, scale, device):
                features = _paired_features(backbone, views, dtype=PRECISIONS[precision])
                for i, pair in zip(group, features, strict=True):
                    maps[i].append(pair_maps(pair, weights, classes[i], background=background).cpu())
    return [[m.clone() for m in own] for own in maps]  # clones may be changed in place, unlike these


def pair_maps(pair: Tensor, weights: Tensor, classes: Tensor, *, background: Tensor | None = None) -> Tensor:
    """Return the sum of the maps ``(N, P, h, w)`` of an image and its mirror, features ``(2, C, h, w)``."""
    if background is None:
        maps = F.relu(_scores(pair, weights[:, classes]))  # (2, N, P, h, w)
    else:
        rivals = background.to(weights).expand(len(weights), 1, -1)  # (N, 1, C)
        maps = _scores(pair, torch.cat([weights, rivals], 1)).softmax(2)[:, :, classes]
    return maps[0] + maps[1].flip(3)


@torch.inference_mode()
def image_features(
    backbone: Backbone, images: Sequence[Tensor], *, scale: float = 1.0, mirror: bool = False
) -> list[Tensor]:
    """Return features of whole images ``(3, H, W)``, uint8, resized by `scale`.

    One tensor an image, ``(1, C, h, w)``, or ``(2, C, h, w)`` with its mirror image: float32, on the CPU.
    """
    check_calls(images, scales=[scale])
    features: dict[int, Tensor] = {}
    for group, views in batches(images, scale, next(backbone.parameters()).device):
        if mirror:
            given = _paired_features(backbone, views, dtype=None)
        else:
            given = padded_features(backbone, views, dtype=None)[:, None]
        features |= {i: each.cpu().clone() for i, each in zip(group, given, strict=True)}
    return [features[i] for i in range(len(images))]


def check_calls(
    images: Sequence[Tensor], classes: Sequence[Sequence[int]] | None = None, *, count: int = 0,
    scales: Sequence[float], precision: str = "32-true",
) -> None:  # fmt: skip
    """Raise unless every image is ``(3, H, W)``, uint8, and comes with indices of its classes, each once."""
    if not len(scales) or not all(0 < scale < math.inf for scale in scales):
        raise SettingsError(f"scales must be numbers above 0, at least one, got {tuple(scales)}")
    check_choice("precision", precision, PRECISIONS)
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or not image.numel() or image.dtype != torch.uint8:
            came = f"image {i} is {image.dtype} of shape {tuple(image.shape)}, expected uint8 of (3, H, W)"
            raise DataError(f"{came}: multiply values in [0, 1] by 255")
    if classes is None:
        return
    if len(classes) != len(images):
        raise DataError(f"{len(images)} images came with {len(classes)} lists of classes: one an image")
    for i, present in enumerate(map(torch.as_tensor, classes)):
        listed = present.tolist()
        whole = present.ndim == 1 and (not listed or "int" in str(present.dtype))
        if not whole or len(set(listed)) < len(listed) or not set(listed) <= set(range(count)):
            came = f"classes of image {i} are {listed}, expected indices from 0 to {count - 1}, each once"
            raise DataError(f"{came}: of multi-hot labels take labels.nonzero()[:, 0]")


def batches(
    images: Sequence[Tensor], scale: float, device: torch.device, *, on_gpu: int = 2**23
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield numbers and normalised views ``(n, 3, h, w)`` of images of one size, all of them in the end."""
    pixels = ON_CPU if device.type == "cpu" else on_gpu
    by_size: dict[tuple[int, ...], list[int]] = {}
    for i, image in enumerate(images):
        by_size.setdefault(tuple(image.shape[1:]), []).append(i)
    for (height, width), members in by_size.items():
        most = max(1, int(pixels // (2 * height * width * scale * scale)))
        for start in range(0, len(members), most):
            group = members[start : start + most]
            batch = torch.stack([images[i] for i in group])  # (n, 3, H, W), resized on the CPU, as by Pillow
            yield group, normalise(rescale(batch, min(scale, LONGEST / max(height, width))).to(device))


def _paired_features(backbone: Backbone, views: Tensor, *, dtype: torch.dtype | None) -> Tensor:
    """Return features ``(n, 2, C, h, w)`` of normalised views ``(n, 3, H, W)`` and of their mirror images."""
    views = torch.stack([views, views.flip(3)], 1).flatten(0, 1)  # (2n, 3, H, W), mirror after image
    return padded_features(backbone, views, dtype=dtype).unflatten(0, (-1, 2))


def padded_features(backbone: Backbone, views: Tensor, *, dtype: torch.dtype | None) -> Tensor:
    """Return features ``(n, C, h, w)``, float32, of normalised views ``(n, 3, H, W)``, however small."""
    autocast = torch.autocast(views.device.type, dtype=dtype) if dtype else nullcontext()
    height, width = views.shape[2:]
    small = min(height, width) < SMALLEST
    if small:
        views = F.pad(views, (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height)))
    with autocast:
        features = backbone(views.contiguous(memory_format=layout(views.device))).float()
    if small:
        stride = backbone.output_stride
        features = features[:, :, : math.ceil(height / stride), : math.ceil(width / stride)]
    return features


def _scores(pair: Tensor, weight: Tensor) -> Tensor:
    """Return scores ``(2, N, P, h, w)`` of features ``(2, C, h, w)`` and weights ``(N, P, C)``."""
    flat = weight.flatten(0, 1) @ pair.flatten(2)  # (2, N*P, h*w)
    return flat.unflatten(2, pair.shape[2:]).unflatten(1, weight.shape[:2])
