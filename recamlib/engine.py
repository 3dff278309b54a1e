"""The training loop: seeds, optimizer, poly schedule, precision, progress, checkpoint and exact resume."""

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from recamlib.data.base import labels_only
from recamlib.errors import RecamError
from recamlib.provenance import default_device

Batch = tuple[Tensor, Tensor, Tensor]


class TrainingError(RecamError):
    """Training cannot go on: the loss is not finite, or a checkpoint does not fit the run."""


def poly_factor(step: int, *, max_steps: int, power: float = 0.9) -> float:
    """Return the factor of the learning rate before step `step` (0-based) of `max_steps`.

    Notes
    -----
    Source: ReCAM misc/torchutils.py, ``(1 - step / max_steps) ** power``; past the end the last factor stays.

    Examples
    --------
    >>> [round(poly_factor(s, max_steps=4), 3) for s in range(4)]
    [1.0, 0.772, 0.536, 0.287]
    """
    return (1 - min(step, max_steps - 1) / max_steps) ** power


def make_optimizer(
    groups: list[dict], *, kind: str = "sgd", momentum: float = 1e-4, weight_decay: float = 1e-4
) -> torch.optim.Optimizer:
    """Return SGD or Adam over parameter groups that each carry their own ``lr``.

    The authors' optimizer hands its weight decay to SGD's momentum, so that the momentum in effect is 1e-4
    and the 0.9 of their settings is only the power of the schedule; here every setting is named.
    The toy study of Section 4.2 trains with Adam.
    """
    groups = [{**group, "initial_lr": group["lr"]} for group in groups]
    if kind == "adam":
        return torch.optim.Adam(groups, weight_decay=weight_decay)
    return torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay)


def set_poly_rate(optimizer: torch.optim.Optimizer, step: int, *, max_steps: int, power: float = 0.9) -> None:
    """Set every group's learning rate for step `step`: a function of the step alone, so resume is exact."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * poly_factor(step, max_steps=max_steps, power=power)


def epoch_order(count: int, *, seed: int, epoch: int) -> list[int]:
    """Return the order of `count` samples in one epoch, a function of seed and epoch alone."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator).tolist()


def default_workers() -> int:
    """Return ``$RECAM_WORKERS`` or a number of loader processes that leaves the cores to the network."""
    cores = os.cpu_count() or 1
    return int(os.environ.get("RECAM_WORKERS", 0 if cores <= 2 else min(8, cores - 1)))


def fit(
    model: nn.Module,
    views: Dataset,
    loss_step: Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    checkpoint: Path,
    power: float = 0.9,
    precision: str = "32-true",
    describe: str = "train",
    after_epoch: Callable[[nn.Module, int], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Train `model` in place and return its history; a killed run goes on after its last whole epoch.

    Parameters
    ----------
    model
        Everything that is trained, as one module; its state is the checkpoint.
    views
        Samples ``(image (3, h, w), label (K,), index)`` with ``set_epoch``, whose random draws depend on
        (seed, epoch, sample) alone.
    loss_step
        ``(model, images (B, 3, h, w), labels (B, K))`` to named scalars; ``"loss"`` is differentiated.
    checkpoint
        Folder of the running checkpoint; removed by the caller once the result is stored.
    after_epoch
        Called before the first and after every epoch; what it returns is appended to ``history["probes"]``.

    Returns
    -------
    ``{"loss": [...], ..., "probes": [...], "steps": n, "seconds": s}``, per-epoch means; seconds add up over
    interruptions.

    Raises
    ------
    TrainingError
        If a loss is not finite: names the step and the samples.
    """
    fabric = Fabric(accelerator=default_device(), devices=1, precision=precision)
    steps_per_epoch = max(1, len(views) // batch_size)  # the last incomplete batch is dropped, as published
    model.to(fabric.device, memory_format=torch.channels_last)
    state = _restore(checkpoint, model, optimizer)
    wrapped, optimizer = fabric.setup(model, optimizer)
    history = state["history"]
    started, spent = time.perf_counter(), history.get("seconds", 0.0)
    with labels_only():
        if after_epoch and not state["epoch"]:
            history.setdefault("probes", []).append(after_epoch(model, 0))
        for epoch in range(state["epoch"], epochs):
            views.set_epoch(epoch)
            order = epoch_order(len(views), seed=seed, epoch=epoch)[: steps_per_epoch * batch_size]
            loader = DataLoader(
                views, batch_size=min(batch_size, len(views)), sampler=order, num_workers=default_workers()
            )
            bar = tqdm(loader, desc=f"{describe} {epoch + 1}/{epochs}", leave=False, disable=None)
            sums = {}
            for step, batch in enumerate(bar, epoch * steps_per_epoch):
                set_poly_rate(optimizer, step, max_steps=epochs * steps_per_epoch, power=power)
                losses = _step(fabric, wrapped, optimizer, loss_step, batch)
                if not math.isfinite(losses["loss"]):
                    names = ", ".join(views.images.ids[i] for i in batch[2].tolist()[:4])
                    raise TrainingError(
                        f"the loss became {losses['loss']} in step {step + 1} (samples {names}, ...): "
                        "lower the learning rate or use precision '32-true'"
                    )
                sums = {name: sums.get(name, 0.0) + value for name, value in losses.items()}
            for name, value in sums.items():
                history.setdefault(name, []).append(value / steps_per_epoch)
            if after_epoch:
                history.setdefault("probes", []).append(after_epoch(model, epoch + 1))
            history["seconds"] = spent + time.perf_counter() - started
            history["steps"] = (epoch + 1) * steps_per_epoch
            _save(checkpoint, model, optimizer, {"epoch": epoch + 1, "history": history})
    return history


def _step(fabric, model, optimizer, loss_step, batch: Batch) -> dict[str, float]:
    """Take one step of gradient descent and return the named losses."""
    images, labels, _ = batch
    model.train()
    images = images.to(fabric.device, memory_format=torch.channels_last)
    with fabric.autocast():
        losses = loss_step(model, images, labels.to(fabric.device))
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(losses["loss"])
    optimizer.step()
    return {name: value.item() for name, value in losses.items()}


def _save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict) -> None:
    """Write model, optimizer tensors and progress; the JSON is renamed last, so half a checkpoint is none."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    scalars: dict[str, Any] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value.contiguous()
            elif value is not None:
                scalars[f"{index}.{name}"] = value
    name = f"epoch_{progress['epoch']}.safetensors"
    save_file(tensors, folder / f"{name}.part")
    os.replace(folder / f"{name}.part", folder / name)
    text = json.dumps({**progress, "file": name, "optimizer": scalars})
    (folder / "progress.json.part").write_text(text)
    os.replace(folder / "progress.json.part", folder / "progress.json")
    for old in folder.glob("epoch_*.safetensors"):
        if old.name != name:
            old.unlink()


def _restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load the last whole checkpoint into model and optimizer, or return a fresh start."""
    try:
        progress = json.loads((folder / "progress.json").read_text())
        tensors = load_file(folder / progress["file"])
    except FileNotFoundError:
        return {"epoch": 0, "history": {}}
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        # a damaged checkpoint costs this one training; say so and start it again
        tqdm.write(f"checkpoint in {folder.name} is damaged ({error}); training starts again")
        return {"epoch": 0, "history": {}}
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    slots: dict[int, dict[str, Any]] = {}
    entries = [(k[10:], v) for k, v in tensors.items() if k.startswith("optimizer.")]
    for key, value in [*entries, *progress["optimizer"].items()]:
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress
