"""Saliency maps: folders with every oddity, OpenCV's own, and views that crop them with their image."""

import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from recamlib.data.access import open_images
from recamlib.data.saliency import SaliencyFolder, fine_grained
from recamlib.data.views import IMAGENET_MEAN, IMAGENET_STD, LabelledViews, SaliencyViews, TrainView
from recamlib.errors import DataError, RecamError

RAMP = np.arange(24, dtype=np.uint8).reshape(4, 6) * 4  # 0 to 92


def folder(path, *, mode="L", **maps):
    path.mkdir(exist_ok=True)
    for name, values in maps.items():
        Image.fromarray(np.asarray(values, np.uint8)).convert(mode).save(path / f"{name}.png")
    return SaliencyFolder(path)


def test_values_up_to_100_are_detected_over_the_whole_folder_and_fingerprints_are_of_all_of_it(tmp_path):
    for value, peak in ((100, 100), (101, 255)):
        assert folder(tmp_path / str(value), a=RAMP, b=np.full((2, 2), value)).survey().peak == peak
    with pytest.raises(DataError, match="no value above 1; store saliency as 0 to 255 or 0 to 100"):
        folder(tmp_path / "binary", a=np.ones((2, 2))).survey()
    sets = ({"a": RAMP}, {"a": RAMP}, {"b": RAMP}, {"a": RAMP + 1}, {"a": RAMP, "b": RAMP})
    prints = [folder(tmp_path / f"set{n}", **maps).survey().fingerprint for n, maps in enumerate(sets)]
    assert prints[0] == prints[1] and len(set(prints)) == 4


def test_a_map_up_to_100_keeps_every_decision_at_a_threshold(tmp_path):
    levels = np.arange(101, dtype=np.uint8)[None]
    found = folder(tmp_path, a=levels).map("a", (1, 101), peak=100) / np.float32(255)
    for theta in range(101):
        assert ((found <= np.float32(theta / 100)) == (levels <= theta)).all(), theta
    assert found[0, 100] == 1


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "I;16"])
def test_ways_to_store_grey(tmp_path, mode):
    grey, deep = Image.fromarray(RAMP), Image.fromarray(RAMP.astype(np.uint16) << 8)
    (deep if mode == "I;16" else grey.convert(mode)).save(tmp_path / "a.png")
    assert (SaliencyFolder(tmp_path).map("a", (4, 6), peak=255) == RAMP).all()


def test_missing_and_damaged_files_and_masks_are_refused_by_name(tmp_path):
    for place, message in ((tmp_path / "nowhere", "is no folder"), (tmp_path, "holds no PNG")):
        with pytest.raises(DataError, match=message):
            SaliencyFolder(place)
    maps = folder(tmp_path, good=RAMP)
    maps.check(["good"])
    with pytest.raises(DataError, match=r"7 of 8 images have no saliency map in .*: 0, 1, 2, 3, 4, \.\.\.;"):
        maps.check(["good", *"0123456"])
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:-20])
    folder(tmp_path, mode="P", mask=RAMP)
    for name, message in (("cut", "cut.png"), ("mask", "mask.png has a palette"), ("gone", "is missing")):
        with pytest.raises(DataError, match=message):
            maps.map(name, (4, 6), peak=255)


def test_another_opencv_in_its_place_is_named(monkeypatch):
    for module in (types.ModuleType("cv2"), None):
        monkeypatch.setitem(sys.modules, "cv2", module)
        with pytest.raises(RecamError, match="then install opencv.*, or name a folder of saliency maps"):
            fine_grained(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_the_map_goes_through_the_same_scale_mirror_and_crop_as_the_image():
    """With the image's own red channel as saliency, both channels of a view must say the same."""
    images = open_images("hoofed", "train", count=4, size=64)
    sizes = {"crop": 48, "long_side": (30, 90)}
    views = SaliencyViews(images, lambda id: images.image(id)[0].numpy(), **sizes, seed=3)
    plain = LabelledViews(images, TrainView(**sizes), seed=3)
    smaller = 0
    for epoch in range(6):
        for both in (views, plain):
            both.set_epoch(epoch)
        for (view, labels, _), (image, expected, _) in zip(map(views.__getitem__, range(4)), plain):
            assert view.shape == (4, 48, 48)
            assert torch.equal(view[:3], image) and torch.equal(labels, expected)
            red = view[0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]
            inside = (view[:3] != 0).any(0)
            smaller += not inside.all()
            torch.testing.assert_close(view[3][inside], red[inside], atol=1e-5, rtol=0)
            assert not view[3][~inside].any()
    assert smaller  # some views had room around the image
    with pytest.raises(DataError, match=r"saliency map of hoofed_train_00000 has shape \(4, 6\)"):
        SaliencyViews(images, lambda id: RAMP, **sizes)[0]
