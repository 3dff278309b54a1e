"""Label spaces: order, encoding, narrowing, the colour map."""

import numpy as np
import pytest

from recamlib.data.labels import COCO14, HOOFED, SPACES, VOC12, LabelSpace
from recamlib.errors import DataError


def test_official_orders_and_colours():
    assert (len(VOC12), len(COCO14), len(HOOFED)) == (20, 80, 5)
    assert (VOC12.classes[0], VOC12.classes[-1], VOC12.index("person")) == ("aeroplane", "tvmonitor", 14)
    assert (COCO14.classes[0], COCO14.classes[-1], COCO14.index("giraffe")) == ("person", "toothbrush", 23)
    assert set(HOOFED.classes) < set(COCO14.classes) and set(SPACES) == {"voc12", "coco14", "hoofed"}
    part = VOC12.subset(["sheep", "cow", "sheep"])
    assert part.classes == ("sheep", "cow") and part.ignore == VOC12.ignore
    assert VOC12.subset(VOC12.classes) is VOC12
    known = {0: (0, 0, 0), 1: (128, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {value: tuple(VOC12.palette[value]) for value in known} == known
    assert VOC12.palette.shape == (256, 3) and len({tuple(c) for c in VOC12.palette}) == 256


def test_encode_and_decode_are_inverse_and_unknown_classes_name_the_nearest():
    vector = VOC12.encode(["cow", "horse", "cow"])
    assert vector.dtype == np.uint8 and vector.sum() == 2 and VOC12.decode(vector) == ("cow", "horse")
    assert VOC12.with_background == 21
    assert (VOC12.names[0], VOC12.names[VOC12.index("cow") + 1]) == ("background", "cow")
    with pytest.raises(DataError, match="no class 'hors' .*did you mean 'horse'"):
        VOC12.encode(["hors"])
    with pytest.raises(DataError, match=r"vector of shape \(5,\), got \(4,\)"):
        HOOFED.decode(np.zeros(4))


@pytest.mark.parametrize("classes, message", [
    ((), "at least one class"), (("a", "a"), "no name twice"), (tuple(map(str, range(300))), "300 classes"),
    *((("cat", name), f"'{name}' is no class") for name in ("Background", "BG", "back-ground", "Void")),
])  # fmt: skip
def test_impossible_spaces_are_refused(classes, message):
    with pytest.raises(DataError, match=message):
        LabelSpace("own", classes)


