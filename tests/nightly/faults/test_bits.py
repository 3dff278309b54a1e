"""What two runs of the same settings differ in: nothing where the arithmetic is the same, else measured."""

import os

import numpy as np
import pytest
import small_stages as small
import torch
from measured import keep
from safetensors.torch import load_file

from recamlib.stages import maps


def made(folder, *, threads=1, **environment) -> dict[str, np.ndarray]:
    """Return weights and maps of a chain of stages computed in a folder of its own, by name."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RECAM_RESULTS": str(folder), **environment}.items():
            patch.setenv(name, value)
        model, cams = small.chain().values()
        weights = load_file(model.folder / model.result["weights"]["file"])
        found = {name: tensor.numpy() for name, tensor in weights.items()}
        for name, item in cams.run("train"):
            found |= {f"{name}.{i}": np.array(m) for i, m in enumerate(item["scales"])}
    torch.set_num_threads(before)
    return found


def gap(name: str, one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Return and keep the largest difference, relative to the largest number of each array."""
    assert one.keys() == other.keys()
    found = max(
        float(np.abs(one[k].astype(np.float64) - other[k]).max() / max(np.abs(one[k]).max(), 1e-30))
        for k in one
    )
    keep("bits", {"differences": {name: found}, "cores": os.cpu_count()})
    return found


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return made(tmp_path_factory.mktemp("first"))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than cores
@pytest.mark.parametrize("what, window, environment", [
    ("the same run twice, one thread", 10, {}),
    *((f"{n} loader processes instead of none", 10, {"RECAM_WORKERS": str(n)}) for n in (1, 2)),
    *((f"maps of {n} images at once instead of 10", n, {}) for n in (1, 3)),
])  # fmt: skip
def test_nothing_changes_a_bit(first, tmp_path, monkeypatch, what, window, environment):
    monkeypatch.setattr(maps, "WINDOW", window)
    assert gap(what, first, made(tmp_path, **environment)) == 0


def test_another_number_of_threads_changes_little(first, tmp_path):
    two, again = (made(tmp_path / name, threads=2) for name in "ab")
    assert gap("the same run twice, two threads", two, again) == 0
    assert gap("two threads instead of one", first, two) < 1e-3
