"""`check_dataset` lists what is there, what is missing and every bad file, and ends with a count."""

import numpy as np
import pytest
from PIL import Image

from recamlib.data.access import open_images, open_masks
from recamlib.data.check import check_dataset
from recamlib.data.export import write_coco, write_voc
from recamlib.data.images import write_mask
from recamlib.data.labels import VOC12
from recamlib.errors import SettingsError


@pytest.fixture
def root(tmp_path):
    """Six scenes of VOC's three hoofed classes as a devkit."""
    images = open_images("hoofed", "train", count=30, size=48)
    kinds = ("horse", "cow", "sheep")
    good = [id for id in images.ids if set(images.space.decode(images.labels(id))) <= set(kinds)][:6]
    masks = open_masks("hoofed", "train", count=30, size=48)
    part = images.select(classes=kinds)
    part.ids = tuple(good)
    narrow = masks.select(good, classes=kinds)
    kit = write_voc(tmp_path, part, narrow, split="train")
    # the writer numbers the masks by its own space; bring them to VOC's
    for id in good:
        table = np.array([0, *(VOC12.index(kind) + 1 for kind in kinds)], np.uint8)
        write_mask(kit / "SegmentationClass" / f"{id}.png", table[narrow.mask(id)], VOC12.palette)
    return tmp_path


def test_clean(root):
    report = check_dataset("voc12", root, progress=False)
    assert report.ok
    assert report.present == {"train": 6}
    assert [line.split(":")[0] for line in report.missing] == ["val", "train_aug"]
    assert not report.problems
    assert not report.remarks
    assert report.lines()[-1] == "6 images checked: 0 problems, 2 splits not there"
    assert str(report).startswith(f"voc12 in {root}")


def test_every_bad_file_is_named_and_the_rest_is_still_checked(root):
    kit = root / "VOCdevkit" / "VOC2012"
    a, b, c, d, e, f = open_images("voc12", "train", root=root).ids
    image = kit / "JPEGImages" / f"{a}.jpg"
    image.write_bytes(image.read_bytes()[:300])
    (kit / "Annotations" / f"{b}.xml").write_text(
        "<annotation><object><name>unicorn</name></object></annotation>"
    )
    write_mask(kit / "SegmentationClass" / f"{c}.png", np.zeros((9, 9), np.uint8), VOC12.palette)
    (kit / "SegmentationClass" / f"{d}.png").unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(kit / "JPEGImages" / f"{e}.jpg") as picture:
        picture.save(kit / "JPEGImages" / f"{e}.jpg", exif=exif)
    (kit / "Annotations" / f"{f}.xml").write_text(
        "<annotation><object><name>bird</name></object></annotation>"
    )
    report = check_dataset("voc12", root, progress=False)
    assert not report.ok
    assert len(report.problems) == 4
    for id, line in zip((a, b, c, d), report.problems):
        assert id in line
    assert "unicorn" in report.problems[1]
    assert any(e in line and "EXIF" in line for line in report.remarks)
    assert any(f in line and "classes of the mask" in line for line in report.remarks)
    assert report.lines()[-1] == "6 images checked: 4 problems, 2 splits not there"


def test_images_on_two_lists_count_once(root):
    lists = root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "train_aug.txt").write_text((lists / "train.txt").read_text())
    report = check_dataset("voc12", root, progress=False)
    assert report.present == {"train": 6, "train_aug": 6}
    assert report.checked == 6


def test_nothing_there(tmp_path):
    report = check_dataset("coco14", tmp_path, progress=False)
    assert not report.ok
    assert len(report.missing) == 2
    assert "recam data fetch coco14" in report.missing[0]
    assert report.lines()[-1].startswith("0 images checked")


def test_coco_and_hoofed(tmp_path):
    images, masks = (door("hoofed", "val", count=3, size=48) for door in (open_images, open_masks))
    write_coco(tmp_path, images, masks, split="val")
    report = check_dataset("coco14", tmp_path, progress=False)
    assert report.ok
    assert report.present == {"val": 3}
    assert check_dataset("hoofed", tmp_path, progress=False).checked == 32


def test_unknown_name():
    with pytest.raises(SettingsError, match="did you mean 'voc12'"):
        check_dataset("voc2012")
