"""The embedded scenes carry the study: with the settings of `quick`, everything on them learns.

These conditions chose the scenes and the settings; nothing that compares ReCAM with CAM did.
"""

import pytest

import recamlib as rc
from recamlib.book.parameters import all_parameters
from recamlib.data.access import open_masks
from recamlib.data.images import labels_to_png
from recamlib.stages.refine import ConfidentLabels, TrainBoundary, Walk

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", str(tmp_path_factory.mktemp("results")))
        yield


@pytest.fixture(scope="module")
def quick(results):
    found = all_parameters("quick", "03")
    data = rc.DataSettings.of("hoofed", train_images=found["train_images"])
    settings = found["settings"]
    classifier = rc.make(rc.TrainClassifier, settings, dataset=data, weights="scenes")
    return data, settings, classifier, rc.make(rc.ExtractCams, settings, model=classifier)


def test_classifier_maps_and_fc2_learn(quick):
    _, settings, classifier, cams = quick
    assert classifier.result["convergence"]["val_map"] >= 90
    score = rc.Score(of=cams, split="train")
    assert score.miou >= score.floor + 10
    fc2 = rc.make(rc.Reactivate, settings, base=classifier).result["convergence"]
    assert fc2["fc2_accuracy"] >= fc2["softmax_accuracy"] - 3


@pytest.mark.parametrize("arch", ["deeplabv2_small", "deeplabv3plus_small", "upernet_small"])
def test_networks_learn_true_masks(quick, arch):
    data, settings, _, _ = quick
    ((bound,),) = rc.table3.upper_bounds(data, {arch: {}}, settings, seeds=[0]).values()
    score = rc.SegmentationScore(of=bound, split="val")
    assert score.miou >= max(50, score.floor + 25)


def test_irn_that_learns_from_true_masks_raises_maps(quick, monkeypatch):
    data, settings, _, cams = quick
    plain = rc.Score(of=cams, split="train").miou

    def of_true_masks(stage, requests):
        truth = open_masks("hoofed", "train_aug", **data._options("train_aug"))
        for _, name in requests:
            yield {"png": labels_to_png(truth.mask(name)), "kept": 1.0, "cost": {}}

    monkeypatch.setattr(ConfidentLabels, "make", of_true_masks)
    net = rc.make(TrainBoundary, settings, cams=cams)
    assert rc.Score(of=rc.make(Walk, settings, cams=cams, boundary=net), split="train").miou >= plain + 5
