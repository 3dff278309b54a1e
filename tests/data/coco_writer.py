"""A data set as COCO instances, for tests of the reader."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from recamlib.data.access import ImageSet, MaskSet
from recamlib.data.coco import CATEGORY_IDS, part_of
from recamlib.data.labels import COCO14


def write_coco(folder: Path, images: ImageSet, masks: MaskSet, *, split: str, quality: int = 95) -> Path:
    """Write a data set whose classes are COCO's as COCO instances, masks as run lengths; return the file."""
    part = part_of(split)
    space = masks.space
    categories = [CATEGORY_IDS[COCO14.index(name)] for name in space.classes]
    root = Path(folder) / "coco14"
    (root / part).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    listed, annotations = [], []
    for number, id in enumerate(images.ids, start=1):
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
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": crowd,
                 "area": float(run_lengths.area(runs)), "bbox": [float(v) for v in run_lengths.toBbox(runs)],
                 "segmentation": {"size": [height, width], "counts": runs["counts"].decode("ascii")}}
            )  # fmt: skip
    named = [{"id": c, "name": n} for c, n in zip(categories, space.classes, strict=True)]
    content = {"images": listed, "annotations": annotations, "categories": named}
    path = root / "annotations" / f"instances_{part}.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
