"""What every feature extractor is: stages one after the other, and what of them is not trained."""

from functools import cache

from torch import Tensor, nn


class Backbone(nn.Module):
    """A feature extractor cut into stages, `stage_names`, shallow to deep.

    Features have `channels`, ``C``, and a pixel for every `output_stride` pixels of the image. `unstrided`
    are the stages that were built with a stride and lost it.
    """

    def __init__(
        self,
        name: str,
        body: dict[str, nn.Module],
        *,
        channels: int,
        output_stride: int,
        unstrided: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.name, self.channels, self.output_stride = name, channels, output_stride
        self.unstrided = unstrided
        self.stage_names = tuple(body)
        self.body = nn.ModuleDict(body)

    def stem(self) -> list[nn.Module]:
        """Return the first convolution and, if it is next, the normalisation after it."""
        owners = [m for m in self.modules() if next(m.parameters(recurse=False), None) is not None]
        return owners[: 1 + isinstance(owners[1], nn.modules.batchnorm._BatchNorm)]

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """Return the output of every stage by name, for normalised images ``(B, 3, H, W)``."""
        out = {}
        for name, stage in self.body.items():
            x = out[name] = stage(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Return features ``(B, C, h, w)`` of normalised images ``(B, 3, H, W)``."""
        for stage in self.body.values():
            x = stage(x)
        return x


def freeze_batch_norm(module: nn.Module) -> nn.Module:
    """Make every BatchNorm inside use its running statistics for good; scale and shift are still trained.

    Works in place, survives ``.train()`` and changes no key of the state, as in the authors' ResNet-50.
    """
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, _FixedStatistics):
            child.__class__ = _fixed(type(child))  # type: ignore[arg-type]
            child.eval()
    return module


def freeze_stem(backbone: Backbone) -> Backbone:
    """Stop training the first convolution and the normalisation after it (the authors' conv1 and bn1).

    In a transformer that is the projection of patches; it has no BatchNorm, and its LayerNorms are trained.
    """
    for module in backbone.stem():
        module.requires_grad_(False)
    return backbone


class _FixedStatistics:
    """Mix-in that keeps a BatchNorm in evaluation mode."""

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(False)


@cache
def _fixed(kind: type) -> type:
    return type(f"Fixed{kind.__name__}", (_FixedStatistics, kind), {})
