"""Trained weights handed on: what is read back is what was trained, and a test split is predicted with it."""

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import recamlib as rc
from recamlib.book.export import export_row, read_network
from recamlib.data.voc import write_voc
from recamlib.errors import RecamError
from tests.data.devkits import both
from tests.made_up import result, row


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A reactivated classifier and a network on its masks, hardly trained, of a VOC devkit of scenes."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("export")
        for split in ("train", "val"):
            images, masks = both("hoofed", split, count=20, size=64, seed=3)
            kit = write_voc(root, images, masks, split=split)
        (kit / "ImageSets/Segmentation/test.txt").write_text("".join(f"{id}\n" for id in images.ids))
        patch.setenv("RECAM_RESULTS", str(root / "results"))
        patch.setenv("RECAM_DATA", str(root))
        data = rc.DataSettings(name="voc12")
        base = rc.TrainClassifier(dataset=data, weights="scenes", epochs=1, batch_size=8, crop=64)
        recam = rc.Reactivate(base=base, epochs=1, batch_size=8)
        masks = rc.PseudoMasks(maps=rc.ExtractCams(model=recam, scales=(1.0,)), threshold=0.3)
        net = rc.TrainSegmenter(masks=masks, weights="scenes", steps=2, batch_size=4, crop=64)
        yield {"recam": recam, "net": net}


def run_of(stage):
    """A stored result with one row that the stage trained."""
    more = {"per_seed": [30.0], "interval_over": "images", "trained": [stage.uid]}
    return result("02", {"row": row(30.0, convergence="mAP 60.0 of 59.0", **more)}, dataset="voc12")


def maps_of(model):
    stage = rc.ExtractCams(model=model, weights="w*w'", scales=(1.0,))
    return [stage.one("val", id)[0] for id in model.dataset.images("val").ids[:4]]


def test_a_classifier_comes_back_with_both_heads_and_what_cannot_is_named(stages, tmp_path):
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
    run, narrow = run_of(recam), rc.DataSettings(name="voc12", classes=("horse", "cow"))
    run["rows"]["gone"] = {"trained": ["Reactivate-0/gone"]}
    for call, message in (
        (lambda: rc.TrainClassifier(dataset=narrow, weights=str(path), epochs=0).result,
         r"fc1 of shape \(2, 160\), .* holds one of shape \(5, 160\)"),
        (lambda: rc.TrainClassifier(dataset=recam.dataset, weights="scenes", epochs=0).result,
         "epochs=0 takes fc1 from a file of `recam export`"),
        (lambda: read_network(path), "is no segmentation network"),
        (lambda: export_row(run, "gone", path), "gone is missing"),
        (lambda: export_row(run, "raw", path), "nothing for row 'raw', seed number 0 .did you mean 'row'"),
    ):  # fmt: skip
        with pytest.raises(RecamError, match=message):
            call()


def test_a_network_comes_back_and_predicts_the_test_split(stages, recam, tmp_path):
    net = stages["net"]
    before = dict(rc.SegmentationScore(of=net).predictions())
    path, card = export_row(run_of(net), "row", tmp_path / "net.safetensors")
    assert "recam submit" in card.read_text()
    again = rc.TrainSegmenter(**{**dict(net), "infra": {}, "weights": str(path), "steps": 0})
    for id, mask in rc.SegmentationScore(of=again).predictions():
        np.testing.assert_array_equal(mask, before[id])
    archive = tmp_path / "results.tgz"
    done = recam("submit", path, archive, "-p", "scales=[1.0]")
    assert done.exit_code == 0, done.stderr
    with tarfile.open(archive) as tar:
        found = {e.name.rsplit("/", 1)[1][:-4]: np.array(Image.open(tar.extractfile(e))) for e in tar}
    assert found.keys() == before.keys()
    for id, mask in found.items():
        np.testing.assert_array_equal(mask, before[id])
    for more, said in (("limit=3", "leave limit out"), ("scale=1", "did you mean 'scales'")):
        done = recam("submit", path, archive, "-p", more)
        assert done.exit_code == 1 and said in done.stderr
