"""Checkpoints of a training run: whole or not at all, and nothing in them that could execute."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from recamlib.errors import ResultsError
from recamlib.files import file_digest, read_sealed, storage_errors, whole_file, write_sealed


def save(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict) -> None:
    """Write model, optimizer tensors and progress; the JSON is renamed last, so half a checkpoint is none."""
    with storage_errors():
        folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v.contiguous() for k, v in model.state_dict().items()}
    scalars: dict[str, Any] = {}
    for index, slots in optimizer.state_dict()["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value.contiguous()
            elif value is not None:
                scalars[f"{index}.{name}"] = value
    name = f"step_{progress['step']}.safetensors"
    with whole_file(folder / name) as part:
        save_file(tensors, part)
        digest = file_digest(part)
    record = {**progress, "file": name, "sha256": digest, "optimizer": scalars}
    write_sealed(folder / "progress.json", record)
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
    slots: dict[int, dict[str, Any]] = {}
    entries = [(k[10:], v) for k, v in tensors.items() if k.startswith("optimizer.")]
    for key, value in [*entries, *progress["optimizer"].items()]:
        index, name = key.split(".", 1)
        slots.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress
