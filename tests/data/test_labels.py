"""Label spaces: order, encoding, narrowing, the colour map."""

import numpy as np
import pytest

from recamlib.data.labels import COCO14, HOOFED, SPACES, VOC12, LabelSpace
from recamlib.errors import DataError


def test_official_orders():
    assert (len(VOC12), len(COCO14), len(HOOFED)) == (20, 80, 5)
    assert (VOC12.classes[0], VOC12.classes[-1], VOC12.index("person")) == ("aeroplane", "tvmonitor", 14)
    assert (COCO14.classes[0], COCO14.classes[-1], COCO14.index("giraffe")) == ("person", "toothbrush", 23)
    assert set(HOOFED.classes) < set(COCO14.classes)
    assert set(SPACES) == {"voc12", "coco14", "hoofed"}


def test_background_comes_first_in_pixel_values():
    assert VOC12.with_background == 21
    assert VOC12.names[0] == "background"
    assert VOC12.names[VOC12.index("cow") + 1] == "cow"


def test_encode_and_decode_are_inverse():
    vector = VOC12.encode(["cow", "horse", "cow"])
    assert vector.dtype == np.uint8
    assert vector.sum() == 2
    assert VOC12.decode(vector) == ("cow", "horse")


def test_unknown_class_names_the_nearest():
    with pytest.raises(DataError, match="no class 'hors' .*did you mean 'horse'"):
        VOC12.encode(["hors"])
    with pytest.raises(DataError, match=r"vector of shape \(5,\), got \(4,\)"):
        HOOFED.decode(np.zeros(4))


def test_subset_keeps_the_order_given():
    part = VOC12.subset(["sheep", "cow", "sheep"])
    assert part.classes == ("sheep", "cow")
    assert part.ignore == VOC12.ignore
    assert VOC12.subset(VOC12.classes) is VOC12


def test_impossible_spaces_are_refused():
    with pytest.raises(DataError, match="at least one class"):
        LabelSpace("none", ())
    with pytest.raises(DataError, match="no name twice"):
        LabelSpace("twice", ("a", "a"))
    for name in ("background", "Background", "_background_", "BG", "back-ground", "__ignore__", "Void"):
        with pytest.raises(DataError, match=f"'{name}' is no class"):
            LabelSpace("own", ("cat", name))
    with pytest.raises(DataError, match="300 classes"):
        LabelSpace("many", tuple(map(str, range(300))))


def test_palette_is_that_of_the_devkit():
    palette = VOC12.palette
    assert palette.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    for value, colour in known.items():
        assert tuple(palette[value]) == colour
    assert len({tuple(c) for c in palette}) == 256
