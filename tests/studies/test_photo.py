"""CAM, ReCAM and mask of any photograph, with the packaged heads."""

import hashlib

import numpy as np
import pytest
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from recamlib.data.images import read_mask
from recamlib.errors import RecamError
from recamlib.studies.photo import HEADS, map_photo, write_photo


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.safetensors"
    save_file(torchvision.models.mobilenet_v2().state_dict(), path)
    return str(path)


@pytest.mark.parametrize("mode, size", [("RGB", (300, 200)), ("L", (40, 90)), ("CMYK", (120, 33))])
def test_any_picture(mode, size, weights, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    photo = tmp_path / f"photo {mode}.tiff"
    Image.fromarray(pixels).convert(mode).save(photo)
    found = map_photo(photo, classes=["dog", "cat"], backbone_weights=weights)
    assert found.classes == ("cat", "dog") and found.cam.shape == found.recam.shape == (2, *size[::-1])
    assert set(np.unique(found.mask)) <= {0, 8, 12}
    picture, mask, maps = write_photo(found, tmp_path / "out", photo.stem)
    assert Image.open(picture).width > 300 and (read_mask(mask) == found.mask).all()
    with np.load(maps) as stored:
        assert stored["classes"].tolist() == ["cat", "dog"]


def test_a_rotation_is_applied_and_what_is_not_there_is_named(weights, tmp_path, monkeypatch):
    image = Image.fromarray(np.zeros((20, 60, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[274] = 6  # a quarter turn
    image.save(tmp_path / "turned.jpg", exif=exif)
    found = map_photo(tmp_path / "turned.jpg", classes=["cat"], backbone_weights=weights)
    assert found.image.shape == (60, 20, 3)
    monkeypatch.setattr("recamlib.studies.photo.SEEN", 1.0)
    image.save(tmp_path / "black.png")
    with pytest.raises(RecamError, match="black.png shows none of VOC's twenty classes .likeliest: "):
        map_photo(tmp_path / "black.png", backbone_weights=weights)
    with pytest.raises(RecamError, match="unknown class 'cta'.*'cat'"):
        map_photo(tmp_path / "black.png", classes=["cta"], backbone_weights=weights)


def test_the_heads_are_those_that_were_made():
    digest = "de93e7696347b1536e7e60cc23cc9b66e2b9b42fb2441dfa06f78314021e3583"
    assert hashlib.sha256(HEADS.read_bytes()).hexdigest() == digest
    with safe_open(HEADS, framework="pt") as file:
        facts = file.metadata()
    assert len(facts["classes"].split(",")) == 20 and facts["images"] == "1722"
    assert float(facts["val_map"]) > 60
