"""Heads on fixed features: the same losses and maps as with a backbone, and what every training records."""

import time

import numpy as np
import pytest
import torch

import recamlib as rc
from recamlib.engine.extract import extract_scale_maps, image_features
from recamlib.errors import SettingsError
from recamlib.method.losses import bce_loss, reactivation_loss
from recamlib.method.maps import class_activation_maps, class_features, combine_weights
from recamlib.stages.classify import OTHER_DRAWS, _heads
from recamlib.stages.features import Features, FeatureViews

DATA = rc.DataSettings(train_count=24, val_count=12, size=48)


@pytest.fixture(scope="module", autouse=True)
def results(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", str(tmp_path_factory.mktemp("results")))
        yield


def base(**more) -> rc.TrainClassifier:
    given = {"train": "heads", "optimizer": "adam", "lr": 0.01, "fc_lr_factor": 1.0, "epochs": 3}
    return rc.TrainClassifier(**{"dataset": DATA, "batch_size": 8, **given, **more})


def reactivated(**more) -> rc.Reactivate:
    given = {"base": base(), "train": "heads", "epochs": 2, "lr": 0.5, "momentum": 0.9, "batch_size": 8}
    return rc.Reactivate(**(given | more))


@pytest.mark.parametrize("gap", ["pixels", "mask"])
def test_padded_cells_change_no_loss(gap):
    torch.manual_seed(0)
    features, plain = [torch.rand(6, 2, 3), torch.rand(6, 4, 4)], []
    views = FeatureViews(DATA.images("train_aug").select(limit=2), features)
    net = _heads(torch.nn.Linear(6, views.labels.shape[1], bias=False))
    stage = reactivated(gap=gap)
    padded = stage._head_step(net, views.cells, views.labels)
    for f, row in zip((f[None] for f in features), views.labels[:, None]):
        maps = class_activation_maps(f, net.fc1.weight)
        sce = reactivation_loss(class_features(f, maps, gap=gap), row, classifier=net.head)
        plain.append((bce_loss(net.fc1(f.mean((2, 3))), row).item(), sce.item()))
    assert [padded[loss].item() for loss in ("bce", "sce")] == pytest.approx(np.mean(plain, 0), rel=1e-5)


def test_maps_of_stored_features_are_those_of_the_network():
    model, images = reactivated(), DATA.images("train")
    (item,) = Features(dataset=DATA, mirror=True).items([("train", images.ids[0])])
    assert item["features"].dtype == "float16" and item["features"].shape[0] == 2
    classifier, fc2 = model.load()
    name, scales = images.ids[0], (1.0, 0.5)
    more = {"scales": scales, "classes": [torch.from_numpy(images.labels(name)).nonzero().flatten()]}
    for option in ("w", "w*w'", "w*random"):
        weights = combine_weights(classifier.fc1.weight.detach(), fc2, option, seed=model.seed)[None]
        (wanted,) = extract_scale_maps(classifier, [images.image(name)], weights, **more)
        stage = rc.ExtractCams(model=model, weights=option, scales=scales)
        item = next(iter(stage.items([("train", name)])))
        for mine, theirs in zip(item["scales"], wanted):
            got = torch.from_numpy(mine.copy())[stage.options.index(option)]
            assert torch.allclose(got, theirs[0], rtol=2e-2, atol=2e-2 * float(theirs.max()))


def test_features_take_the_same_time_for_all_that_share_them(monkeypatch):
    def slow(*given, **more):
        return time.sleep(1) or image_features(*given, **more)

    monkeypatch.setattr("recamlib.stages.features.image_features", slow)
    stages = [rc.ExtractCams(model=model, scales=(0.9,)) for model in (base(), reactivated())]
    cam, recam = (rc.pipeline_cost(stage, split="train")["parts"] for stage in stages)
    assert cam["extract features"] == recam["extract features"] > 1 > cam["extract maps"]


def test_every_training_says_how_far_it_is():
    stage = reactivated()
    record = stage.result["convergence"]
    assert min(record["val_map"], record["fc1_map"]) > 0 and record["ln_k"] == pytest.approx(np.log(5))
    assert len(record["epochs"]) == stage.epochs + 1 and record["epochs"][0]["cosine"] == pytest.approx(1)
    assert record["softmax_sce"] <= record["sce"] + 1e-3
    control = reactivated(sce_weight=0.0).result["convergence"]
    assert "fc2_accuracy" not in control and control["fc1_map"] == record["fc1_map"]


def test_a_linear_start_is_the_layer_fitted_on_untouched_features_and_reactivation_draws_anew():
    stage = base(train="all", fc_init="linear", epochs=1, lr=1e-9, weight_decay=0.0, optimizer="sgd", crop=48)
    assert torch.allclose(stage.load()[0].fc1.weight, stage.linear.fc1().weight, atol=1e-6)
    assert stage.linear.result["convergence"]["val_map"] == stage.result["convergence"]["fc1_map"]
    first, second = stage.views(), stage.views(draws=OTHER_DRAWS)
    assert not all(first[i][0].equal(second[i][0]) for i in range(len(first)))


def test_what_cannot_be_reactivated_is_refused_at_once():
    alone = rc.TrainClassifier(dataset=rc.DataSettings(classes=("horse",)))
    for refused, message in (
        (lambda: reactivated(base=base(train="all")), "a base with train='heads'"),
        (lambda: rc.Reactivate(base=alone), "softmax over one class"), (lambda: base(probe=True), "probe"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=message):
            refused()
