"""Numbers of the published code, and how far ours are from them."""

from pathlib import Path

import numpy as np
import torch

BASELINES = Path(__file__).parents[1] / "baselines"


def golden(name: str) -> dict[str, torch.Tensor]:
    with np.load(BASELINES / f"{name}.npz") as stored:
        return {key: torch.from_numpy(np.asarray(value)) for key, value in stored.items()}


def off(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return the largest difference in units of the largest number of the reference."""
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-300)).item()
