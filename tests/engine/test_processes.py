"""Several processes that train together give what one gives, go on where they stopped, and see no mask."""

import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "nightly" / "faults"))
import small_stages as small

from recamlib import stages as rc
from recamlib.data.access import open_images
from recamlib.data.views import LabelledViews, TrainView
from recamlib.engine.fit import fit, make_optimizer
from recamlib.engine.processes import rank, run_together, wanted_processes
from recamlib.errors import MaskAccessError, RecamError, SettingsError
from recamlib.method.losses import mean_over_processes
from recamlib.models.backbones import build_backbone
from recamlib.models.base import freeze_batch_norm
from recamlib.models.shared_norm import share_statistics
from recamlib.stages.infra import StageCache


@pytest.fixture(scope="module")
def upstream(tmp_path_factory) -> Path:
    """Results of one process, for all that the trainings below are made from."""
    return tmp_path_factory.mktemp("processes") / "results"


def stages() -> dict[str, rc.Stage]:
    """Return a training of every kind, each after what it is made from."""
    found = {name: stage for name, stage in small.stages().items() if name in small.TRAINING}
    kept = found["TrainSegmenter"]
    parts = {name: getattr(kept, name) for name in ("masks", "steps", "batch_size", "crop")}
    return found | {"in parts": rc.TrainSegmenter(**parts, accumulate=2)}


@pytest.mark.parametrize("name", [*small.TRAINING[:4], "in parts"])
def test_two_processes_give_the_losses_and_weights_of_one(name, upstream, tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(upstream))
    one = stages()[name]
    one.prepare(["model"])
    shutil.copytree(upstream, tmp_path / "two", dirs_exist_ok=True)
    single = one.result
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "two"))
    monkeypatch.setenv("RECAM_PROCESSES", "2")
    two = stages()[name]
    double = two.result
    assert double["cost"]["device"].startswith("2 x ")
    assert single["history"].keys() == double["history"].keys()
    for key, values in single["history"].items():
        np.testing.assert_allclose(double["history"][key], values, rtol=1e-5, atol=1e-6, err_msg=key)
    before, after = (load_file(s.folder / r["weights"]["file"]) for s, r in ((one, single), (two, double)))
    for key, value in before.items():
        np.testing.assert_allclose(after[key], value, rtol=1e-5, atol=1e-5, err_msg=key)
    assert not (two.folder / "checkpoint").exists()
    # how many processes there were is no part of the key
    monkeypatch.setenv("RECAM_PROCESSES", "1")
    monkeypatch.setattr(StageCache, "_call_and_store", None)
    assert stages()[name].result["weights"] == double["weights"]


def test_every_process_of_a_group_that_something_else_started_may_ask_for_a_result(tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    run_together(ask, processes=2)
    assert sorted(file.name for file in tmp_path.glob("*.txt")) == ["0.txt", "1.txt"]
    assert (tmp_path / "0.txt").read_text() == (tmp_path / "1.txt").read_text()


def ask() -> None:
    """Ask for a training and for maps, as a script does that torchrun starts."""
    stage = rc.ExtractCams(model=rc.TrainClassifier(**small.CLASSIFIER), scales=(1.0,))
    ids = small.DATA.images("train").ids
    digest = small.digest(dict(zip(ids, stage.items([("train", name) for name in ids]))))
    weights = stage.model.result["weights"]["sha256"]
    (Path(os.environ["RECAM_RESULTS"]) / f"{rank()}.txt").write_text(f"{digest} {weights}")


def train(folder: Path, *, kind: str = "", frozen: bool = False) -> None:
    """Train a small network as one of several processes, and write its weights; `kind` is what goes wrong."""
    images = open_images("hoofed", "train", count=12, size=48, seed=0, single_share=0.6)
    views = LabelledViews(images, TrainView(crop=32, long_side=(32, 40)), seed=0)
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    if frozen:
        freeze_batch_norm(model)
    optimizer = make_optimizer([{"params": list(model.parameters()), "lr": 0.05}], momentum=0.9)
    seen = []

    def step(net, images, labels):
        seen.append(len(images))
        if rank() == 1 and len(seen) == 4:
            if kind == "mask":
                small.DATA.masks("train")
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": nn.functional.binary_cross_entropy_with_logits(net(images), labels)}

    fit(model, views, step, optimizer, epochs=3, batch_size=4, seed=0, checkpoint=folder, checkpoint_every=2)
    assert set(seen) <= {2, 4}
    torch.save(model.state_dict(), folder / f"weights_{rank()}.pt")


def weights(folder: Path, number: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"weights_{number}.pt", weights_only=True)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_killed_process_ends_all_and_they_go_on_to_the_very_same_weights(tmp_path, frozen):
    run = partial(train, frozen=frozen)
    run_together(partial(run, tmp_path / "whole"), processes=2)
    whole = weights(tmp_path / "whole")
    assert all(torch.equal(whole[k], weights(tmp_path / "whole", 1)[k]) for k in whole), "they drifted apart"
    with pytest.raises(RecamError, match="a process of the training died"):
        run_together(partial(run, tmp_path / "broken", kind="kill"), processes=2)
    assert (tmp_path / "broken" / "progress.json").exists()
    run_together(partial(run, tmp_path / "broken"), processes=2)
    assert all(torch.equal(whole[k], weights(tmp_path / "broken")[k]) for k in whole)
    run(tmp_path / "one")
    for key, value in weights(tmp_path / "one").items():
        torch.testing.assert_close(whole[key], value, rtol=1e-5, atol=1e-6)


def test_fixed_batch_norm_has_nothing_to_share():
    net = build_backbone("resnet_small").train()
    assert share_statistics(freeze_batch_norm(net)) == 0
    assert not any("Shared" in type(module).__name__ for module in net.modules())
    assert share_statistics(build_backbone("resnet_small").train()) > 0
    with pytest.raises(SettingsError, match="use one process"):
        share_statistics(nn.BatchNorm2d(2, momentum=None))


def test_no_process_sees_a_mask_while_it_trains(tmp_path):
    with pytest.raises(MaskAccessError, match="masks are for metrics only"):
        run_together(partial(train, tmp_path, kind="mask"), processes=2)


def test_one_process_counts_for_itself_and_a_wrong_number_is_refused(monkeypatch):
    assert mean_over_processes(3) == 3
    for wrong in ("0", "-1", "two"):
        monkeypatch.setenv("RECAM_PROCESSES", wrong)
        with pytest.raises(SettingsError, match="expected a number of processes"):
            wanted_processes()
