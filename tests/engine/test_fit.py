"""The loop: the authors' optimizer step by step, and a killed run that ends with the very same weights."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from recamlib.data.access import masks_allowed, open_images
from recamlib.data.views import LabelledViews, TrainView
from recamlib.engine import fit as engine
from recamlib.engine.fit import TrainingError, epoch_order, fit, make_optimizer
from recamlib.models.backbones import build_backbone
from recamlib.models.base import freeze_batch_norm
from tests.method.golden import golden

EPOCHS = {"epochs": 3, "batch_size": 4, "after_epoch": lambda _, epoch: {"epoch": epoch}}
STEPS = {"steps": 11, "batch_size": 2, "checkpoint_every": 2}  # six steps an epoch, then the five left
MODEL = """
import json, os, sys
import recamlib as rc
data = rc.DataSettings(train_count=10, val_count=6, size=48)
base = rc.TrainClassifier(dataset=data, epochs=1, batch_size=4, crop=32, lr=0.05, fc_lr_factor=1.0)
model = rc.Reactivate(base=base, epochs=2, batch_size=4)
"""
TOGETHER = """
maps = list(rc.ExtractCams(model=model, scales=(1.0,)).run("train"))
result = model.result
print(json.dumps([os.environ.get("RANK"), result["history"]["bce"], result["cost"]["device"], len(maps)]))
"""


def test_optimizer_is_the_published_one_with_the_momentum_it_really_has():
    z = golden("optimizer")
    weight, lr = nn.Parameter(z["start"].clone()), z["lr"].item()
    decays = {"momentum": z["momentum_in_effect"].item(), "weight_decay": z["weight_decay"].item()}
    optimizer = make_optimizer([{"params": [weight], "lr": lr}], **decays)
    for step, gradient in enumerate(z["grads"]):
        engine.set_poly_rate(optimizer, step, max_steps=z["max_step"].item(), power=z["power"].item())
        weight.grad = gradient
        optimizer.step()
        torch.testing.assert_close(weight.detach(), z["trajectory"][step], rtol=1e-5, atol=1e-7)


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


def train(views, folder, *, kind="adamw", scale=1.0, kill_at=None, **settings):
    """Train a small network; `kill_at` kills the run in that step."""
    model, optimizer = small(kind)
    seen = []

    def step(net, images, labels):
        assert not masks_allowed()
        seen.append(len(images))
        if len(seen) == kill_at:
            raise KeyboardInterrupt
        return {"loss": scale * bce(net, images, labels)["loss"]}

    history = fit(model, views, step, optimizer, seed=0, checkpoint=folder, **settings)
    return model.state_dict(), history, seen


@pytest.mark.parametrize("kind, kill_at, settings, again", [
    ("sgd", 5, EPOCHS, 6), ("adam", 5, EPOCHS, 6),
    *(("adamw", at, STEPS, 11 - (at - 1) // 2 * 2) for at in (2, 4, 5, 7, 9, 11)),
])  # fmt: skip
def test_a_killed_run_ends_as_an_unbroken_one(views, tmp_path, kind, kill_at, settings, again):
    settings = {"kind": kind} | settings
    whole, history, seen = train(views, tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(views, tmp_path / "broken", kill_at=kill_at, **settings)
    assert masks_allowed()  # in every step they were not
    resumed, found, left = train(views, tmp_path / "broken", **settings)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert found["loss"] == history["loss"] and found["steps"] == history["steps"] == len(seen)
    assert len(left) == again and len(history["loss"]) == (2 if kind == "adamw" else 3)
    assert [p["epoch"] for p in found.get("probes", [])] == ([] if kind == "adamw" else [0, 1, 2, 3])


def test_a_loss_or_weights_that_are_not_finite_stop_and_name_samples_and_rate(views, tmp_path):
    with pytest.raises(TrainingError, match=r"nan in step 1 \(samples hoofed_train_.*lower the"):
        train(views, tmp_path, scale=float("nan"), **EPOCHS)
    model, _ = small()
    optimizer = make_optimizer([{"params": list(model.parameters()), "lr": float("inf")}])
    with pytest.raises(TrainingError, match="no longer finite after epoch 1: lower the learning rate"):
        fit(model, views, bce, optimizer, epochs=1, batch_size=99, seed=0, checkpoint=tmp_path)


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(views, tmp_path):
    options = {"steps": 4, "batch_size": 2}
    whole, history, _ = train(views, tmp_path / "whole", **options)
    parts, again, seen = train(views, tmp_path / "parts", accumulate=2, **options)
    assert seen == [1] * 8 and all(torch.allclose(whole[name], parts[name], atol=1e-6) for name in whole)
    assert again["loss"] == pytest.approx(history["loss"], rel=1e-5)


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
    for freeze, shared in ((lambda net: net, True), (freeze_batch_norm, False)):
        net = freeze(build_backbone("resnet_small")).train()
        engine.share_batch_norm(net)
        assert (count(net) > 0) is shared


def test_processes_that_torchrun_starts_give_the_losses_of_one(tmp_path, monkeypatch):
    """The base is trained by one; running statistics are fixed in reactivation, so two give what one does."""
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    (tmp_path / "together.py").write_text(MODEL + TOGETHER)

    def run(*command: str) -> list:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, *command, str(tmp_path / "together.py")]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr[-3000:]
        return [json.loads(line) for line in shown.stdout.splitlines() if line.startswith("[")]

    (one,) = run()
    names: dict = {}
    exec(MODEL, names)
    model = names["model"]
    model.infra.forget(["model"])
    two = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert sorted(rank for rank, *_ in two) == ["0", "1"]
    for _, losses, device, count in two:
        np.testing.assert_allclose(losses, one[1], rtol=1e-5)
        assert device.startswith("2 x ") and count == 10
    assert not (model.folder / "checkpoint").exists()
