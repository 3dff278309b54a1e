"""`check_dataset` lists what is there, what is missing and every bad file, and ends with a count."""

import numpy as np
import pytest
from coco_writer import write_coco

from recamlib.data.access import open_images, open_masks
from recamlib.data.check import check_dataset
from recamlib.data.export import write_voc
from recamlib.data.images import write_mask
from recamlib.data.labels import VOC12
from recamlib.errors import SettingsError


@pytest.fixture
def root(tmp_path):
    """Six scenes of three hoofed classes as a devkit, six more as its val."""
    kinds = ("horse", "cow", "sheep")
    for split in ("train", "val"):
        images = open_images("hoofed", split, count=40, size=48)
        good = [id for id in images.ids if set(images.space.decode(images.labels(id))) <= set(kinds)][:6]
        part = images.select(classes=kinds)
        part.ids = tuple(good)
        masks = open_masks("hoofed", split, count=40, size=48).select(good, classes=kinds)
        write_voc(tmp_path, part, masks, split=split)
    return tmp_path


def test_clean(root):
    report = check_dataset("voc12", root, progress=False)
    assert report.ok, report
    assert report.present == {"train": 6, "val": 6, "train_aug": 6}
    assert report.remarks == ["there is no list train_aug, so networks are trained on train"]
    assert not any(report.notebooks.values())
    assert str(report).splitlines()[-1] == "12 images checked: 0 problems, 0 splits not there"
    assert str(report).startswith(f"voc12 in {root}")


def test_every_bad_file_is_named_and_the_rest_is_still_checked(root):
    kit = root / "VOCdevkit" / "VOC2012"
    a, b, c, d, *_ = open_images("voc12", "train", root=root).ids
    image = kit / "JPEGImages" / f"{a}.jpg"
    image.write_bytes(image.read_bytes()[:300])
    (kit / "Annotations" / f"{b}.xml").write_text(
        "<annotation><object><name>unicorn</name></object></annotation>"
    )
    write_mask(kit / "SegmentationClass" / f"{c}.png", np.zeros((9, 9), np.uint8), VOC12.palette)
    (kit / "SegmentationClass" / f"{d}.png").unlink()
    report = check_dataset("voc12", root, progress=False)
    assert not report.ok
    assert len(report.problems) == 4
    for id, line in zip((a, b, c, d), report.problems):
        assert id in line
    assert "unicorn" in report.problems[1]
    assert str(report).splitlines()[-1] == "12 images checked: 4 problems, 0 splits not there"


def test_images_on_two_lists_count_once(root):
    lists = root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "train_aug.txt").write_text((lists / "train.txt").read_text())
    report = check_dataset("voc12", root, progress=False)
    assert report.present == {"train": 6, "val": 6, "train_aug": 6}
    assert report.checked == 12


def test_nothing_there(tmp_path):
    report = check_dataset("coco14", tmp_path, progress=False)
    assert not report.ok
    assert set(report.missing) == {"train", "val", "train_aug"}
    assert "recam data fetch coco14" in report.missing["train"]
    assert str(report).splitlines()[-1].startswith("0 images checked")


def test_coco_and_hoofed(tmp_path):
    images, masks = (opened("hoofed", "val", count=3, size=48) for opened in (open_images, open_masks))
    for split in ("train", "val"):
        write_coco(tmp_path, images, masks, split=split)
    report = check_dataset("coco14", tmp_path, progress=False)
    assert report.ok, report
    assert report.present == {"train": 3, "val": 3, "train_aug": 3}
    assert "3 images of val are in train, too, so val is no test of it" in report.remarks
    assert check_dataset("hoofed", tmp_path, progress=False).checked == 32


def test_unknown_name():
    with pytest.raises(SettingsError, match="did you mean 'voc12'"):
        check_dataset("voc2012")
