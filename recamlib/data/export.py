"""Write a data set as a VOC devkit, which this package and other programs read."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from recamlib.data.access import ImageSet, MaskSet
from recamlib.data.images import write_mask
from recamlib.data.labels import VOC12
from recamlib.data.voc import CLASSES, LISTS, check_split


def write_voc(folder: Path, images: ImageSet, masks: MaskSet, *, split: str, quality: int = 95) -> Path:
    """Write a data set as a VOC devkit that `VocImages` and `VocMasks` read back.

    It lies in ``VOCdevkit/VOC2012`` of `folder`, where other splits stay. Labels and masks come back equal,
    images are JPEG of `quality` and come back close; classes that are not VOC's go to ``classes.txt``.
    """
    check_split(split)
    kit = Path(folder) / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (kit / part).mkdir(parents=True, exist_ok=True)
    for id in tqdm(images.ids, desc=f"writing {split}", leave=False, disable=None):
        pixels = images.image(id).permute(1, 2, 0).numpy()  # (H, W, 3)
        Image.fromarray(pixels).save(kit / "JPEGImages" / f"{id}.jpg", quality=quality, subsampling=0)
        write_mask(kit / "SegmentationClass" / f"{id}.png", masks.mask(id), masks.space.palette)
        names = images.space.decode(images.labels(id))
        _write_annotation(kit / "Annotations" / f"{id}.xml", id, names, pixels.shape)
    if images.space.classes != VOC12.classes:
        (kit / CLASSES).write_text("".join(f"{name}\n" for name in images.space.classes), encoding="utf-8")
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
