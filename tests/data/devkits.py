"""Data laid out by hand as VOC and COCO do it."""

import io
import json
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from recamlib.data.access import ImageSet, MaskSet, open_images, open_masks

NAMES = ("cat", "dog", "hen")
SHOWN = ((0,), (1,), (2,), (0, 1), (1, 2), (0,), (1,), (2,))  # classes of each picture
COLOURS = np.array([[90, 110, 90], [220, 70, 50], [60, 90, 220], [230, 200, 60]], np.uint8)
HORSE, PERSON = 19, 1


def both(name: str, split: str, **options) -> tuple[ImageSet, MaskSet]:
    return open_images(name, split, **options), open_masks(name, split, **options)


def encoded(pixels: np.ndarray | Image.Image, kind: str, **more) -> bytes:
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **more)
    return buffer.getvalue()


def class_file(mask: np.ndarray) -> bytes:
    buffer, parts = io.BytesIO(), [(part, "O") for part in ("Segmentation", "Boundaries", "Categories")]
    classes = np.array([(mask, np.zeros(3), 1)], dtype=parts)
    scipy.io.savemat(buffer, {"GTcls": classes[None]}, do_compression=True)
    return buffer.getvalue()


def annotation(*names: str, extra: str = "") -> str:
    objects = "".join(f"<object><name>{n}</name>{extra}</object>" for n in names)
    return f"<annotation><filename>x.jpg</filename>{objects}</annotation>"


def write_kit(root: Path, *, repeat: int = 1, size: tuple[int, int] = (20, 24)) -> Path:
    """Write pictures of three classes, three of four to train on, with masks; return the kit."""
    folder, (height, width) = root / "VOCdevkit" / "VOC2012", size
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(NAMES))
    for number, shown in enumerate(repeat * SHOWN):
        mask = np.zeros(size, np.uint8)
        for place, k in enumerate(shown):
            left = width // 12 + place * 5 * width // 12
            mask[height // 5 : height * (10 + k) // 20, left : left + width // 3] = k + 1
        Image.fromarray(COLOURS[mask] + np.uint8(number % 20)).save(folder / f"JPEGImages/p{number}.jpg")
        Image.fromarray(mask).save(folder / f"SegmentationClass/p{number}.png")
        (folder / f"Annotations/p{number}.xml").write_text(annotation(*(NAMES[k] for k in shown)))
    ids = [f"p{number}\n" for number in range(8 * repeat)]
    for split, part in (("train", ids[: 6 * repeat]), ("val", ids[6 * repeat :])):
        (folder / f"ImageSets/Segmentation/{split}.txt").write_text("".join(part))
    return folder


def box(x: int, y: int, w: int, h: int) -> list[list[int]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def region(id: int, image: int, category: int, shape, *, crowd: int = 0, area: float = 0.0) -> dict:
    return {"id": id, "image_id": image, "category_id": category, "bbox": [0, 0, 1, 1], "segmentation": shape,
            "iscrowd": crowd, "area": area}  # fmt: skip


def coco_content() -> dict:
    """Small before large, a crowd with a horse in it, an image without labels, one of crowd only."""
    crowd = {"size": [20, 30], "counts": [0, 300, 300]}  # the left half, column by column
    names = [f"COCO_train2014_{n:012d}.jpg" for n in (1, 2, 3, 4)]
    return {
        "images": [{"id": n, "file_name": f, "height": 20, "width": 30} for n, f in enumerate(names, 1)],
        "categories": [{"id": HORSE, "name": "horse"}, {"id": PERSON, "name": "person"}],
        "annotations": [
            region(1, 1, PERSON, box(5, 5, 4, 4), area=999),  # the stated area is wrong on purpose
            region(2, 1, HORSE, box(0, 0, 20, 15), area=1), region(3, 2, PERSON, crowd, crowd=1),
            region(4, 2, HORSE, box(2, 2, 5, 5)), region(5, 4, PERSON, crowd, crowd=1),
        ],
    }  # fmt: skip


def write_coco(folder: Path, content, *, part: str = "train2014") -> Path:
    """Write an instances file, and a black image for each that it lists; return the folder."""
    (folder / "coco14" / "annotations").mkdir(parents=True, exist_ok=True)
    (folder / "coco14" / part).mkdir(exist_ok=True)
    for image in content.get("images", ()) if isinstance(content, dict) else ():
        Image.new("RGB", (30, 20)).save(folder / "coco14" / part / Path(image["file_name"]).name)
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "coco14" / "annotations" / f"instances_{part}.json").write_text(text)
    return folder
