"""The training loop: seeds, optimizer, poly schedule, precision, progress, checkpoint and exact resume."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from recamlib.data.access import labels_only
from recamlib.engine.checkpoint import restore, save
from recamlib.engine.processes import even_share, shared_order
from recamlib.engine.progress import bar
from recamlib.engine.together import mean_losses, open_fabric, set_up
from recamlib.errors import RecamError, SettingsError

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
    """Return SGD, Adam or AdamW over parameter groups that each carry their own ``lr``.

    A group may carry its own ``weight_decay`` too.

    The authors' optimizer hands its weight decay to SGD's momentum, so that the momentum in effect is 1e-4
    and the 0.9 of their settings is only the power of the schedule; here every setting is named.
    The toy study of Section 4.2 trains with Adam.
    """
    groups = [{**group, "initial_lr": group["lr"]} for group in groups]
    if kind in ("adam", "adamw"):
        return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](groups, weight_decay=weight_decay)
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
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # processes of this machine that train together
    return int(os.environ.get("RECAM_WORKERS", 0 if cores <= 2 else min(8, cores - 1) // here))


def fit(
    model: nn.Module,
    views: Dataset,
    loss_step: Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int = 0,
    steps: int = 0,
    batch_size: int,
    accumulate: int = 1,
    seed: int,
    checkpoint: Path,
    checkpoint_every: int = 0,
    power: float = 0.9,
    precision: str = "32-true",
    describe: str = "train",
    after_epoch: Callable[[nn.Module, int], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Train `model` in place and return its history; a killed run goes on from its last checkpoint.

    What a run gives does not depend on where it was interrupted: every draw is a function of seed, epoch and
    sample, and on the CPU the weights are the same to the bit.

    Processes that train together (:mod:`recamlib.engine.processes`) take an even share of a batch
    each and give what one gives with the same batches, up to rounding; networks with dropout aside.
    The first of them writes checkpoints and probes.

    Parameters
    ----------
    model
        Everything that is trained, as one module; its state is the checkpoint.
    views
        Samples ``(image (3, h, w), label (K,), index)`` with ``set_epoch``, whose random draws depend on
        (seed, epoch, sample) alone.
    loss_step
        ``(model, images (B, 3, h, w), labels (B, K))`` to named scalars; ``"loss"`` is differentiated.
    epochs, steps
        How long: so many passes over the samples, or, if given, so many steps.
    accumulate
        Parts that each batch passes the network in, to save memory; the gradient is that of the whole batch
        if the loss is a mean over images.
    checkpoint
        Folder of the running checkpoint; removed by the caller once the result is stored.
    checkpoint_every
        Steps between checkpoints within an epoch; 0 writes them at the end of every epoch alone.
    after_epoch
        Called before the first and after every epoch; what it returns is appended to ``history["probes"]``.

    Returns
    -------
    ``{"loss": [...], ..., "probes": [...], "steps": n, "seconds": s, "waited": w}``, per-epoch means; the
    seconds, and those of them spent waiting for batches, add up over interruptions.

    Raises
    ------
    TrainingError
        If a loss is not finite: names the step and the samples. The last checkpoint stays.
    SettingsError
        If several processes cannot share a batch evenly.
    """
    fabric = open_fabric(precision)
    first, size = fabric.is_global_zero, fabric.world_size
    batch_size = min(batch_size, len(views))
    if size > 1 and even_share(batch_size, parts=accumulate, wanted=size) < size:
        raise SettingsError(
            f"{size} processes cannot share batches of {batch_size} images in {accumulate} parts evenly: "
            f"use {even_share(batch_size, parts=accumulate, wanted=size)}"
        )
    per_epoch = len(views) // batch_size  # the last incomplete batch is dropped, as published
    total = steps or epochs * per_epoch
    model.to(fabric.device, memory_format=torch.channels_last)
    state = restore(checkpoint, model, optimizer)
    wrapped, loss_step, optimizer = set_up(fabric, model, loss_step, optimizer)
    history, sums, done = state["history"], state["sums"], state["step"]
    started, spent = time.perf_counter(), history.get("seconds", 0.0)
    history.setdefault("waited", 0.0)
    on_gpu = fabric.device.type == "cuda"

    def keep() -> None:
        history["seconds"] = spent + time.perf_counter() - started
        history["steps"] = done
        if first:
            save(checkpoint, model, optimizer, {"step": done, "sums": sums, "history": history})

    with labels_only():
        if after_epoch and first and not done:
            history.setdefault("probes", []).append(after_epoch(model, 0))
        for epoch in range(done // per_epoch, -(-total // per_epoch)):
            views.set_epoch(epoch)
            begin, end = done - epoch * per_epoch, min(per_epoch, total - epoch * per_epoch)
            order = epoch_order(len(views), seed=seed, epoch=epoch)[begin * batch_size : end * batch_size]
            own = shared_order(order, batch=batch_size, parts=accumulate, rank=fabric.global_rank, size=size)
            loader = DataLoader(
                views, batch_size=batch_size // size, sampler=own, num_workers=default_workers(),
                pin_memory=on_gpu,
            )  # fmt: skip
            name = f"{describe} {epoch + 1}/{-(-total // per_epoch)}"
            batches = bar(loader, desc=name, initial=begin, total=end) if first else loader
            for batch in _waited_for(batches, history):
                set_poly_rate(optimizer, done, max_steps=total, power=power)
                losses = _step(fabric, wrapped, optimizer, loss_step, batch, parts=accumulate)
                done += 1
                if not math.isfinite(losses["loss"]):
                    names = ", ".join(views.images.ids[i] for i in batch[2].tolist()[:4])
                    raise TrainingError(
                        f"the loss became {losses['loss']} in step {done} (samples {names}, ...): "
                        "lower the learning rate or use precision '32-true'"
                    )
                sums = {key: sums.get(key, 0.0) + value for key, value in losses.items()}
                if checkpoint_every and done % checkpoint_every == 0 and done % per_epoch and done < total:
                    keep()
            for key, value in sums.items():
                history.setdefault(key, []).append(value / end)
            sums = {}
            if after_epoch and first:
                history.setdefault("probes", []).append(after_epoch(model, epoch + 1))
            keep()
    return history


def _waited_for(batches: Iterable[Batch], history: dict[str, Any]) -> Iterator[Batch]:
    """Pass batches on and add the seconds until each is there to ``history["waited"]``.

    If a loader process is killed, the error says so and what to do.
    """
    stream = iter(batches)
    while True:
        start = time.perf_counter()
        try:
            batch = next(stream, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise TrainingError(
                "a loader process died (killed, or out of memory?): run again, perhaps with RECAM_WORKERS=0; "
                "training goes on from its last checkpoint"
            ) from error
        history["waited"] += time.perf_counter() - start
        if batch is None:
            return
        yield batch


def _step(fabric, model, optimizer, loss_step, batch: Batch, *, parts: int = 1) -> dict[str, float]:
    """Take one step of gradient descent, over a batch in so many parts, and return the named losses."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    total: dict[str, float] = {}
    for number, (images, labels) in enumerate(zip(batch[0].chunk(parts), batch[1].chunk(parts)), 1):
        share = len(images) / len(batch[0])
        images = images.to(fabric.device, memory_format=torch.channels_last, non_blocking=True)
        with fabric.no_backward_sync(model, enabled=number < parts):
            with fabric.autocast():
                losses = loss_step(model, images, labels.to(fabric.device, non_blocking=True))
            fabric.backward(losses["loss"] * share)
        total = {key: total.get(key, 0.0) + share * value.item() for key, value in losses.items()}
    optimizer.step()
    return mean_losses(fabric, total)
