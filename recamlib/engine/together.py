"""What the loop needs to train in one process or, the same way, in several that share every batch."""

import os
from collections.abc import Callable
from datetime import timedelta

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.fabric.strategies import DDPStrategy
from torch import Tensor, nn

from recamlib.engine.device import default_device
from recamlib.engine.processes import group_size, in_group
from recamlib.models.shared_norm import share_statistics

_PATIENCE = timedelta(hours=12)  # how long processes wait for the first one's probes


def open_fabric(precision: str) -> Fabric:
    """Return Fabric on one device or, in a process of a group, on one of those that train together."""
    common = {"accelerator": default_device(), "precision": precision}
    if not in_group():  # the environment is named, since Fabric would take a Slurm job for its own
        return Fabric(devices=1, plugins=[LightningEnvironment()], **common)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", group_size()))
    strategy = DDPStrategy(timeout=_PATIENCE, find_unused_parameters=True)
    fabric = Fabric(
        devices=here, num_nodes=group_size() // here, strategy=strategy, plugins=[TorchElasticEnvironment()],
        **common,
    )  # fmt: skip
    fabric.launch()
    return fabric


class _Losses(nn.Module):
    """Model and loss as one module: DDP has to see all that is done with a model, not its forward alone."""

    def __init__(self, model: nn.Module, loss_step: Callable) -> None:
        super().__init__()
        self.model, self.loss_step = model, loss_step

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return self.loss_step(self.model, images, labels)


def set_up(
    fabric: Fabric, model: nn.Module, loss_step: Callable, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, Callable, torch.optim.Optimizer]:
    """Return what is trained, the loss as a function of it, images and labels, and the optimizer."""
    if fabric.world_size == 1:
        wrapped, optimizer = fabric.setup(model, optimizer)
        return wrapped, loss_step, optimizer
    share_statistics(model.train())
    torch.manual_seed(torch.initial_seed() + fabric.global_rank)  # what drops at random, drops differently
    wrapped, optimizer = fabric.setup(_Losses(model, loss_step), optimizer)
    return wrapped, lambda net, images, labels: net(images, labels), optimizer


def mean_losses(fabric: Fabric, losses: dict[str, float]) -> dict[str, float]:
    """Return the means of named losses over all processes."""
    if fabric.world_size == 1:
        return losses
    mean = fabric.all_reduce(torch.tensor(list(losses.values()), device=fabric.device), reduce_op="mean")
    return dict(zip(losses, mean.tolist()))
