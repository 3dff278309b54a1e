"""The VOC reader: lists, annotations, masks, and everything that can be wrong with them."""

import numpy as np
import pytest
from devkits import annotation, both

from recamlib.data.access import open_images
from recamlib.data.images import write_mask
from recamlib.data.labels import VOC12
from recamlib.data.voc import read_classes, read_ids
from recamlib.errors import DataError


def test_images_labels_masks_and_the_augmented_list(kit):
    """In the official classes, with masks of SBD beside the official ones."""
    (kit / "classes.txt").unlink()
    for number in range(8):
        (kit / f"Annotations/p{number}.xml").write_text(annotation("horse", "person", "horse"))
    mask = np.repeat(np.array([[13], [15], [255], [0]], np.uint8), 5, 0).repeat(24, 1)
    write_mask(kit / "SegmentationClass/p0.png", mask, VOC12.palette)
    (kit / "SegmentationClassAug").mkdir()
    for name in ("p0", "p6"):
        write_mask(kit / f"SegmentationClassAug/{name}.png", 0 * mask + 7, VOC12.palette)
    (kit / "SegmentationClass/p6.png").unlink()
    (kit / "ImageSets/Segmentation/trainaug.txt").write_text("p0\np6\n")
    images, masks = both("voc12", "train_aug", root=kit.parent.parent)
    assert images.ids == masks.ids == ("p0", "p6") and images.space is VOC12
    assert VOC12.decode(images.labels("p0")) == ("horse", "person") and images.size("p0") == (20, 24)
    assert np.array_equal(masks.mask("p0"), mask)  # the official one has the say
    assert (masks.mask("p6") == 7).all()


@pytest.mark.parametrize("content, message", [
    ("<doc><name>horse</name></doc>", "holds <doc> and no <object>"),
    ("<annotation><thing><name>horse</name></thing></annotation>", "holds <thing> and no <object>"),
    ("<annotation><labels>horse</labels></annotation>", "holds <labels> and no <object>"),
    (annotation("hem"), "names the class 'hem', unknown to .*did you mean 'hen'"),
    ("<annotation><object></object></annotation>", "names the class ''"),
    ("<annotation><object>", "not a readable XML annotation"), ("", "not a readable XML annotation"),
    ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type or entities"),
    ('<!DOCTYPE a [<!ENTITY b "cccc">]><annotation>&b;</annotation>', "document type or entities"),
])  # fmt: skip
def test_bad_annotation_names_the_file(kit, content, message):
    (kit / "Annotations/p0.xml").write_text(content)
    images = open_images("voc12", "train", root=kit)
    with pytest.raises(DataError, match=rf"p0.xml .*{message}"):
        images.labels("p0")
    assert images.labels("p1").any()  # the others are not lost


@pytest.mark.parametrize("content", [
    "<annotation><items><object><name>horse</name></object></items></annotation>",
    annotation("horse", extra="<difficult>1</difficult><part><name>head</name></part>"),
    '<a:annotation xmlns:a="urn:x"><a:object><a:name> horse </a:name></a:object></a:annotation>',
    "<DOC><OBJECT><NAME>horse</NAME></OBJECT></DOC>", annotation(),
    "<annotation><image><Objects><Object><pose/><Name>horse</Name></Object></Objects></image></annotation>",
])  # fmt: skip
def test_objects_are_found_wherever_they_stand_and_parts_are_none(tmp_path, content):
    (tmp_path / "a.xml").write_text(content)
    assert read_classes(tmp_path / "a.xml", VOC12) == (() if content == annotation() else ("horse",))


def test_missing_files_name_the_remedy(tmp_path, kit):
    for name in ("Annotations/p0.xml", "JPEGImages/p0.jpg", "SegmentationClass/p1.png"):
        (kit / name).unlink()
    images, masks = both("voc12", "train", root=kit)
    for call, message in (
        (images.label_matrix, "p0.xml is missing"), (lambda: images.image("p0"), "p0.jpg is missing"),
        (lambda: masks.mask("p1"), "p1.png is missing"),
        (lambda: open_images("voc12", "train", root=tmp_path / "nowhere"), "recam data fetch voc12"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            call()
    assert open_images("voc12", "train_aug", root=kit).ids == images.ids  # no official list, so train it is
    (kit / "classes.txt").unlink()
    (kit / "ImageSets/Segmentation/train.txt").write_text("\n".join(f"2007_{n:06d}" for n in range(1464)))
    with pytest.raises(DataError, match="train_aug.txt is missing; .*recam data fetch sbd"):
        open_images("voc12", "train_aug", root=kit)


@pytest.mark.parametrize("line, id", [
    ("my photo 1", "my photo 1"), ("my photo 1.JPG", "my photo 1"), ("data/obj/dog.1.jpeg", "dog.1"),
    ("C:\\pictures\\cat 2.png", "cat 2"), ("JPEGImages/a.jpg SegmentationClass/a.png", "a"),
    ("JPEGImages/my cat.jpg  SegmentationClass/my cat.png", "my cat"),
    ("2007_000392_jpg.rf.0123456789ab", "2007_000392_jpg.rf.0123456789ab"), ("../../etc/passwd", "passwd"),
])  # fmt: skip
def test_lines_of_a_list(tmp_path, line, id):
    path = tmp_path / "train.txt"
    path.write_text(f"\ufefffirst\r\n  {line}\r\n\r\n")
    assert read_ids(path) == ("first", id)


@pytest.mark.parametrize("content, message", [
    (b"", "is empty"), (b"\n \n", "is empty"), (b"a\nb\na\n", "names 'a' 2 times"),
    (b"a b.png\nx/a b.jpg\n", "names 'a b' 2 times"), (b"..\n", "names .*a short file name"),
    (b"\xff\xfe\x00", "cannot be read"),
])  # fmt: skip
def test_bad_lists(tmp_path, content, message):
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"train.txt {message}"):
        read_ids(path)
