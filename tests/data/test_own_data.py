"""Own data: what is read as it comes, what is refused before a number is printed, and in which words."""

import json
import os
import shutil
import unicodedata

import numpy as np
import pytest
from devkits import NAMES, annotation, both, coco_content, write_coco
from PIL import Image

from recamlib.data.access import open_images, open_masks
from recamlib.data.check import check_dataset
from recamlib.data.labels import LabelSpace
from recamlib.data.voc import read_classes
from recamlib.errors import DataError, SettingsError
from recamlib.paths import book_dir
from recamlib.stages.base import DataSettings
from tests.book.test_pages import blocks, run

LIST = "ImageSets/Segmentation/train.txt"
SHAPES = json.dumps({"version": "5.0", "shapes": [{"label": "cat"}], "imagePath": "a.jpg"})
OWN_COCO = json.dumps({"images": [], "annotations": [], "categories": [{"id": 0, "name": "weld"}]})


def check(root, name="voc12"):
    return check_dataset(name, root, progress=False)


def each_mask(kit, change, name="*"):
    for path in (kit / "SegmentationClass").glob(f"{name}.png"):
        Image.fromarray(change(np.array(Image.open(path)))).save(path)


@pytest.mark.parametrize("name, text, problem", [
    ("classes.txt", "cat\ndog\nhen\nemu", "no mask shows the class 'emu' (value 4); no images are label"),
    ("Annotations/p0.xml", annotation("hen"), ""), (LIST, "\n \n", "train.txt is empty"),
    (LIST, "p0\np1\np0.jpg\n", "names 'p0' 2 times"),
    ("Annotations/p0.xml", None, "p0.xml is missing, so the image has no labels; write it or take"),
    ("JPEGImages/p1.jpg", None, "p1.jpg is missing; put it there or take the id off the list"),
    *(("classes.txt", f"{first}\ncat\ndog\nhen", f"'{first}' is no class: it is always there as value")
      for first in ("Background", "__background__", "BG", "__ignore__", "void")),
])  # fmt: skip
def test_problems_and_remarks_in_words_of_ones_own(kit, name, text, problem):
    (kit / name).unlink() if text is None else (kit / name).write_text(text)
    report = check(kit)
    assert "recam data fetch" not in str(report)
    if problem:
        assert not report.ok and problem in str(report)
    else:
        assert report.ok and "in 1 of 8 images the mask shows other" in report.remarks[0]
        assert open_masks("voc12", "train", root=kit).mask("p0").any()


def test_what_the_page_describes_can_run_and_a_class_that_no_mask_shows_is_a_problem(kit):
    report = check(kit)
    assert report.present == report.masks == {"train": 6, "val": 2, "train_aug": 6} and report.ok, report
    assert "there is no cow, horse, sheep; add -p groups" in report.notebooks["01"]
    assert "can run: notebooks 02, 03, 04, 05, 06" in str(report)
    each_mask(kit, lambda mask: np.where(mask == 3, 0, mask).astype(np.uint8))
    assert "no mask shows the class 'hen' (value 3); 3 images are labelled so" in check(kit).problems


@pytest.mark.parametrize("name", ["p0.JPG", "p0.PNG", "p0.bmp", "p0.WEBP", "p0.tif", "meine Hündin 1.jpg"])
def test_pictures_in_any_suffix_and_names_with_spaces_and_letters_in_pieces(kit, name):
    stem = name.rpartition(".")[0]
    with Image.open(kit / "JPEGImages/p0.jpg") as picture:
        picture.save(kit / "JPEGImages" / unicodedata.normalize("NFD", name))
    for part, suffix in (("Annotations", "xml"), ("SegmentationClass", "png")):
        moved = f"{unicodedata.normalize('NFD', stem)}.{suffix.upper() if stem == 'p0' else suffix}"
        (kit / part / f"p0.{suffix}").rename(kit / part / moved)
    (kit / "JPEGImages/p0.jpg").unlink()
    (kit / "ImageSets/Segmentation/train.txt").write_text(f"{stem}\np1.jpg\n./JPEGImages/p2.jpg\n")
    assert open_images("voc12", "train", root=kit).ids == (stem, "p1", "p2")
    assert check(kit).ok, check(kit)


@pytest.mark.parametrize("change, message", [
    (lambda mask: np.where(mask > 0, 255, 0), "6 of 6 masks hold 0 and 255 alone"),
    (lambda mask: np.array([0, 3, 1, 2])[mask], "masks show other classes than the labels"),
    (lambda mask: np.where(mask > 0, mask - 1, 0), "masks show other classes than the labels"),  # from 0
])  # fmt: skip
def test_masks_whose_numbers_mean_something_else(kit, monkeypatch, change, message):
    """The check calls it a problem, and scoring stops with the same words before it has a number."""
    each_mask(kit, lambda mask: change(mask).astype(np.uint8))
    report = check(kit)
    assert not report.ok and [line for line in report.problems if message in line], report
    monkeypatch.setenv("RECAM_DATA", str(kit))
    truth = DataSettings(name="voc12", fingerprint="x", limit=5).masks("train")
    with pytest.raises(DataError, match=message):
        truth.mask(truth.ids[0])


def test_one_class_of_0_and_255_in_one_picture_only(kit):
    for path in (kit / "classes.txt", *(kit / "Annotations").iterdir()):
        path.write_text("thing" if path.suffix == ".txt" else annotation("thing"))
    each_mask(kit, lambda mask: (mask > 0).astype(np.uint8))
    each_mask(kit, lambda mask: mask * np.uint8(255), "p3")
    (problem,) = check(kit).problems
    assert "p3.png holds 0 and 255 alone" in problem and "write 1 for 'thing'" in problem
    with pytest.raises(DataError, match="p3.png holds 0 and 255"):
        open_masks("voc12", "train", root=kit).mask("p3")
    assert open_masks("voc12", "train", root=kit).mask("p2").max() == 1


@pytest.mark.parametrize("orientation, turned", [(3, False), (2, False), (6, True), (8, True)])
def test_rotation_is_that_of_the_viewer_for_image_and_mask(kit, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(kit / "JPEGImages/p0.jpg") as picture:
        picture.save(kit / "JPEGImages/p0.jpg", exif=exif)
    images, masks = both("voc12", "train", root=kit)
    # drawn on the stored pixels; or nothing tells which way it was drawn
    message = "sides are swapped" if turned else "EXIF rotation that leaves its size"
    with pytest.raises(DataError, match=message):
        masks.mask("p0")
    if turned:
        each_mask(kit, np.rot90, "p0")
        assert masks.mask("p0").shape == images.size("p0") == images.image("p0").shape[1:] == (24, 20)
        assert any("carry an EXIF rotation, which is applied" in line for line in check(kit).remarks)


def test_colours_of_a_labelmap_are_read_and_its_order_is_that_of_the_classes(kit):
    colours = {"background": (0, 0, 0), "hen": (9, 8, 7), "ignored": (224, 224, 192)}
    colours |= {"cat": (250, 50, 83), "dog": (1, 2, 3)}
    lines = [f"{name}:{','.join(map(str, rgb))}::\n" for name, rgb in colours.items()]
    (kit / "labelmap.txt").write_text("".join(["# label:color_rgb:parts:actions\n", *lines]))
    table = np.array([colours[name] for name in ("background", *NAMES)], np.uint8)
    each_mask(kit, lambda mask: table[mask])
    images, masks = both("voc12", "train", root=kit)
    assert images.space.classes == NAMES and masks.mask("p3").max() == 2  # classes.txt has the say
    (kit / "classes.txt").unlink()
    images, masks = both("voc12", "train", root=kit)
    assert images.space.classes == ("hen", "cat", "dog") and masks.mask("p3").max() == 3 and check(kit).ok
    for line, message in (("ox:1,2,300\n", "is not name:red,green,blue"), ("ox:1,2,3\n", "a second time")):
        (kit / "labelmap.txt").write_text((kit / "labelmap.txt").read_text().split("ox")[0] + line)
        with pytest.raises(DataError, match=message):
            open_images("voc12", "train", root=kit)
    (kit / "labelmap.txt").write_text("cat:1,1,1\ndog:2,2,2\n")
    (kit / "classes.txt").write_text("cat\nhen\n")
    with pytest.raises(DataError, match="labelmap.txt differ: 'dog' is in one"):
        open_images("voc12", "train", root=kit)


def test_every_bad_file_is_named_and_the_rest_is_still_checked(kit):
    os.truncate(kit / "JPEGImages/p0.jpg", 300)
    (kit / "Annotations/p1.xml").write_text(annotation("unicorn"))
    Image.new("L", (9, 9)).save(kit / "SegmentationClass/p2.png")
    (kit / "SegmentationClass/p3.png").unlink()
    report = check(kit)
    assert len(report.problems) == 4 and all(f"p{n}" in line for n, line in enumerate(report.problems))
    assert "unicorn" in report.problems[1] and all(report.notebooks.values())
    assert str(report).splitlines()[-1] == "8 images checked: 4 problems, 0 splits not there"
    for path in (kit / "Annotations").iterdir():
        path.write_text(annotation("unicorn"))
    assert any("5 files more with the same fault" in line for line in check(kit).problems)


def test_coco_and_hoofed_are_checked_too(tmp_path):
    report = check(tmp_path, "coco14")
    assert not report.ok and set(report.missing) == {"train", "val", "train_aug"}
    assert "recam data fetch coco14" in report.missing["train"] and report.checked == 0
    write_coco(tmp_path, coco_content())
    missing = check(tmp_path, "coco14").missing["val"]
    assert "val2014.json is missing; put there" in missing  # a part of one's own, not fetched
    write_coco(tmp_path, coco_content(), part="val2014")
    report = check(tmp_path, "coco14")
    assert report.ok and report.present == {"train": 2, "val": 2, "train_aug": 2}
    assert "2 images of val are in train, too, so val is no test of it" in report.remarks
    assert check(tmp_path, "hoofed").checked == 32
    with pytest.raises(SettingsError, match="did you mean 'voc12'"):
        check(tmp_path, "voc2012")


def test_without_masks_networks_train_and_nothing_is_a_problem(kit):
    shutil.rmtree(kit / "SegmentationClass")
    report = check(kit)
    assert report.masks == {"train": 0, "val": 0, "train_aug": 0} and report.ok, report
    assert report.notebooks["02"] == report.notebooks["03"] == ""
    assert "02 and 03 show pictures and convergence, no mIoU" in str(report)
    assert report.notebooks["04"].startswith("no masks to score train_aug and val with")
    with pytest.raises(DataError, match="p0.png is missing"):
        open_masks("voc12", "train", root=kit).mask("p0")


def test_pictures_without_an_object_are_left_out_and_counted(kit, monkeypatch):
    for name in ("p1", "p2"):
        (kit / f"Annotations/{name}.xml").write_text("<annotation><filename>x</filename></annotation>")
        Image.new("L", (24, 20)).save(kit / f"SegmentationClass/{name}.png")
    report = check(kit)
    assert report.ok and "2 of 8 images show no class; they are left out" in report.remarks[0]
    monkeypatch.setenv("RECAM_DATA", str(kit))
    settings = DataSettings(name="voc12", fingerprint="negatives")
    with pytest.warns(UserWarning, match="2 of 6 images of .*train.txt show no class"):
        images = settings.images("train")
    assert images.ids == settings.masks("train").ids == ("p0", "p3", "p4", "p5")
    assert images.label_matrix().any(1).all()
    for name in ("p6", "p7"):
        (kit / f"Annotations/{name}.xml").write_text("<annotation/>")
    assert any("no image of val shows a class" in line for line in check(kit).problems)
    with pytest.raises(DataError, match="no image of .*val.txt shows a class; list images that do"):
        DataSettings(name="voc12")  # before anything is trained


@pytest.mark.parametrize("name", ["Segmentation/default.txt", "Main/train.txt", "Main/default.txt"])
def test_lists_under_other_names(kit, name):
    (kit / "ImageSets/Main").mkdir()
    (kit / "ImageSets/Segmentation/train.txt").rename(kit / "ImageSets" / name)
    with pytest.raises(DataError, match=f"train.txt is missing; copy ImageSets/{name} there$"):
        open_images("voc12", "train", root=kit)


@pytest.mark.parametrize("files, message", [
    ({"valid/a.rf.1.jpg": "", "valid/a.rf.1.xml": "<annotation/>"}, "Roboflow export"),
    ({"train/a.jpg": "", "train/a_mask.png": "", "train/_classes.csv": "0, background"}, "Roboflow"),
    ({"images/a.jpg": "", "Annotations/a.xml": "<annotation/>"}, "Label Studio export"),
    ({"project-1.json": '[{"id": 1, "annotations": [], "data": {}}]'}, "Label Studio export"),
    ({"a.jpg": "", "a.json": SHAPES}, "labelme .a.json"),
    ({"class_names.txt": "_background_\ncat", "JPEGImages/a.jpg": ""}, "labelme .class_names"),
    ({"annotations/instances_default.json": OWN_COCO, "images/a.jpg": ""}, "form of COCO .annot"),
    ({"result.json": OWN_COCO, "images/a.jpg": ""}, "form of COCO .result.json"),
    ({"data.yaml": "nc: 1", "train/images/a.jpg": ""}, "YOLO .data.yaml"),
])  # fmt: skip
def test_exports_are_named_with_three_steps(tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=rf"this looks like .*{message}.*\(1\).*\(2\).*\(3\)") as caught:
        open_images("voc12", "train", root=tmp_path)
    assert "fetch" not in str(caught.value) and not check(tmp_path).ok
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="lay your own data out as .*says, .*recam data fetch voc12"):
        open_images("voc12", "train", root=tmp_path / "other")


def test_the_lines_of_the_page_that_read_json(tmp_path, monkeypatch):
    coco = {"images": [{"id": 7, "file_name": "train/b c.png"}, {"id": 8, "file_name": "none.png"}],
            "categories": [{"id": 0, "name": "cat"}, {"id": 3, "name": "R&D"}],
            "annotations": [{"image_id": 7, "category_id": k} for k in (3, 0, 3)]}  # fmt: skip
    (tmp_path / "exported" / "more").mkdir(parents=True)
    (tmp_path / "exported" / "a.json").write_text(SHAPES)
    (tmp_path / "exported" / "more" / "result.json").write_text(json.dumps(coco))
    monkeypatch.chdir(tmp_path)
    page = book_dir() / "your_data.md"
    run(page, blocks(page, "python")[-1])
    found = {p.stem: read_classes(p, LabelSpace("own", ("cat", "R&D"))) for p in tmp_path.rglob("*.xml")}
    assert found == {"a": ("cat",), "b c": ("R&D", "cat"), "none": ()}
