"""Look through a data set on disk: what is there, what is missing, what does not decode or does not fit."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from recamlib import paths
from recamlib.data.access import DATASETS, ImageSet, MaskSet, open_images, open_masks
from recamlib.data.images import exif_rotation
from recamlib.errors import DataError, SettingsError, nearest

_SPLITS = {"hoofed": ("train", "val"), "voc12": ("train", "val", "train_aug"), "coco14": ("train", "val")}


@dataclass
class Report:
    """What `check_dataset` found; printed, it ends with the count.

    Attributes
    ----------
    name, root
        Data set and the folder looked at.
    present
        Number of images in each split that is there.
    missing
        One line for each split that is not there, with the remedy.
    problems
        One line for each file that does not decode, or does not fit its image or its label space.
    remarks
        Things that are allowed but good to know.
    checked
        Number of images looked at, each counted once.
    """

    name: str
    root: Path
    present: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    checked: int = 0

    @property
    def ok(self) -> bool:
        """Whether at least one split is there and every file of it is fine."""
        return bool(self.present) and not self.problems

    def lines(self) -> list[str]:
        """Return the report line by line, the count last."""
        lines = [f"{self.name} in {self.root}"]
        lines += [f"  there: {split}, {count} images" for split, count in self.present.items()]
        lines += [f"  not there: {line}" for line in self.missing]
        lines += [f"  problem: {line}" for line in self.problems]
        lines += [f"  remark: {line}" for line in self.remarks]
        counts = (len(self.problems), len(self.missing))
        lines.append(f"{self.checked} images checked: {counts[0]} problems, {counts[1]} splits not there")
        return lines

    def __str__(self) -> str:
        return "\n".join(self.lines())


@dataclass
class _Finding:
    """What one image showed."""

    problems: list[str] = field(default_factory=list)
    turned: bool = False
    unlike: bool = False


def _tried(action, finding: _Finding):
    """Return what an action returns, or None after writing down its error."""
    try:
        return action()
    except DataError as error:
        finding.problems.append(str(error))
        return None


def _look(id: str, images: ImageSet, masks: MaskSet) -> _Finding:
    """Decode image, labels and mask of one id."""
    finding = _Finding()
    image = _tried(lambda: images.image(id), finding)
    labels = _tried(lambda: images.labels(id), finding)
    # Without an image the size of the mask has nothing to be compared with.
    mask = None if image is None else _tried(lambda: masks.mask(id), finding)
    if labels is not None and mask is not None:
        seen = np.setdiff1d(mask, (0, masks.space.ignore)) - 1
        finding.unlike = not np.array_equal(np.flatnonzero(labels), seen)
    if image is not None and hasattr(images, "path"):
        finding.turned = exif_rotation(images.path(id))
    return finding


def _opened(name: str, root: Path, report: Report, options: dict) -> Iterator[tuple[str, ImageSet, MaskSet]]:
    """Yield both doors of every split that is there."""
    for split in _SPLITS[name]:
        try:
            images = open_images(name, split, root=root, **options)
            masks = open_masks(name, split, root=root, **options)
        except DataError as error:
            report.missing.append(f"{split}: {error}")
            continue
        report.present[split] = len(images)
        yield split, images, masks


def check_dataset(name: str, root: Path | None = None, *, workers: int = 0, progress: bool = True) -> Report:
    """Decode every image, annotation and mask that the lists of a data set name.

    Parameters
    ----------
    name
        ``hoofed``, ``voc12`` or ``coco14``.
    root
        Folder of the official data sets, default ``paths.data_dir()``.
    workers
        Number of threads, 0 for one a core, at most 8.
    progress
        Show a progress bar.

    Returns
    -------
    A report; one bad file never hides the others.

    Raises
    ------
    SettingsError
        If the name is unknown.
    """
    if name not in DATASETS:
        raise SettingsError(
            f"no data set {name!r}{nearest(name, DATASETS)}; choose one of {', '.join(DATASETS)}"
        )
    root = paths.data_dir() if root is None else Path(root)
    report = Report(name, root)
    options = {"count": 16} if name == "hoofed" else {}
    turned, unlike, seen = [], [], set()
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for split, images, masks in _opened(name, root, report, options):
            ids = [id for id in images.ids if id not in seen]
            seen.update(ids)
            found = pool.map(lambda id, i=images, m=masks: _look(id, i, m), ids)
            bar = tqdm(found, total=len(ids), desc=f"{name} {split}", disable=not progress)
            for id, finding in zip(ids, bar, strict=True):
                report.problems += finding.problems
                turned += [id] * finding.turned
                unlike += [id] * finding.unlike
    report.checked = len(seen)
    if turned:
        report.remarks.append(
            f"{len(turned)} images carry an EXIF rotation, which is not applied (first: {turned[0]})"
        )
    if unlike:
        report.remarks.append(
            f"in {len(unlike)} images the labels are not exactly the classes of the mask (first: {unlike[0]})"
        )
    return report
