"""One photograph of one's own: CAM, ReCAM and pseudo mask from stored heads on an ImageNet backbone."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.colors import to_rgb
from safetensors.torch import load_file

from recamlib.data.images import read_image, write_mask
from recamlib.data.labels import VOC12
from recamlib.engine.extract import image_features, pair_maps
from recamlib.errors import RecamError, check_choice
from recamlib.method.maps import combine_weights, merge_scales
from recamlib.models import __path__ as models_path
from recamlib.models.backbones import build_backbone
from recamlib.models.base import fold_batch_norm
from recamlib.report.plots import CLASS_COLOURS, gallery, overlay
from recamlib.stages.maps import BACKGROUND, WeightOption
from recamlib.stages.segment import to_mask

HEADS = Path(models_path[0]) / "voc12_heads_mobilenet_v2.safetensors"  # made by scripts/pack_heads.py
LONG_SIDE = 250  # pixels: half of a usual VOC photograph, the size that the heads were trained at
SEEN = 0.5  # probability above which a class counts as seen


class PhotoMaps(NamedTuple):
    """What the heads say of one photograph."""

    image: np.ndarray  # (H, W, 3), uint8
    classes: tuple[str, ...]
    scores: tuple[float, ...]  # their probabilities
    cam: np.ndarray  # (P, H, W) in [0, 1], one map a class
    recam: np.ndarray
    mask: np.ndarray  # (H, W), uint8, 0 background, else 1 + the index in VOC


def map_photo(
    photo: str | Path, *, classes: Sequence[str] = (), weights: WeightOption = "w*w'",
    backbone_weights: str = "mobilenet_v2_imagenet",
) -> PhotoMaps:  # fmt: skip
    """Return CAM, ReCAM and pseudo mask of a photograph, for the twenty classes of VOC.

    The heads are those of ``recam run 02 --profile mini``, the threshold is the published 0.21. Without
    `classes` those count that FC1 is surer of than not. `weights` are those that ReCAM is read with (Eq. 9),
    `backbone_weights` of MobileNetV2: a file, a name in the weights folder, or ``"imagenet"``.
    """
    for name in classes:
        check_choice("class", name, VOC12.classes)
    path = Path(photo)
    if not path.is_file():
        raise RecamError(f"there is no picture {path}")
    image = read_image(path, turned=True)  # (3, H, W)
    backbone = fold_batch_norm(build_backbone("mobilenet_v2", output_stride=16, weights=backbone_weights))
    heads = load_file(HEADS)
    fc1, fc2 = heads["fc1"].float(), heads["fc2"].float()
    (pair,) = image_features(backbone, [image], scale=LONG_SIDE / max(image.shape[1:]), mirror=True)
    scores = (fc1 @ pair[0].mean((1, 2))).sigmoid()  # (K,)
    if classes:
        present = torch.tensor(sorted(VOC12.classes.index(name) for name in set(classes)))
    else:
        present = (scores > SEEN).nonzero().flatten()
    if not len(present):
        likely = ", ".join(f"{VOC12.classes[k]} {scores[k]:.0%}" for k in scores.argsort(descending=True)[:3])
        raise RecamError(
            f"{path.name} shows none of VOC's twenty classes (likeliest: {likely}); name some: --classes cat"
        )
    both = torch.stack([fc1, combine_weights(fc1, fc2, weights)])
    maps = pair_maps(pair, both, present)  # (2, P, h, w)
    cam, recam = (merge_scales([m], tuple(image.shape[1:])).numpy() for m in maps)
    return PhotoMaps(
        image.permute(1, 2, 0).numpy(), tuple(VOC12.classes[k] for k in present),
        tuple(scores[present].tolist()), cam, recam, to_mask(recam, present.tolist(), BACKGROUND["recam"]),
    )  # fmt: skip


def draw(maps: PhotoMaps):
    """Return a figure: the photograph, CAM, ReCAM and the pseudo mask."""
    tint = np.ones(maps.image.shape)  # the background fades to white
    for number, name in enumerate(maps.classes):
        tint[maps.mask == 1 + VOC12.index(name)] = to_rgb(CLASS_COLOURS[number % len(CLASS_COLOURS)])
    row = {
        "caption": "\n".join(f"{n} {s:.0%}" for n, s in zip(maps.classes, maps.scores)),
        "photograph": maps.image, "CAM": overlay(maps.image, maps.cam.max(0)),
        "ReCAM": overlay(maps.image, maps.recam.max(0)), "pseudo mask": 0.45 * maps.image / 255 + 0.55 * tint,
    }  # fmt: skip
    return gallery([row], width=3.2)


def write_photo(maps: PhotoMaps, folder: Path, stem: str) -> list[Path]:
    """Write picture, mask and maps of a photograph; return the paths of the PNG, the mask and the npz."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, mask, arrays = (folder / f"{stem}{end}" for end in ("_maps.png", "_mask.png", "_maps.npz"))
    draw(maps).savefig(picture, dpi=120, bbox_inches="tight")
    write_mask(mask, maps.mask, VOC12.palette)
    np.savez_compressed(
        arrays, cam=maps.cam.astype(np.float16), recam=maps.recam.astype(np.float16),
        classes=np.array(maps.classes), scores=np.array(maps.scores), mask=maps.mask,
    )  # fmt: skip
    return [picture, mask, arrays]
