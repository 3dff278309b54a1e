"""The COCO reader: categories, painting order, crowds, images without a label, damaged files."""

import os

import numpy as np
import pytest
from devkits import HORSE, both, box, coco_content, region, write_coco
from PIL import Image

from recamlib.data.access import open_images, open_masks
from recamlib.data.labels import CATEGORY_IDS, COCO14, HOOFED
from recamlib.errors import DataError


@pytest.fixture
def content():
    return coco_content()


@pytest.fixture
def root(tmp_path, content):
    return write_coco(tmp_path, content)


def test_categories_labels_and_masks(root, capfd):
    official = {"person": 1, "stop sign": 13, "horse": 19, "giraffe": 25, "backpack": 27, "toothbrush": 90}
    assert {name: CATEGORY_IDS[COCO14.index(name)] for name in official} == official
    assert len(CATEGORY_IDS) == len(COCO14)
    images, masks = both("coco14", "train", root=root)
    assert images.ids == masks.ids == ("COCO_train2014_000000000001", "COCO_train2014_000000000002")
    assert [COCO14.decode(row) for row in images.label_matrix()] == [("person", "horse"), ("horse",)]
    first, second = (masks.mask(id) for id in masks.ids)
    assert first[6, 6] == COCO14.index("person") + 1  # the small one stays on top
    assert first[1, 1] == COCO14.index("horse") + 1 and first[19, 29] == 0
    assert second[15, 3] == 255  # the crowd is ignored,
    assert second[3, 3] == COCO14.index("horse") + 1  # what lies over it is not
    assert capfd.readouterr().out == ""


def test_train_aug_is_train_other_folder_names_work_and_classes_are_narrowed(root):
    assert open_images("coco14", "train_aug", root=root).ids == open_images("coco14", "train", root=root).ids
    (root / "coco14").rename(root / "coco")
    assert len(open_images("coco14", "train", root=root / "coco")) == 2
    images, masks = both("coco14", "train", root=root)
    part = images.select(classes=HOOFED.classes)
    assert part.space.classes == HOOFED.classes
    mask = masks.select(part.ids, classes=HOOFED.classes).mask(part.ids[0])
    assert set(np.unique(mask)) == {0, 1, 255}


@pytest.mark.parametrize("change, message", [
    (lambda c: c["categories"].append({"id": 12, "name": "hors"}), "12 'hors', unknown to coco14"),
    (lambda c: c["categories"][0].update(name="person"), "category 19 'person', unknown"),
    (lambda c: c["annotations"][0].update(category_id=77), "unknown category 77"),
    (lambda c: c["images"][1].update(id=1), "2 images the id 1"),
    (lambda c: c["annotations"][4].update(id=3), "2 annotations the id 3"),
    (lambda c: c["categories"].append({"id": HORSE, "name": "horse"}), "2 categories the id 19"),
    (lambda c: c["categories"][0].update(id=3), "category 3 'horse', unknown to COCO, where it is 19"),
    (lambda c: c["categories"].append({"id": 91, "name": "weld"}), "'weld', unknown.*; classes of your own"),
    (lambda c: c["annotations"][0].update(image_id=77), "unknown image 77"),
    (lambda c: c["images"][0].update(file_name="../../x.jpg"), "without folders"),
    (lambda c: c["images"][0].update(file_name=c["images"][1]["file_name"]), "twice"),
    (lambda c: c.pop("images"), "unknown image 1"),
    (lambda c: c["annotations"][0].pop("category_id"), "not a readable COCO instances file"),
    (lambda c: c["annotations"].clear(), "list of images is empty"),
    ("", "not a readable COCO"), ("[]", "not a readable COCO"), ("{", "not a readable COCO"),
])  # fmt: skip
def test_bad_instances_file(tmp_path, content, change, message):
    if callable(change):
        change(content)
    write_coco(tmp_path, content if callable(change) else change)
    with pytest.raises(DataError, match=f"instances_train2014.json.*{message}"):
        open_images("coco14", "train", root=tmp_path)


@pytest.mark.parametrize("shape", [
    None, [], "abc", [[1, 2, 3]], [["a"] * 6], [[0, 0, 1e9, 0, 1e9, 1e9]], [[float("nan")] * 6],
    {"size": [20, 30]}, {"size": [5, 5], "counts": [25]}, {"size": [20, 30], "counts": [5]},
    {"size": [20, 30], "counts": [-5, 605]}, {"size": [20, 30], "counts": [0, 10**9]},
    {"size": [20, 30], "counts": "\n\u00e9"},
])  # fmt: skip
def test_unreadable_region_names_the_annotation(tmp_path, content, shape):
    content["annotations"][0]["segmentation"] = shape
    masks = open_masks("coco14", "train", root=write_coco(tmp_path, content))
    with pytest.raises(DataError, match="annotation 1 of COCO_train2014_000000000001.jpg is unreadable"):
        masks.mask(masks.ids[0])
    masks.mask(masks.ids[1])  # the other image is fine


def test_an_image_of_another_size_than_stated_is_named_and_a_changed_file_read_again(root, content):
    images, masks = both("coco14", "train", root=root)
    Image.new("RGB", (31, 20)).save(root / "coco14" / "train2014" / f"{masks.ids[0]}.jpg")
    with pytest.raises(DataError, match="gives .* 20 x 30 pixels, the file has 20 x 31"):
        masks.mask(masks.ids[0])
    content["annotations"].append(region(6, 3, HORSE, box(1, 1, 3, 3)))
    write_coco(root, content)
    os.utime(root / "coco14" / "annotations" / "instances_train2014.json", ns=(1, 1))
    assert (len(images), len(open_images("coco14", "train", root=root))) == (2, 3)
