"""Data sets behind two doors: `open_images` for training and `open_masks` for metrics."""

from pathlib import Path
from typing import Any

from recamlib import paths
from recamlib.data.access import ImageSet, MaskSet, labels_only, masks_allowed
from recamlib.data.labels import COCO14, HOOFED, SPACES, VOC12, LabelSpace
from recamlib.errors import SettingsError, nearest

__all__ = [
    "COCO14",
    "DATASETS",
    "HOOFED",
    "SPACES",
    "SPLITS",
    "VOC12",
    "ImageSet",
    "LabelSpace",
    "MaskSet",
    "labels_only",
    "masks_allowed",
    "open_images",
    "open_masks",
]

#: Options that each data set takes beyond name, split and root.
DATASETS = {"hoofed": ("count", "size", "seed", "single_share"), "voc12": ("space",), "coco14": ()}
SPLITS = ("train", "train_aug", "val")


def _checked(name: str, split: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options for a reader, or raise an error that names the nearest valid word."""
    if name not in DATASETS:
        raise SettingsError(
            f"no data set {name!r}{nearest(name, DATASETS)}; choose one of {', '.join(DATASETS)}"
        )
    if split not in SPLITS:
        raise SettingsError(f"no split {split!r}{nearest(split, SPLITS)}; choose one of {', '.join(SPLITS)}")
    for option in options:
        if option not in DATASETS[name]:
            known = ", ".join(DATASETS[name]) or "none"
            hint = nearest(option, DATASETS[name])
            raise SettingsError(f"data set {name!r} has no option {option!r}{hint}; its options: {known}")
    if isinstance(options.get("space"), str):
        space = options["space"]
        if space not in SPACES:
            raise SettingsError(f"no label space {space!r}{nearest(space, SPACES)}")
        options = {**options, "space": SPACES[space]}
    return options


def open_images(name: str, split: str, *, root: Path | None = None, **options: Any) -> ImageSet:
    """Open the first door of a data set: images and image-level labels.

    Parameters
    ----------
    name
        ``hoofed``, ``voc12`` or ``coco14``.
    split
        ``train``, ``train_aug`` or ``val``; hoofed and COCO have no larger training set, so there
        ``train_aug`` is ``train``.
    root
        Folder of the official data sets, default ``paths.data_dir()``; hoofed needs none.
    **options
        ``hoofed``: `count`, `size`, `seed`, `single_share`, see `recamlib.data.hoofed.scenes.HoofedImages`.
        ``voc12``: `space`, the name of the label space if the devkit holds other classes than VOC's.

    Raises
    ------
    SettingsError
        If a name or option is unknown.
    DataError
        If the files are not there or unusable.
    """
    options = _checked(name, split, options)
    root = paths.data_dir() if root is None else Path(root)
    if name == "hoofed":
        from recamlib.data.hoofed.scenes import HoofedImages

        return HoofedImages(split, **options)
    if name == "voc12":
        from recamlib.data.voc import VocImages

        return VocImages(root, split, **options)
    from recamlib.data.coco import CocoImages

    return CocoImages(root, split)


def open_masks(name: str, split: str, *, root: Path | None = None, **options: Any) -> MaskSet:
    """Open the second door of a data set: true masks, for metrics only.

    Parameters and errors are those of `open_images`; inside `labels_only` it raises `MaskAccessError`.
    """
    options = _checked(name, split, options)
    root = paths.data_dir() if root is None else Path(root)
    if name == "hoofed":
        from recamlib.data.hoofed.scenes import HoofedMasks

        return HoofedMasks(split, **options)
    if name == "voc12":
        from recamlib.data.voc import VocMasks

        return VocMasks(root, split, **options)
    from recamlib.data.coco import CocoMasks

    return CocoMasks(root, split)
