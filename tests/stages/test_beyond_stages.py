"""The grad-cam package's maps beside ours, and the grid over the random walk."""

import sys

import numpy as np
import pytest
import torch

import recamlib as rc
from recamlib.data.views import normalise
from recamlib.errors import RecamError, SettingsError
from recamlib.method.maps import class_activation_maps
from recamlib.models.backbones import build_backbone
from recamlib.models.classifier import CamClassifier
from recamlib.stages import tune
from recamlib.studies.packaged import packaged_maps


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("RECAM_WORKERS", "0")


def classifier():
    data = rc.DataSettings(train_count=10, val_count=6, size=48)
    return rc.TrainClassifier(dataset=data, epochs=1, batch_size=4, crop=48, lr=0.05, fc_lr_factor=1.0)


@pytest.mark.parametrize(("name", "stride"), [("resnet_small", 16), ("vit_small_scratch", 16)])
def test_grad_cam_of_a_mean_and_a_linear_layer_is_the_class_activation_map(name, stride):
    pytest.importorskip("pytorch_grad_cam")
    torch.manual_seed(0)
    model = CamClassifier(build_backbone(name, output_stride=stride), 3).eval()
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    (theirs,) = packaged_maps(model, [image], method="gradcam", classes=[torch.tensor([2, 0])])
    view = normalise(image)
    with torch.inference_mode():
        features = model.features(torch.stack([view, view.flip(2)]))
        ours = class_activation_maps(features, model.fc1.weight, eps=0)[:, [2, 0]]  # (2, 2, h, w)
    low, high = ours.amin((2, 3), keepdim=True), ours.amax((2, 3), keepdim=True)
    ours = (ours - low) / (high - low)  # the package also brings the minimum to 0
    torch.testing.assert_close(theirs[0], ours[0] + ours[1].flip(2), rtol=1e-3, atol=1e-4)
    assert not any(p.grad is not None for p in model.parameters())
    other = packaged_maps(model, [image], method="layercam", classes=[torch.tensor([2, 0])])[0][0]
    assert (other - theirs[0]).abs().max() > 0.05  # the comparison can tell another method


@pytest.mark.parametrize("method", ["gradcam++", "layercam", "scorecam"])
def test_every_method_gives_maps_that_are_scored(method, capfd):
    pytest.importorskip("pytorch_grad_cam")
    stage = rc.PackageCams(model=classifier(), method=method)
    score = rc.Score(of=stage, split="train", limit=3)
    assert 0 <= score.miou <= 100
    assert rc.seconds_per_image(stage, split="train", limit=3) > 0
    for _, maps, present in stage.maps("train", limit=3):
        assert maps.shape == (len(present), 40, 48) and 0 <= maps.min() <= maps.max() <= 1


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    model = CamClassifier(build_backbone("resnet_small"), 3)
    with pytest.raises(RecamError, match="extra compare"):
        packaged_maps(model, [], method="gradcam", classes=[])
    with pytest.raises(SettingsError, match="did you mean 'gradcam'"):
        packaged_maps(model, [], method="grad-cam", classes=[])


def walk():
    cams = rc.ExtractCams(model=classifier(), scales=(1.0,))
    net = rc.TrainBoundary(cams=cams, epochs=1, batch_size=4, crop=64, radius=5, crf=False)
    return rc.Walk(cams=cams, boundary=net, steps=16)


def test_a_cell_of_the_grid_is_the_walk_with_its_settings():
    grid = tune.WalkGrid(walk=walk(), steps=(0, 16), thresholds=(0.1, 0.5), split="train")
    frame = grid.frame([4.0, 10.0])
    assert len(frame) == 8
    alone = rc.Walk(**{**dict(walk()), "beta": 4.0, "infra": {}})
    score = rc.Score(of=alone, split="train")
    cell = frame[(frame["beta"] == 4.0) & (frame["steps"] == 16) & (frame["threshold"] == 0.5)]
    assert cell["miou"].item() == pytest.approx(score.fixed)


def test_the_choice_is_made_on_train_alone_and_scored_on_val():
    study = tune.WalkStudy(walk(), betas=[4.0], steps=[4], thresholds=[0.1, 0.5])
    beta, steps, threshold = study.chosen
    assert {*study.frame["beta"]} == {4.0, 10.0} and {*study.frame["steps"]} == {4, 16}
    assert 0.5 in {*study.frame["threshold"]}
    best = study.frame.iloc[study.frame["miou"].argmax()]
    assert (beta, steps, threshold) == (best["beta"], best["steps"], best["threshold"])
    found = study.confirm()
    assert found["train"]["difference"] >= 0
    assert found["train"]["chosen"] == pytest.approx(best["miou"])
    low, high = found["val"]["interval"]
    assert low <= high and np.isfinite([low, high]).all()
    assert found["val"]["images"] == 6
