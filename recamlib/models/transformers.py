"""Vision transformers as backbones: their patch tokens are the feature map."""

import importlib
import math
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from recamlib.errors import SettingsError, WeightsError
from recamlib.models.base import Backbone
from recamlib.models.weights import from_registry, load_features, part_of, whole_names

#: Names without a prefix, made for training from scratch on pictures of about 100 pixels on a CPU.
SCRATCH = ("vit_small_scratch", "swin_small_scratch")

# timm's modules: what makes their networks take images of any size, without random depth
_KINDS: dict[str, dict[str, Any]] = {
    "vision_transformer": {"dynamic_img_size": True},
    "deit": {"dynamic_img_size": True},
    "swin_transformer": {"dynamic_img_size": True, "always_partition": True, "drop_path_rate": 0.0},
}
_STAGES = 4  # of a network whose blocks are all alike


class TransformerBackbone(Backbone):
    """One of timm's transformers: patch tokens as features, whatever other tokens there are left out.

    An image whose sides are no multiple of the stride is filled up with the mean colour on the right and at
    the bottom. FC1 reads the mean of the tokens after the last normalisation, so Eq. (2) and all that follows
    is unchanged. Random depth is off: what a step draws would depend on where a run was interrupted.
    """

    def __init__(self, name: str, net: nn.Module, *, output_stride: int, checkpointing: bool = False) -> None:
        super().__init__(name, {"net": net}, channels=net.num_features, output_stride=output_stride)
        net.set_grad_checkpointing(checkpointing)
        count = len(net.feature_info)
        alike = len({info["reduction"] for info in net.feature_info}) == 1
        parts = min(count, _STAGES) if alike else count
        self.ends = [round((i + 1) * count / parts) - 1 for i in range(parts)]  # blocks that end a stage
        self.stage_names = tuple(f"stage{i + 1}" for i in range(parts))

    def stem(self) -> list[nn.Module]:
        return [self.body["net"].patch_embed]

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.stage_names, self._maps(x, self.ends)))

    def forward(self, x: Tensor) -> Tensor:
        return self._maps(x, self.ends[-1:])[0]

    def _maps(self, x: Tensor, ends: list[int]) -> list[Tensor]:
        """Return the patch tokens after some blocks as maps, the last ones normalised."""
        net, stride = self.body["net"], self.output_stride
        height, width = (math.ceil(side / stride) * stride for side in x.shape[2:])
        if (height, width) != tuple(x.shape[2:]):
            x = F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))  # after normalisation 0 is the mean
        maps = net.forward_intermediates(x, indices=ends, norm=True, intermediates_only=True)  # (B, C, h, w)
        if isinstance(getattr(net, "fc_norm", None), nn.LayerNorm):  # some normalise after pooling instead
            maps[-1] = net.fc_norm(maps[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return maps


def is_transformer(name: str) -> bool:
    """Return whether a backbone's name is that of a transformer this module builds."""
    if not name.startswith("timm/"):
        return name in SCRATCH
    from timm.models import is_model_in_modules  # seconds to import, and only needed for these names

    return is_model_in_modules(name.removeprefix("timm/"), set(_KINDS))


def build_transformer(
    name: str, state: dict[str, Tensor], path: Path | None, *, pretrained: bool, output_stride: int,
    checkpointing: bool,
) -> TransformerBackbone:  # fmt: skip
    """Return a transformer by name, with timm's weights or the published ones of DINOv2 and Swin."""
    if name not in SCRATCH:
        net = _of_timm(name, state, path, pretrained)
    elif path or pretrained:
        raise WeightsError(f"{name} has no pre-trained weights: train it from scratch, without weights")
    else:
        net = _scratch(name, output_stride)
    reached = net.feature_info[-1]["reduction"]
    if reached != output_stride:
        raise SettingsError(f"{name} comes out at stride {reached}, not {output_stride}: try that one")
    return TransformerBackbone(name, net, output_stride=output_stride, checkpointing=checkpointing)


def _scratch(name: str, output_stride: int) -> nn.Module:
    """Return one of the small networks."""
    from timm.models.swin_transformer import SwinTransformer
    from timm.models.vision_transformer import VisionTransformer

    common: dict[str, Any] = {"img_size": 96, "num_classes": 0, "dynamic_img_size": True}
    if name == "vit_small_scratch":
        common |= {"embed_dim": 96, "depth": 4, "num_heads": 3, "class_token": False, "global_pool": ""}
        return VisionTransformer(patch_size=output_stride, **common)
    common |= {"embed_dim": 32, "depths": (2, 2, 2), "num_heads": (1, 2, 4), "window_size": 4}
    return SwinTransformer(patch_size=4, drop_path_rate=0.0, always_partition=True, **common)


def _of_timm(name: str, state: dict[str, Tensor], path: Path | None, pretrained: bool) -> nn.Module:
    """Return one of timm's networks with its weights."""
    import timm

    bare = name.removeprefix("timm/")
    kind = next(kind for kind in _KINDS if timm.models.is_model_in_modules(bare, {kind}))
    net = from_registry(timm.create_model, bare, num_classes=0, pretrained=pretrained, **_KINDS[kind])
    if path:
        module = importlib.import_module(f"timm.models.{kind}")
        renamed = getattr(module, "checkpoint_filter_fn", lambda state, _: state)
        try:
            state = renamed(part_of(state, net, source=path), net)
        except (AttributeError, KeyError, RuntimeError) as error:
            raise WeightsError(f"{path} does not fit {name}: weights of another network?") from error
        load_features(net, state, source=path, whole=whole_names(bare))
    return net
