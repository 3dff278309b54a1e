"""What every feature extractor is: stages one after the other, and BatchNorm that is fixed or folded away."""

import copy
from collections import Counter
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-3  # largest change that folding may make, as a share of the largest output


class Backbone(nn.Module):
    """A feature extractor cut into stages, shallow to deep; `unstrided` are those that lost their stride.

    Features have `channels`, ``C``, and a pixel for every `output_stride` pixels of the image.
    """

    def __init__(
        self, name: str, body: dict[str, nn.Module], *, channels: int, output_stride: int,
        unstrided: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
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
        """Return the output of every stage by name."""
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
    """Make every BatchNorm inside use its running statistics for good, as in the authors' ResNet-50."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, _FixedStatistics):
            child.__class__ = _fixed(type(child))  # type: ignore[arg-type]
            child.eval()
    return module


def freeze_stem(backbone: Backbone) -> Backbone:
    """Stop training the first convolution and the normalisation after it (the authors' conv1 and bn1)."""
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


def layout(device: torch.device | str) -> torch.memory_format:
    """Return how pictures of many sizes lie in memory: a GPU plans channels last anew for every size."""
    return torch.contiguous_format if torch.device(device).type == "cuda" else torch.channels_last


@torch.no_grad()
def fold_batch_norm(net: nn.Module, device: torch.device | str | None = None, *, side: int = 64) -> nn.Module:
    """Return a copy of a network in evaluation mode, on `device` or where `net` is, in its `layout`.

    BatchNorm is folded into the convolution before it: half the time or less on a CPU. Which follows which is
    seen from what they hand over on a random image of `side` pixels, not from names or order. If outputs
    differ by more than `TOLERANCE` there, the copy is a plain one.
    """
    device = device or next(net.parameters()).device
    folded = copy.deepcopy(net).cpu().eval()  # a GPU would round more
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = images.to(next(folded.parameters()).dtype)
    expected = folded(images)
    swap: dict[nn.Module, nn.Module] = {}
    for conv, norm in _pairs(folded, images):
        swap |= {conv: fuse_conv_bn_eval(conv, norm), norm: nn.Identity()}
    for parent in list(folded.modules()):
        for name, child in parent.named_children():
            if child in swap:
                setattr(parent, name, swap[child])
    alike = (folded(images) - expected).abs().max() <= TOLERANCE * expected.abs().max()
    return (folded if alike else copy.deepcopy(net).eval()).to(device, memory_format=layout(device))


def _pairs(net: nn.Module, images: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return every convolution and BatchNorm of which the one only hands over to the other."""
    calls: Counter[nn.Module] = Counter()
    handed: Counter[tuple[nn.Conv2d, nn.BatchNorm2d]] = Counter()
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}  # outputs stay, so that no other gets their address

    def seen(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        calls[module] += 1
        if isinstance(module, nn.Conv2d):
            made[id(output)] = (module, output)
        elif id(inputs[0]) in made:
            handed[made[id(inputs[0])][0], module] += 1

    # neither a class that also activates nor one that takes statistics of the batch can be folded
    fixed = [
        m for m in net.modules()
        if isinstance(m, nn.BatchNorm2d) and type(m).forward is nn.BatchNorm2d.forward
        and m.track_running_stats
    ]  # fmt: skip
    convs = [m for m in net.modules() if type(m) is nn.Conv2d]
    handles = [module.register_forward_hook(seen) for module in (*convs, *fixed)]
    net(images)
    for handle in handles:
        handle.remove()
    return [(conv, norm) for (conv, norm), n in handed.items() if n == calls[conv] == calls[norm]]
