"""BatchNorm whose statistics are those of the batch of all processes that train together."""

from functools import cache

import torch
from torch import Tensor, distributed, nn

from recamlib.errors import SettingsError


def share_statistics(module: nn.Module) -> int:
    """Make every BatchNorm inside that is in training mode use the mean and variance of the whole batch.

    Works in place and changes no key of the state. A BatchNorm whose running statistics are fixed has nothing
    to share and stays as it is.

    Returns
    -------
    How many there were.

    Raises
    ------
    SettingsError
        If one keeps a cumulative average (``momentum=None``), which no network here does.

    Notes
    -----
    torch's own SyncBatchNorm is for GPUs alone; this one is the same everywhere, so what is tested is what
    runs. The variance is taken around the common mean, in two passes, as in a single process.
    """
    found = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    for norm in found:
        if norm.momentum is None:
            raise SettingsError("a BatchNorm with a cumulative average cannot be shared: use one process")
        norm.__class__ = _shared(type(norm))
    return len(found)


class _Total(torch.autograd.Function):
    """Sum over all processes; each of their losses has a part in the gradient of every summand."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


class _SharedStatistics:
    """Mix-in that takes the statistics over all processes while training."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        number = x.numel() // x.shape[1] * distributed.get_world_size()  # shares are even
        wide = x.float()
        mean = _Total.apply(wide.sum(axes)) / number  # (C,)
        centred = wide - mean.view(shape)
        variance = _Total.apply(centred.square().sum(axes)) / number  # (C,)
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean, self.momentum)
                self.running_var.lerp_(variance * number / (number - 1), self.momentum)
        y = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)


@cache
def _shared(kind: type) -> type:
    return type(f"Shared{kind.__name__}", (_SharedStatistics, kind), {})
