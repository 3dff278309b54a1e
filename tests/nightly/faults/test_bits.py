"""What two runs of the same settings differ in: nothing where the arithmetic is the same, else measured."""

import os

import numpy as np
import pytest
import small_stages as small
import torch
from measured import keep
from safetensors.torch import load_file

import recamlib as rc
from recamlib.stages import maps

DIFFERENCES: dict[str, float] = {}


def made(folder, **environment) -> dict[str, np.ndarray]:
    """Return weights, maps and masks of a chain of stages computed in a folder of its own, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", str(folder))
        for name, value in environment.items():
            patch.setenv(name, value)
        model = rc.TrainClassifier(**small.CLASSIFIER)
        cams = rc.ExtractCams(model=model, scales=(1.0, 0.5))
        weights = load_file(model.folder / model.result["weights"]["file"])
        found = {name: tensor.numpy() for name, tensor in weights.items()}
        for name, item in cams.run("train"):
            found |= {f"{name}.{i}": np.array(m) for i, m in enumerate(item["scales"])}
        return found


def gap(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Return the largest difference, relative to the largest number of each array."""
    assert one.keys() == other.keys()
    return max(
        float(np.abs(one[k].astype(np.float64) - other[k]).max() / max(np.abs(one[k]).max(), 1e-30))
        for k in one
    )


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield made(tmp_path_factory.mktemp("first"))
    torch.set_num_threads(threads)


def same(name: str, one: dict, other: dict) -> None:
    DIFFERENCES[name] = gap(one, other)
    assert all(np.array_equal(one[k], other[k]) for k in one), f"{name}: {DIFFERENCES[name]:.1e}"


def test_the_same_run_twice_gives_the_same_bits(first, tmp_path):
    same("the same run twice, one thread", first, made(tmp_path))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than cores
@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_number_of_loader_processes_changes_nothing(first, tmp_path, workers):
    same(f"{workers} loader processes instead of none", first, made(tmp_path, RECAM_WORKERS=workers))


@pytest.mark.parametrize("window", [1, 3])
def test_the_number_of_images_at_once_changes_no_map(first, tmp_path, monkeypatch, window):
    monkeypatch.setattr(maps, "WINDOW", window)
    same(f"maps of {window} images at once instead of 10", first, made(tmp_path))


def test_another_number_of_threads_changes_little(first, tmp_path):
    torch.set_num_threads(2)
    try:
        two, again = made(tmp_path / "a"), made(tmp_path / "b")
    finally:
        torch.set_num_threads(1)
    same("the same run twice, two threads", two, again)
    DIFFERENCES["two threads instead of one"] = gap(first, two)
    assert DIFFERENCES["two threads instead of one"] < 1e-3


def test_the_record_is_kept():
    """Last on purpose: what the tests above measured."""
    if len(DIFFERENCES) < 7:
        pytest.skip("not everything was measured in this process")
    keep("bits", {"differences": DIFFERENCES, "cores": os.cpu_count()})
