"""The VOC reader: lists, annotations, masks, and everything that can be wrong with them."""


import numpy as np
import pytest
from PIL import Image

from recamlib.data.access import open_images, open_masks
from recamlib.data.images import write_mask
from recamlib.data.labels import VOC12
from recamlib.data.voc import read_classes, read_ids
from recamlib.errors import DataError

IDS = ("2007_000001", "2007_000002", "2007_000003")


def annotation(*names: str, extra: str = "") -> str:
    things = "".join(f"<object><name>{n}</name>{extra}</object>" for n in names)
    return f"<annotation><filename>x.jpg</filename>{things}</annotation>"


@pytest.fixture
def kit(tmp_path):
    """A devkit of three images; the last has a mask of SBD only."""
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    parts = ("SegmentationClass", "SegmentationClassAug")
    for part in (*parts, "JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    for number, id in enumerate(IDS):
        Image.fromarray(np.full((20, 30, 3), 40 * number, np.uint8)).save(folder / "JPEGImages" / f"{id}.jpg")
        (folder / "Annotations" / f"{id}.xml").write_text(annotation("horse", "person", "horse"))
        mask = np.zeros((20, 30), np.uint8)
        mask[:5], mask[5:8], mask[8] = VOC12.index("horse") + 1, VOC12.index("person") + 1, 255
        place = folder / parts[number == 2]
        write_mask(place / f"{id}.png", mask, VOC12.palette)
    lists = folder / "ImageSets" / "Segmentation"
    lists.joinpath("train.txt").write_text("\n".join(IDS[:2]))
    lists.joinpath("val.txt").write_text(IDS[1] + "\n")
    lists.joinpath("trainaug.txt").write_text("\n".join(IDS) + "\n")
    return folder


def test_images_labels_and_masks(kit):
    root = kit.parent.parent
    images, masks = open_images("voc12", "train", root=root), open_masks("voc12", "train", root=root)
    assert images.ids == masks.ids == IDS[:2]
    assert images.space is VOC12
    assert VOC12.decode(images.labels(IDS[0])) == ("horse", "person")
    assert images.size(IDS[0]) == (20, 30)
    assert set(np.unique(masks.mask(IDS[0]))) == {0, 13, 15, 255}


def test_other_name_of_the_augmented_list_and_masks_of_sbd(kit):
    write_mask(kit / "SegmentationClassAug" / f"{IDS[0]}.png", np.zeros((20, 30), np.uint8), VOC12.palette)
    masks = open_masks("voc12", "train_aug", root=kit)
    assert masks.ids == IDS
    assert masks.mask(IDS[2])[0, 0] == 13
    assert masks.mask(IDS[0]).any()  # the official one has the say


def test_difficult_objects_count_parts_do_not(kit, tmp_path):
    path = tmp_path / "a.xml"
    path.write_text(annotation("cow", extra="<difficult>1</difficult><part><name>head</name></part>"))
    assert read_classes(path, VOC12) == ("cow",)
    path.write_text(annotation())
    assert read_classes(path, VOC12) == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<doc><name>horse</name></doc>", "holds <doc> and no <object>"),
        ("<annotation><thing><name>horse</name></thing></annotation>", "holds <thing> and no <object>"),
        ("<annotation><labels>horse</labels></annotation>", "holds <labels> and no <object>"),
        (annotation("hors"), "names the class 'hors', unknown to voc12 .did you mean 'horse'"),
        ("<annotation><object></object></annotation>", "names the class ''"),
        ("<annotation><object>", "not a readable XML annotation"),
        ("", "not a readable XML annotation"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "document type or entities"),
        ('<!DOCTYPE a [<!ENTITY b "cccc">]><annotation>&b;</annotation>', "document type or entities"),
    ],
)
def test_bad_annotation_names_the_file(kit, content, message):
    (kit / "Annotations" / f"{IDS[0]}.xml").write_text(content)
    images = open_images("voc12", "train", root=kit)
    with pytest.raises(DataError, match=rf"{IDS[0]}.xml .*{message}"):
        images.labels(IDS[0])
    assert images.labels(IDS[1]).any()  # the others are not lost


@pytest.mark.parametrize(
    "content",
    [
        "<annotation><items><object><name>horse</name></object></items></annotation>",
        "<doc><object><name>horse</name><part><name>head</name></part></object></doc>",
        '<a:annotation xmlns:a="urn:x"><a:object><a:name> horse </a:name></a:object></a:annotation>',
        "<ANNOTATION><OBJECT><NAME>horse</NAME></OBJECT></ANNOTATION>",
        "<annotation><image><Objects><Object><pose/><Name>horse</Name></Object></Objects></image></annotation>",
    ],
)
def test_objects_are_found_wherever_they_stand(tmp_path, content):
    (tmp_path / "a.xml").write_text(content)
    assert read_classes(tmp_path / "a.xml", VOC12) == ("horse",)


def test_missing_files_name_the_remedy(kit):
    (kit / "Annotations" / f"{IDS[0]}.xml").unlink()
    (kit / "JPEGImages" / f"{IDS[0]}.jpg").unlink()
    (kit / "SegmentationClass" / f"{IDS[1]}.png").unlink()
    images, masks = open_images("voc12", "train", root=kit), open_masks("voc12", "train", root=kit)
    with pytest.raises(DataError, match=f"{IDS[0]}.xml is missing.*recam data fetch voc12"):
        images.label_matrix()
    with pytest.raises(DataError, match=f"{IDS[0]}.jpg is missing"):
        images.image(IDS[0])
    with pytest.raises(DataError, match=f"{IDS[1]}.png is missing"):
        masks.mask(IDS[1])


def test_mask_of_another_size_or_value(kit):
    path = kit / "SegmentationClass" / f"{IDS[0]}.png"
    write_mask(path, np.zeros((30, 20), np.uint8), VOC12.palette)
    masks = open_masks("voc12", "train", root=kit)
    with pytest.raises(DataError, match=rf"{IDS[0]}.png has shape \(30, 20\), its image \(20, 30\).*EXIF"):
        masks.mask(IDS[0])
    write_mask(path, np.full((20, 30), 21, np.uint8), VOC12.palette)
    with pytest.raises(DataError, match=rf"{IDS[0]}.png holds the value 21, voc12 knows 0 to 20"):
        masks.mask(IDS[0])


@pytest.mark.parametrize(
    ("line", "id"),
    [
        ("my photo 1", "my photo 1"),
        ("my photo 1.JPG", "my photo 1"),
        ("data/obj/dog.1.jpeg", "dog.1"),
        ("C:\\pictures\\cat 2.png", "cat 2"),
        ("JPEGImages/a.jpg SegmentationClass/a.png", "a"),
        ("JPEGImages/my cat.jpg  SegmentationClass/my cat.png", "my cat"),
        ("2007_000392_jpg.rf.0123456789ab", "2007_000392_jpg.rf.0123456789ab"),
        ("../../etc/passwd", "passwd"),
    ],
)
def test_lines_of_a_list(tmp_path, line, id):
    path = tmp_path / "train.txt"
    path.write_text(f"\ufefffirst\r\n  {line}\r\n\r\n")
    assert read_ids(path) == ("first", id)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"a\nb\na\n", "names 'a' 2 times"),
        (b"a b.png\nx/a b.jpg\n", "names 'a b' 2 times"),
        (b"..\n", "names .*a short file name"),
        (b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_bad_lists(tmp_path, content, message):
    path = tmp_path / "train.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"train.txt {message}"):
        read_ids(path)


def test_absent_parts_say_how_to_get_them(tmp_path, kit):
    with pytest.raises(DataError, match="recam data fetch voc12"):
        open_images("voc12", "train", root=tmp_path / "nowhere")
    (kit / "ImageSets/Segmentation/trainaug.txt").unlink()
    assert open_images("voc12", "train_aug", root=kit).ids == IDS[:2]  # not the official list, so train it is
    (kit / "ImageSets/Segmentation/train.txt").write_text("\n".join(f"2007_{n:06d}" for n in range(1464)))
    with pytest.raises(DataError, match="train_aug.txt is missing; .*recam data fetch sbd"):
        open_images("voc12", "train_aug", root=kit)
