"""Exports of annotation programs: what each is, and the three steps that make it readable."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_KIT = "VOCdevkit/VOC2012"
_PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_STEPS = {
    "roboflow": "a Roboflow export: (1) export as Pascal VOC, put the pictures of {0}/ into {kit}/JPEGImages "
    "and its XML files into {kit}/Annotations",
    "label studio": "a Label Studio export: (1) export as Pascal VOC XML, put images/ into {kit}/JPEGImages, "
    "Annotations/ into {kit}/Annotations",
    "labelme": "files of labelme ({0}): (1) put the pictures into {kit}/JPEGImages, write an annotation for "
    "each with the lines of book/your_data.md that read labelme's JSON",
    "coco": "a file in the form of COCO ({0}), which is read with COCO's own 80 classes alone: (1) put the "
    "pictures into {kit}/JPEGImages, write an annotation for each with the lines of book/your_data.md for it",
    "yolo": "an export for YOLO ({0}), which is not read: (1) export as Pascal VOC instead, and lay it out "
    "as book/your_data.md says",
}
_LAST = (
    ", (2) write the names of the pictures, one a line, to train.txt and val.txt in {kit}/"
    "ImageSets/Segmentation, (3) write your classes, one a line without background, to {kit}/classes.txt"
)


def describe(root: Path) -> str:
    """Say which program wrote a folder and how to make it readable, or nothing if that is not clear."""
    for folder in (root, root / _KIT, root / "VOCdevkit"):
        kind, name = _kind(folder) if folder.is_dir() else ("", "")
        if kind:
            return "this looks like " + (_STEPS[kind] + _LAST).format(name, kit=_KIT)
    return ""


def _kind(root: Path) -> tuple[str, str]:
    """Return the program and the file or folder that gives it away."""
    for part in ("train", "valid", "test"):
        files = [*islice((root / part).glob("*"), 1000)] if (root / part).is_dir() else []
        suffixes = {f.suffix.lower() for f in files}
        if (".xml" in suffixes or (root / part / "_classes.csv").is_file()) and suffixes & _PICTURES:
            return "roboflow", part
    if (root / "class_names.txt").is_file():
        return "labelme", "class_names.txt"
    for name in ("data.yaml", "data.yml", "obj.names"):
        if (root / name).is_file() and not any(root.glob("*.json")):
            return "yolo", name
    for path, content in _json(root):
        if isinstance(content, dict) and "shapes" in content:
            return "labelme", path.name
        if isinstance(content, dict) and "images" in content and "annotations" in content:
            return "coco", path.relative_to(root).as_posix()
        first = content[0] if isinstance(content, list) and content else None
        if isinstance(first, dict) and {"annotations", "image", "data"} & set(first):
            return "label studio", path.name
    if (root / "images").is_dir() and (root / "Annotations").is_dir():
        return "label studio", "images"
    return "", ""


def _json(root: Path) -> Iterator[tuple[Path, object]]:
    """Yield the first JSON files of a folder and its subfolders, read."""
    for path in islice((f for pattern in ("*.json", "*/*.json") for f in sorted(root.glob(pattern))), 5):
        try:
            if path.stat().st_size < 2**28:
                yield path, json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
