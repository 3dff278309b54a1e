"""The training loop: seeds, optimizer, poly schedule, precision, progress, checkpoint and exact resume."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.strategies import DDPStrategy
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from recamlib.data.access import labels_only
from recamlib.engine.device import bar, default_device, process_group
from recamlib.errors import RecamError, ResultsError, SettingsError
from recamlib.files import file_digest, read_sealed, storage_errors, whole_file, write_sealed
from recamlib.method.crf import default_processes

Batch = tuple[Tensor, Tensor, Tensor]


class TrainingError(RecamError):
    """Training cannot go on: the loss is not finite, or a checkpoint does not fit the run."""


def make_optimizer(
    groups: list[dict], *, kind: str = "sgd", momentum: float = 1e-4, weight_decay: float = 1e-4
) -> torch.optim.Optimizer:
    """Return SGD, Adam or AdamW over parameter groups, each with its own ``lr``, perhaps ``weight_decay``.

    The authors' optimizer hands its weight decay to SGD's momentum, so that the momentum in effect is 1e-4
    and the 0.9 of their settings is only the power of the schedule.
    """
    groups = [{**group, "initial_lr": group["lr"]} for group in groups]
    if kind == "sgd":
        return torch.optim.SGD(groups, momentum=momentum, weight_decay=weight_decay)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[kind](groups, weight_decay=weight_decay)


def set_poly_rate(optimizer: torch.optim.Optimizer, step: int, *, max_steps: int, power: float = 0.9) -> None:
    """Set every learning rate for step `step`, 0-based. Source: ReCAM misc/torchutils.py."""
    factor = (1 - min(step, max_steps - 1) / max_steps) ** power
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor


def epoch_order(count: int, *, seed: int, epoch: int) -> list[int]:
    """Return the order of `count` samples in one epoch."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator).tolist()


def default_workers() -> int:
    """Return ``$RECAM_WORKERS`` or a number of loader processes that leaves the cores to the network."""
    cores = os.cpu_count() or 1
    return default_processes(0 if cores <= 2 else min(8, cores - 1) // process_group()[2])


def open_fabric(precision: str) -> Fabric:
    """Return Fabric on one device or, in several processes that train together, on one device each."""
    _, size, here = process_group()
    how: dict[str, Any] = {"plugins": [LightningEnvironment()]}  # Fabric would take any Slurm job for its own
    if size > 1:
        how = {"strategy": DDPStrategy(find_unused_parameters=True), "num_nodes": size // here}
    fabric = Fabric(accelerator=default_device(), precision=precision, devices=here, **how)
    fabric.launch()
    return fabric


class _Losses(nn.Module):
    """Model and loss as one module: DDP has to see all that is done with a model."""

    def __init__(self, model: nn.Module, loss_step: Callable) -> None:
        super().__init__()
        self.model, self.loss_step = model, loss_step

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return self.loss_step(self.model, images, labels)


def share_batch_norm(module: nn.Module) -> None:
    """Let every BatchNorm that trains take the statistics of all processes; fixed ones have none to share."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm) and child.training:
            setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
        else:
            share_batch_norm(child)


def fit(
    model: nn.Module, views: Dataset, loss_step: Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]],
    optimizer: torch.optim.Optimizer, *, epochs: int = 0, steps: int = 0, batch_size: int,
    accumulate: int = 1, seed: int, checkpoint: Path, checkpoint_every: int = 0, power: float = 0.9,
    precision: str = "32-true", describe: str = "train",
    after_epoch: Callable[[nn.Module, int], dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Train `model` in place and return its history; a killed run goes on from its last checkpoint.

    What a run gives does not depend on where it was interrupted: every draw is a function of seed, epoch and
    sample. Processes that train together (:func:`recamlib.engine.device.process_group`) share every batch
    evenly; the first of them writes checkpoints and probes.

    `views` are samples ``(image (3, h, w), label (K,), index)`` with ``set_epoch``. `loss_step` takes
    ``(model, images (B, 3, h, w), labels (B, K))`` to named scalars, of which ``"loss"`` is differentiated.
    `steps` go before `epochs`; the last incomplete batch of an epoch is dropped, as published. Each batch
    passes the network in `accumulate` parts; the gradient is that of the whole if the loss is a mean over
    images. `checkpoint` is a folder that the caller removes once the result is stored; it is written at the
    end of every epoch, and every `checkpoint_every` steps if that is not 0.

    The history holds means of the losses by epoch, what `after_epoch` returned before the first and after
    every epoch (``probes``), ``steps``, and ``seconds`` with those ``waited`` for batches.
    """
    fabric = open_fabric(precision)
    first, size, on_gpu = fabric.is_global_zero, fabric.world_size, fabric.device.type == "cuda"
    batch_size = min(batch_size, len(views))
    if batch_size % (size * accumulate) and size > 1:
        raise SettingsError(f"{size} processes cannot share {batch_size} images in {accumulate} parts evenly")
    per_epoch = len(views) // batch_size
    total = steps or epochs * per_epoch
    ends = -(-total // per_epoch)  # epochs, the last of which may end early
    model.to(fabric.device, memory_format=torch.channels_last)
    state = restore(checkpoint, model, optimizer)
    if size > 1 and on_gpu:
        share_batch_norm(model.train())
    wrapped, optimizer = fabric.setup(_Losses(model, loss_step), optimizer)
    history, sums, done = state["history"], state["sums"], state["step"]
    started, spent = time.perf_counter(), history.setdefault("seconds", 0.0)
    history.setdefault("waited", 0.0)

    def probe(epoch: int) -> None:
        if after_epoch and first:
            history.setdefault("probes", []).append(after_epoch(model, epoch))

    def write() -> None:
        history["seconds"] = spent + time.perf_counter() - started
        history["steps"] = done
        if first:
            save(checkpoint, model, optimizer, {"step": done, "sums": sums, "history": history})

    with labels_only(), bar(None, total=total, initial=done, quiet=not first) as progress:
        if not done:
            probe(0)
        for epoch in range(done // per_epoch, ends):
            views.set_epoch(epoch)
            begin, end = done - epoch * per_epoch, min(per_epoch, total - epoch * per_epoch)
            order = epoch_order(len(views), seed=seed, epoch=epoch)[begin * batch_size : end * batch_size]
            loader = DataLoader(
                views, batch_size=batch_size // size, sampler=order[fabric.global_rank :: size],
                num_workers=default_workers(), pin_memory=on_gpu,
                collate_fn=getattr(views, "collate", None),
            )  # fmt: skip
            progress.set_description(f"{describe} {epoch + 1}/{ends}")
            for batch in _ahead(loader, history):
                set_poly_rate(optimizer, done, max_steps=total, power=power)
                losses = _step(fabric, wrapped, optimizer, batch, parts=accumulate)
                done += 1
                progress.update()
                if not math.isfinite(losses["loss"]):
                    names = ", ".join(views.images.ids[i] for i in batch[2].tolist()[:4])
                    came = f"the loss became {losses['loss']} in step {done} (samples {names}, ...)"
                    raise TrainingError(f"{came}: lower the learning rate or use precision '32-true'")
                sums = {key: sums.get(key, 0.0) + value for key, value in losses.items()}
                if checkpoint_every and done % checkpoint_every == 0 and done % per_epoch and done < total:
                    write()
            for key, value in sums.items():
                history.setdefault(key, []).append(value / end)
            sums = {}
            if not all(p.isfinite().all() for p in model.parameters()):
                after = f"the weights are no longer finite after epoch {epoch + 1}"
                raise TrainingError(f"{after}: lower the learning rate")
            probe(epoch + 1)
            write()
    return history


def _ahead(batches: Iterable[Batch], history: dict[str, Any]) -> Iterator[Batch]:
    """Yield batches, each made in a thread while the one before is used; add up the seconds waited."""
    stream = iter(batches)
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, stream, None)
        while True:
            start = time.perf_counter()
            try:
                batch = coming.result()
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                died = "a loader process died (killed, or out of memory?)"
                raise TrainingError(f"{died}: run again, perhaps with RECAM_WORKERS=0") from error
            history["waited"] += time.perf_counter() - start
            if batch is None:
                return
            coming = thread.submit(next, stream, None)
            yield batch


def _step(fabric: Fabric, model, optimizer, batch: Batch, *, parts: int = 1) -> dict[str, float]:
    """Take one step of gradient descent, over a batch in so many parts, and return the named losses."""
    model.train()
    optimizer.zero_grad(set_to_none=True)
    total: dict[str, float] = {}
    for number, (images, labels) in enumerate(zip(batch[0].chunk(parts), batch[1].chunk(parts)), 1):
        share = len(images) / len(batch[0])
        images = images.to(fabric.device, memory_format=torch.channels_last, non_blocking=True)
        with fabric.no_backward_sync(model, enabled=number < parts):
            losses = model(images, labels.to(fabric.device, non_blocking=True))
            fabric.backward(losses["loss"] * share)
        total = {key: total.get(key, 0.0) + share * value.item() for key, value in losses.items()}
    optimizer.step()
    if fabric.world_size > 1:
        mean = fabric.all_reduce(torch.tensor(list(total.values()), device=fabric.device), reduce_op="mean")
        total = dict(zip(total, mean.tolist()))
    return total


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict) -> None:
    """Write model, optimizer tensors and progress; the JSON is renamed last, so half a checkpoint is none."""
    with storage_errors():
        folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    for index, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{k}": v.contiguous() for k, v in slots.items() if v is not None}
    name = f"step_{progress['step']}.safetensors"
    with whole_file(folder / name) as part:
        save_file(tensors, part)
        digest = file_digest(part)
    write_sealed(folder / "progress.json", {**progress, "file": name, "sha256": digest})
    for old in folder.glob("step_*.safetensors"):
        if old.name != name:
            old.unlink()


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Load the last whole checkpoint into model and optimizer, or return a fresh start."""
    fresh = {"step": 0, "sums": {}, "history": {}}
    if not (folder / "progress.json").exists():
        return fresh
    try:
        progress = read_sealed(folder / "progress.json")
        if file_digest(folder / progress["file"]) != progress["sha256"]:
            raise ResultsError(f"{progress['file']} is not as it was written")
        tensors = load_file(folder / progress["file"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        # a damaged checkpoint costs this one training; say so and start it again
        tqdm.write(f"checkpoint in {folder.name} is damaged ({error}); training starts again")
        return fresh
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    slots: dict[int, dict[str, Tensor]] = {}
    for index, name in (key.split(".")[1:] for key in tensors if key.startswith("optimizer.")):
        slots.setdefault(int(index), {})[name] = tensors[f"optimizer.{index}.{name}"]
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress
