"""Stages with saliency: EPS, what is reactivated from it, the merge, scores; keys, resume, no masks."""

import shutil

import numpy as np
import pytest
import torch
from chain import DATA, cams, classifier, interrupt, reactivated, segmenter, walked
from PIL import Image

import recamlib as rc
from recamlib.errors import DataError, SettingsError
from recamlib.method.saliency import edam_merge
from recamlib.stages import classify, segment


def eps(**more):
    return classifier(**({"saliency": rc.Saliency()} | more))


def recam_e(**more):
    return reactivated(base=eps(), **more)


@pytest.fixture
def maps_folder(tmp_path):
    """A folder with a map, brightness in 0 to 100, for every image of the tests."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for split in ("train_aug", "val"):
        images = DATA.images(split)
        for id in images.ids:
            grey = images.image(id).float().mean(0) * (100 / 255)
            Image.fromarray(grey.round().to(torch.uint8).numpy()).save(folder / f"{id}.png")
    return folder


def test_saliency_is_part_of_the_key_and_its_absence_changes_no_key(maps_folder, tmp_path, monkeypatch):
    assert "saliency" not in classifier().uid
    folder = rc.Saliency(folder=str(maps_folder))
    assert (folder.source, folder.peak) == ("folder", 100)
    keys = [classifier().uid, eps().uid, eps(saliency_weight=0.5).uid, eps(saliency=folder).uid]
    name = DATA.images("train").ids[0]
    monkeypatch.setenv("RECAM_DATA", str(tmp_path))  # a folder in the data folder needs no path, and may move
    before = rc.SaliencyMaps(dataset=DATA, saliency=rc.Saliency(folder="maps")).one("train", name)
    moved = rc.Saliency(folder=str(maps_folder.rename(tmp_path / "moved")))
    assert eps(saliency=moved).uid == keys[-1] and "moved" not in moved.describe()
    assert np.array_equal(rc.SaliencyMaps(dataset=DATA, saliency=moved).one("train", name), before)
    changed = shutil.copytree(tmp_path / "moved", tmp_path / "changed")
    Image.fromarray(np.full((4, 4), 50, np.uint8)).save(next(changed.glob("*.png")))
    keys.append(eps(saliency=rc.Saliency(folder=str(changed))).uid)
    assert len(set(keys)) == 5


def test_missing_maps_stop_the_run_before_anything_is_trained(maps_folder, monkeypatch):
    ids = DATA.images("train").ids
    for id in ids[2:5]:
        (maps_folder / f"{id}.png").unlink()
    for place in ("recamlib.engine.fit.fit", "recamlib.stages.saliency.SaliencyFolder.map"):
        monkeypatch.setattr(place, lambda *a, **k: pytest.fail("the work has begun"))
    with pytest.raises(DataError, match=f"3 of 10 images .*: {ids[2]}, {ids[3]}, {ids[4]};"):
        _ = eps(saliency=rc.Saliency(folder=str(maps_folder))).result
    rc.SaliencyMaps(dataset=DATA).check("train_aug")  # the embedded one needs no file


def test_training_with_saliency_opens_no_mask_and_adds_its_loss(empty, no_masks):
    assert set(eps().result["history"]) == {"loss", "bce", "eps", "steps"}
    assert set(recam_e().result["history"]) == {"loss", "bce", "sce", "eps", "steps"}
    for weight in (2.0, 0.0):
        found = recam_e(sce_weight=weight).result["history"]
        expected = np.add(found["bce"], found["eps"]) + weight * np.array(found.get("sce", 0))
        np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
    assert len(list(cams(recam_e(), reading="softmax").run("train"))) == 10


@pytest.mark.parametrize("stage, module, loss", [
    (lambda: eps(epochs=2), classify, "eps_loss"), (lambda: segmenter(steps=5), segment, "multiscale_loss"),
])  # fmt: skip
def test_a_killed_run_gives_the_weights_of_an_unbroken_one(stage, module, loss, monkeypatch):
    whole = stage().result["weights"]["sha256"]
    stage().infra.forget(["model"])
    calls = interrupt(monkeypatch, module, loss, at=4)
    with pytest.raises(KeyboardInterrupt):
        _ = stage().result
    assert stage().result["weights"]["sha256"] == whole
    assert len(calls) in (4 + 2, 4 + 3)  # what comes after the last checkpoint: an epoch, or steps 3 to 5


def test_a_softmax_reading_is_the_share_of_each_class_and_needs_a_background():
    stage = cams(eps(), reading="softmax")
    (model, _), images = stage.model.load(), stage.dataset.images("train")
    name, picture = images.ids[0], images.image(images.ids[0])
    with torch.inference_mode():
        pair = [rc.data.views.normalise(view)[None] for view in (picture, picture.flip(2))]
        shares = [model.scores(model.features(x)).softmax(1)[0] for x in pair]
    expected = shares[0] + shares[1].flip(2)  # (K + 1, h, w)
    _, classes = stage.one("train", name)
    found = next(iter(stage.items([("train", name)])))["scales"][0][0]
    np.testing.assert_allclose(found, expected[classes].numpy(), atol=1e-5)
    assert stage.fixed_threshold == 0.20 and stage.uid != cams(eps()).uid
    for model, more, message in ((classifier(), {}, "background channel"),
                                 (recam_e(), {"weights": "w*w'"}, "'w' alone")):  # fmt: skip
        with pytest.raises(SettingsError, match=message):
            cams(model, reading="softmax", **more)


def test_the_merge_is_the_equation_on_maps_with_peak_one():
    stage = rc.SaliencyMerge(cams=cams(), theta=0.3)
    salient = rc.SaliencyMaps(dataset=stage.dataset)
    for name, maps, classes in stage.maps("train"):
        raw, same = stage.cams.one("train", name)
        raw = raw / raw.amax((1, 2), keepdim=True).clamp(min=1e-5)
        mask = edam_merge(raw.numpy(), salient.one("train", name), theta=0.3)
        assert classes == same and maps.sum(0).max() <= 1
        assert np.array_equal((maps * torch.arange(1, 1 + len(maps))[:, None, None]).sum(0), mask)
    item = next(iter(stage.items([("train", name)])))
    assert stage.merge(item, stride=4).shape[1:] == tuple(-(-side // 4) for side in item["size"])


def test_a_merge_has_no_threshold_and_feeds_masks_scores_and_networks():
    stage = rc.SaliencyMerge(cams=walked(cams()))
    score = rc.Score(of=stage)
    assert score.fixed == score.best == pytest.approx(score.miou)
    assert rc.pipeline_cost(stage, split="train")["parts"].keys() >= {"random walk", "merge with saliency"}
    net = rc.TrainSegmenter(masks=rc.PseudoMasks(maps=stage), steps=2, batch_size=4, crop=64, lr=0.01)
    assert rc.SegmentationScore(of=net).result["images"] == 6
    with pytest.raises(SettingsError):
        rc.TrainBoundary(cams=stage)
    with pytest.raises(SettingsError, match="0 <= alpha <= beta"):
        list(rc.SaliencyMerge(cams=cams(), alpha=0.9, beta=0.5).run("train"))


def test_saliency_is_scored_as_one_foreground():
    score = rc.SaliencyScore(dataset=DATA, theta=0.37)
    truth, maps = score.dataset.masks("train"), rc.SaliencyMaps(dataset=score.dataset)
    found = np.concatenate([(maps.one("train", name) > np.float32(0.37)).ravel() for name in truth.ids])
    there = np.concatenate([(truth.mask(name) > 0).ravel() for name in truth.ids])
    assert score.miou == pytest.approx(100 * (found & there).sum() / (found | there).sum())
    assert score.result["share"] == pytest.approx(there.mean())
    low, high = score.interval()
    assert low <= score.miou <= high
