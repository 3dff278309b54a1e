"""The loop: the authors' optimizer step by step, and a killed run that ends with the very same weights."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import recamlib as rc
from recamlib.data.access import masks_allowed, open_images
from recamlib.data.views import LabelledViews, TrainView
from recamlib.engine.fit import (
    TrainingError,
    epoch_order,
    fit,
    make_optimizer,
    set_poly_rate,
    share_batch_norm,
)
from recamlib.models.backbones import build_backbone
from recamlib.models.base import freeze_batch_norm


def test_optimizer_is_the_published_one_with_the_momentum_it_really_has():
    golden = np.load(Path(__file__).parents[1] / "baselines" / "optimizer.npz")
    weight = nn.Parameter(torch.tensor(golden["start"]))
    momentum, decay = float(golden["momentum_in_effect"]), float(golden["weight_decay"])
    optimizer = make_optimizer(
        [{"params": [weight], "lr": float(golden["lr"])}], momentum=momentum, weight_decay=decay
    )
    for step, gradient in enumerate(golden["grads"]):
        set_poly_rate(optimizer, step, max_steps=int(golden["max_step"]), power=float(golden["power"]))
        weight.grad = torch.tensor(gradient)
        optimizer.step()
        np.testing.assert_allclose(weight.detach(), golden["trajectory"][step], rtol=1e-5, atol=1e-7)


@pytest.fixture
def views():
    images = open_images("hoofed", "train", count=12, size=48, seed=0, single_share=0.6)
    return LabelledViews(images, TrainView(crop=32, long_side=(32, 40)), seed=0)


def small(kind="sgd"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    return model, make_optimizer([{"params": list(model.parameters()), "lr": 0.05}], kind=kind, momentum=0.9)


def bce(net, images, labels):
    return {"loss": nn.functional.binary_cross_entropy_with_logits(net(images), labels)}


def train(views, folder, *, stop_after=None, kind="sgd", scale=1.0):
    """Train a small network; `stop_after` kills the run once that many epochs are stored."""
    model, optimizer = small(kind)

    def step(*args):
        assert not masks_allowed()
        return {"loss": scale * bce(*args)["loss"]}

    def after(_, epoch):
        if stop_after is not None and epoch == stop_after + 1:
            raise KeyboardInterrupt
        return {"epoch": epoch}

    settings = {"epochs": 3, "batch_size": 4, "seed": 0, "checkpoint": folder, "after_epoch": after}
    history = fit(model, views, step, optimizer, **settings)
    return model.state_dict(), history


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(views, tmp_path, kind):
    whole, history = train(views, tmp_path / "whole", kind=kind)
    with pytest.raises(KeyboardInterrupt):
        train(views, tmp_path / "broken", kind=kind, stop_after=1)
    resumed, resumed_history = train(views, tmp_path / "broken", kind=kind)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert history["loss"] == resumed_history["loss"]
    assert [p["epoch"] for p in resumed_history["probes"]] == [0, 1, 2, 3]
    assert masks_allowed()  # again: in every step they were not


def test_weights_that_are_no_longer_finite_are_the_rates_fault(views, tmp_path):
    model, _ = small()
    optimizer = make_optimizer([{"params": list(model.parameters()), "lr": float("inf")}])
    with pytest.raises(TrainingError, match="no longer finite after epoch 1: lower the learning rate"):
        fit(model, views, bce, optimizer, epochs=1, batch_size=99, seed=0, checkpoint=tmp_path)


def train_steps(views, folder, *, steps, kill_at=None, accumulate=1):
    """Train for so many steps with checkpoints within the epoch; `kill_at` kills the run in that step."""
    model, optimizer = small("adamw")
    seen = []

    def step(net, images, labels):
        seen.append(len(images))
        if len(seen) == kill_at:
            raise KeyboardInterrupt
        return bce(net, images, labels)

    settings = {"steps": steps, "batch_size": 2, "accumulate": accumulate, "seed": 0, "checkpoint_every": 2}
    history = fit(model, views, step, optimizer, checkpoint=folder, **settings)
    return model.state_dict(), history, seen


@pytest.mark.parametrize("kill_at", [2, 4, 5, 7, 9, 11])
def test_a_run_by_steps_goes_on_within_the_epoch(views, tmp_path, kill_at):
    whole, history, _ = train_steps(views, tmp_path / "whole", steps=11)
    assert history["steps"] == 11
    assert len(history["loss"]) == 2  # six steps, then the five that were left
    with pytest.raises(KeyboardInterrupt):
        train_steps(views, tmp_path / "broken", steps=11, kill_at=kill_at)
    resumed, again, seen = train_steps(views, tmp_path / "broken", steps=11)
    assert len(seen) == 11 - (kill_at - 1) // 2 * 2
    assert all(torch.equal(whole[name], resumed[name]) for name in whole) and again["loss"] == history["loss"]


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(views, tmp_path):
    whole, history, _ = train_steps(views, tmp_path / "whole", steps=4)
    parts, again, seen = train_steps(views, tmp_path / "parts", steps=4, accumulate=2)
    assert seen == [1] * 8 and all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)
    assert again["loss"] == pytest.approx(history["loss"], rel=1e-5)


def test_a_loss_that_is_not_finite_stops_and_names_the_samples(views, tmp_path):
    with pytest.raises(TrainingError, match=r"nan in step 1 \(samples hoofed_train_.*lower the"):
        train(views, tmp_path, scale=float("nan"))


def test_a_batch_is_there_before_it_is_asked_for(views, tmp_path):
    """The thread that makes batches is one ahead, and what it makes is what the loop would have."""
    made, used = [], []

    class Watched(LabelledViews):
        def __getitem__(self, index):
            made.append(index)
            return super().__getitem__(index)

    def step(net, images, labels):
        end = time.monotonic() + 60  # the thread may have to wait for a core
        while len(made) < min(12, len(used) + 8) and time.monotonic() < end:
            time.sleep(0.01)
        assert len(made) >= min(12, len(used) + 8)
        used.extend([None] * len(images))
        return bce(net, images, labels)

    watched = Watched(views.images, TrainView(crop=32, long_side=(32, 40)), seed=0)
    fit(small()[0], watched, step, small()[1], epochs=1, batch_size=4, seed=0, checkpoint=tmp_path)
    assert made == epoch_order(12, seed=0, epoch=0) and sorted(made) == list(range(12))
    assert made != epoch_order(12, seed=0, epoch=1)


def test_only_batch_norm_that_trains_is_shared():
    count = lambda net: sum(isinstance(m, nn.SyncBatchNorm) for m in net.modules())  # noqa: E731
    training, fixed = build_backbone("resnet_small"), freeze_batch_norm(build_backbone("resnet_small"))
    for net in (training, fixed):
        share_batch_norm(net.train())
    assert count(training) > 0 and count(fixed) == 0


TOGETHER = """
import json, os, sys
import recamlib as rc
data = rc.DataSettings(train_count=10, val_count=6, size=48)
base = rc.TrainClassifier(dataset=data, epochs=1, batch_size=4, crop=32, lr=0.05, fc_lr_factor=1.0)
model = rc.Reactivate(base=base, epochs=2, batch_size=4)
history = model.result["history"]
ids = data.images("train").ids
maps = list(rc.ExtractCams(model=model, scales=(1.0,)).items([("train", name) for name in ids]))
print(json.dumps([os.environ.get("RANK"), history["bce"], model.result["cost"]["device"], len(maps)]))
"""


def test_processes_that_torchrun_starts_give_the_losses_of_one(tmp_path, monkeypatch):
    """The base is trained by one; running statistics are fixed in reactivation, so two give what one does."""
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    (tmp_path / "together.py").write_text(TOGETHER)

    def run(*command: str) -> list:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        shown = subprocess.run(
            [sys.executable, *command, str(tmp_path / "together.py")], env=environment, capture_output=True,
            text=True,
        )  # fmt: skip
        assert shown.returncode == 0, shown.stderr[-3000:]
        return [json.loads(line) for line in shown.stdout.splitlines() if line.startswith("[")]

    (one,) = run()
    data = rc.DataSettings(train_count=10, val_count=6, size=48)
    base = rc.TrainClassifier(dataset=data, epochs=1, batch_size=4, crop=32, lr=0.05, fc_lr_factor=1.0)
    model = rc.Reactivate(base=base, epochs=2, batch_size=4)
    model.infra.forget(["model"])
    two = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert sorted(rank for rank, *_ in two) == ["0", "1"]
    for _, losses, device, count in two:
        np.testing.assert_allclose(losses, one[1], rtol=1e-5)
        assert device.startswith("2 x ") and count == 10
    assert not (model.folder / "checkpoint").exists()
