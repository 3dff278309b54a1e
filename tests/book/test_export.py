"""Trained weights handed on: what is read back is what was trained, and a test split is predicted with it."""

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import recamlib as rc
from recamlib.book.export import export_row, read_network
from recamlib.cli import app
from recamlib.data.access import open_images, open_masks
from recamlib.data.voc import write_voc
from recamlib.errors import ResultsError, SettingsError, WeightsError


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A reactivated classifier and a network on its masks, hardly trained, of a VOC devkit of scenes."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("export")
        for split in ("train", "val"):
            options = {"count": 20, "size": 64, "seed": 3}
            images, masks = open_images("hoofed", split, **options), open_masks("hoofed", split, **options)
            kit = write_voc(root, images, masks, split=split)
        (kit / "ImageSets/Segmentation/test.txt").write_text("".join(f"{id}\n" for id in images.ids))
        patch.setenv("RECAM_RESULTS", str(root / "results"))
        patch.setenv("RECAM_DATA", str(root))
        data = rc.DataSettings(name="voc12")
        base = rc.TrainClassifier(dataset=data, weights="scenes", epochs=1, batch_size=8, crop=64)
        recam = rc.Reactivate(base=base, epochs=1, batch_size=8)
        cams = rc.ExtractCams(model=recam, scales=(1.0,))
        net = rc.TrainSegmenter(
            masks=rc.PseudoMasks(maps=cams, threshold=0.3), weights="scenes", steps=2, batch_size=4, crop=64
        )
        yield {"recam": recam, "net": net}


def run_of(stage):
    """A stored result with one row that the stage trained."""
    row = {"per_seed": [30.0], "mean": 30.0, "low": 29.0, "high": 31.0, "interval_over": "images"}
    row |= {"trained": [stage.uid], "convergence": "mAP 60.0 of 59.0"}
    parameters = {"dataset": "voc12", "backbone": "resnet_small", "seeds": [0]}
    return {"rows": {"row": row}, "parameters": parameters, "images": {"train": 20}}


def maps_of(model):
    stage = rc.ExtractCams(model=model, weights="w*w'", scales=(1.0,))
    return [stage.one("val", id)[0] for id in model.dataset.images("val").ids[:4]]


def test_a_classifier_comes_back_with_both_heads(stages, tmp_path):
    recam = stages["recam"]
    before = maps_of(recam)
    path, card = export_row(run_of(recam), "row", tmp_path / "out" / "model.safetensors")
    text = card.read_text()
    for told in ("horse", "FC1, FC2", "mAP 60.0 of 59.0", "mIoU 30.0", "MIT", "batch_size: 8", "epochs=0"):
        assert told in text
    again = rc.TrainClassifier(dataset=recam.dataset, weights=str(path), epochs=0)
    assert not again.result["history"].get("loss")
    for one, other in zip(before, maps_of(rc.Reactivate(base=again, epochs=0))):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_what_cannot_come_back_is_named(stages, tmp_path):
    recam = stages["recam"]
    path, _ = export_row(run_of(recam), "row", tmp_path / "model.safetensors")
    narrow = rc.DataSettings(name="voc12", classes=("horse", "cow"))
    with pytest.raises(WeightsError, match=r"fc1 of shape \(2, 160\), .* holds one of shape \(5, 160\)"):
        _ = rc.TrainClassifier(dataset=narrow, weights=str(path), epochs=0).result
    with pytest.raises(WeightsError, match="epochs=0 takes fc1 from a file of `recam export`"):
        _ = rc.TrainClassifier(dataset=recam.dataset, weights="scenes", epochs=0).result
    with pytest.raises(WeightsError, match="is no segmentation network"):
        read_network(path)
    with pytest.raises(SettingsError, match="nothing for row 'raw', seed number 0 .did you mean 'row'"):
        export_row(run_of(recam), "raw", path)
    run = run_of(recam)
    run["rows"]["row"]["trained"] = ["Reactivate-0/gone"]
    with pytest.raises(ResultsError, match="gone is missing"):
        export_row(run, "row", path)


def test_a_network_comes_back_and_predicts_the_test_split(stages, tmp_path):
    net = stages["net"]
    score = rc.SegmentationScore(of=net)
    before = dict(score.predictions())
    path, card = export_row(run_of(net), "row", tmp_path / "net.safetensors")
    assert "recam submit" in card.read_text()
    again = rc.TrainSegmenter(**{**dict(net), "infra": {}, "weights": str(path), "steps": 0})
    for id, mask in rc.SegmentationScore(of=again).predictions():
        np.testing.assert_array_equal(mask, before[id])
    archive = tmp_path / "results.tgz"
    done = CliRunner().invoke(app, ["submit", str(path), str(archive), "-p", "scales=[1.0]"])
    assert done.exit_code == 0, done.stderr
    with tarfile.open(archive) as tar:
        found = {e.name.rsplit("/", 1)[1][:-4]: np.array(Image.open(tar.extractfile(e))) for e in tar}
    assert found.keys() == before.keys()
    for id, mask in found.items():
        np.testing.assert_array_equal(mask, before[id])
    for more, said in (("limit=3", "leave limit out"), ("scale=1", "did you mean 'scales'")):
        done = CliRunner().invoke(app, ["submit", str(path), str(archive), "-p", more])
        assert done.exit_code == 1 and said in done.stderr
