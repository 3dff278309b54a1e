"""Write a data set as a VOC devkit or as COCO instances, which this package and other programs read."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from recamlib.data.access import ImageSet, MaskSet
from recamlib.data.coco import CATEGORY_IDS, part_of
from recamlib.data.images import write_mask
from recamlib.data.labels import COCO14
from recamlib.data.voc import LISTS, check_split
from recamlib.engine.device import bar


def write_voc(folder: Path, images: ImageSet, masks: MaskSet, *, split: str, quality: int = 95) -> Path:
    """Write a data set as a VOC devkit that `VocImages` and `VocMasks` read back.

    Labels and masks come back equal; images are JPEG and come back close.

    Parameters
    ----------
    folder
        Folder to write ``VOCdevkit/VOC2012`` into; other splits already there stay.
    images, masks
        Both doors of the data set, same ids.
    split
        Name of the list to write.
    quality
        JPEG quality, 1 to 100.

    Returns
    -------
    The devkit's folder.
    """
    check_split(split)
    kit = Path(folder) / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (kit / part).mkdir(parents=True, exist_ok=True)
    for id in bar(images.ids, desc=f"writing {split}"):
        pixels = images.image(id).permute(1, 2, 0).numpy()  # (H, W, 3)
        Image.fromarray(pixels).save(kit / "JPEGImages" / f"{id}.jpg", quality=quality, subsampling=0)
        write_mask(kit / "SegmentationClass" / f"{id}.png", masks.mask(id), masks.space.palette)
        names = images.space.decode(images.labels(id))
        _write_annotation(kit / "Annotations" / f"{id}.xml", id, names, pixels.shape)
    listed = kit / "ImageSets" / "Segmentation" / LISTS[split][0]
    listed.write_text("".join(f"{id}\n" for id in images.ids), encoding="utf-8")
    return kit


def _write_annotation(path: Path, id: str, names: Sequence[str], shape: tuple[int, ...]) -> None:
    """Write image-level labels in the form of a VOC annotation."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{id}.jpg"
    size = ElementTree.SubElement(root, "size")
    for tag, value in zip(("height", "width", "depth"), shape, strict=True):
        ElementTree.SubElement(size, tag).text = str(value)
    for name in names:
        ElementTree.SubElement(ElementTree.SubElement(root, "object"), "name").text = name
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8")


def write_coco(folder: Path, images: ImageSet, masks: MaskSet, *, split: str, quality: int = 95) -> Path:
    """Write a data set as COCO instances that `CocoImages` and `CocoMasks` read back.

    Masks are stored as run lengths, one region a class, since polygons cannot hold them exactly: labels and
    masks come back equal (in the space of COCO), images come back close.

    Parameters
    ----------
    folder
        Folder to write ``coco14`` into; other splits already there stay.
    images, masks
        Both doors of the data set, same ids; class names must be COCO's.
    split
        ``train`` or ``val``.
    quality
        JPEG quality, 1 to 100.

    Returns
    -------
    The instances file.
    """
    part = part_of(split)
    space = masks.space
    categories = [CATEGORY_IDS[COCO14.index(name)] for name in space.classes]
    root = Path(folder) / "coco14"
    (root / part).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    listed, annotations = [], []
    for number, id in enumerate(bar(images.ids, desc=f"writing {split}"), start=1):
        pixels = images.image(id).permute(1, 2, 0).numpy()  # (H, W, 3)
        height, width = pixels.shape[:2]
        Image.fromarray(pixels).save(root / part / f"{id}.jpg", quality=quality, subsampling=0)
        listed.append({"id": number, "file_name": f"{id}.jpg", "height": height, "width": width})
        mask = masks.mask(id)
        regions = [(value + 1, category, 0) for value, category in enumerate(categories)]
        regions.append((space.ignore, categories[0], 1))
        for value, category, crowd in regions:
            region = np.asfortranarray(mask == value, dtype=np.uint8)
            if not region.any():
                continue
            runs = run_lengths.encode(region)
            box = [float(v) for v in run_lengths.toBbox(runs)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "iscrowd": crowd,
                    "area": float(run_lengths.area(runs)),
                    "bbox": box,
                    "segmentation": {"size": [height, width], "counts": runs["counts"].decode("ascii")},
                }
            )
    named = [
        {"id": c, "name": n, "supercategory": "animal"}
        for c, n in zip(categories, space.classes, strict=True)
    ]
    content = {"images": listed, "annotations": annotations, "categories": named}
    path = root / "annotations" / f"instances_{part}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
