"""Look through a data set on disk: which notebooks can run on it, and what is missing for the others."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from recamlib import paths
from recamlib.data.access import DATASETS, SPLITS, ImageSet, MaskSet, disagree, open_images, open_masks
from recamlib.data.images import exif_orientation
from recamlib.data.labels import HOOFED, VOC12, LabelSpace
from recamlib.errors import DataError, MissingDataError, check_choice

SHOWN, ALIKE = 20, 3  # problems that are printed, and those of one kind in many files that are listed
#: Splits whose true masks a notebook scores; all three lists are needed by every notebook.
_SCORED = {
    "01": ("train", "val"), "02": ("train",), "03": ("train",), "04": ("train_aug", "val"),
    "05": ("train", "val"), "06": ("train",),
}  # fmt: skip
_PICTURES = ("02", "03")  # notebooks that do without masks


@dataclass
class Report:
    """What `check_dataset` found: problems make a run fail or its numbers wrong, remarks are good to know."""

    name: str
    root: Path
    present: dict[str, int] = field(default_factory=dict)  # images of each split that is there,
    masks: dict[str, int] = field(default_factory=dict)  # and of those that have a mask
    missing: dict[str, str] = field(default_factory=dict)  # why a split is not there, with the remedy
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    notebooks: dict[str, str] = field(default_factory=dict)  # what each lacks, nothing if it can run
    checked: int = 0  # images, each counted once

    @property
    def ok(self) -> bool:
        """Whether a network can be trained on the data, and nothing in it makes a number wrong."""
        return bool(self.present) and not self.missing and not self.problems

    def __str__(self) -> str:
        lines = [f"{self.name} in {self.root}"]
        for split, count in self.present.items():
            lines.append(f"  there: {split}, {count} images, {self.masks[split]} with masks")
        lines += [f"  not there: {', '.join(splits)}: {why}" for why, splits in _by_value(self.missing)]
        lines += [f"  problem: {line}" for line in self.problems[:SHOWN]]
        if len(self.problems) > SHOWN:
            lines.append(f"  ... and {len(self.problems) - SHOWN} problems more")
        lines += [f"  remark: {line}" for line in self.remarks]
        for lack, numbers in _by_value(self.notebooks):
            which = f"notebook{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
            lines.append(f"  cannot run: {which}: {lack}" if lack else f"  can run: {which}")
        counts = f"{len(self.problems)} problems, {len(self.missing)} splits not there"
        return "\n".join([*lines, f"{self.checked} images checked: {counts}"])


def _by_value(things: dict[str, str]) -> list[tuple[str, list[str]]]:
    """Return every value with the names that have it."""
    return [(value, [k for k in things if things[k] == value]) for value in dict.fromkeys(things.values())]


class _Finding:
    """What one image showed: labels ``(K,)`` and values of the mask ``(n,)``, where they can be read."""

    def __init__(self, id: str, images: ImageSet, masks: MaskSet | None) -> None:
        self.problems: list[str] = []

        def tried(read: Callable[[str], Any]) -> Any:
            try:
                return read(id)
            except DataError as error:
                self.problems.append(str(error))

        image, self.labels = tried(images.image), tried(images.labels)
        # without an image there is nothing to compare the size with
        mask = tried(masks.read) if masks and image is not None else None
        self.values = None if mask is None else np.unique(mask)
        self.turned = image is not None and hasattr(images, "path") and exif_orientation(images.path(id)) > 1


def check_dataset(name: str, root: Path | None = None, *, progress: bool = True) -> Report:
    """Decode every image, annotation and mask of a data set, and say which notebooks can run on it."""
    check_choice("data set", name, DATASETS)
    report = Report(name, paths.data_dir() if root is None else Path(root))
    options = {"count": 16} if name == "hoofed" else {}
    findings: dict[str, _Finding] = {}
    lists: dict[str, tuple[ImageSet, MaskSet]] = {}
    for split in SPLITS:
        try:
            images = open_images(name, split, root=report.root, **options)
            lists[split] = images, open_masks(name, split, root=report.root, **options)
        except MissingDataError as error:
            report.missing[split] = str(error)
        except DataError as error:
            report.problems = list(dict.fromkeys([*report.problems, str(error)]))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for split, (images, masks) in lists.items():
            lacking = len(masks.missing())
            report.present[split], report.masks[split] = len(images), len(images) - lacking
            masked = masks if lacking < len(images) else None  # no mask at all is allowed
            if masked and masked.doubt:
                report.problems.append(masked.doubt)
            ids = [id for id in images.ids if id not in findings]
            found = pool.map(lambda id, i=images, m=masked: _Finding(id, i, m), ids)
            bar = tqdm(found, total=len(ids), desc=f"{name} {split}", disable=not progress)
            findings |= zip(ids, bar, strict=True)
    report.checked = len(findings)
    kinds = defaultdict(list)  # of faults in files
    for id, finding in findings.items():
        for line in finding.problems:
            kinds[line.replace(id, "*")].append(line)
    for lines in kinds.values():
        report.problems += lines[:ALIKE]
        if len(lines) > ALIKE:
            report.problems.append(f"... and {len(lines) - ALIKE} files more with the same fault")
    if lists:
        space = next(iter(lists.values()))[0].space
        _judge(report, findings, space)
        _compare_lists(report, findings, {split: images for split, (images, _) in lists.items()})
        _notebooks(report, space)
    return report


def _judge(report: Report, findings: dict[str, _Finding], space: LabelSpace) -> None:
    """Add what only many images together show."""
    both = {id: f for id, f in findings.items() if f.labels is not None and f.values is not None}
    labelled = Counter(c for f in findings.values() if f.labels is not None for c in np.flatnonzero(f.labels))
    shown = Counter(int(v) - 1 for f in both.values() for v in f.values if 0 < v <= len(space))
    odd = [id for id, f in both.items() if disagree(f.labels, f.values, space)]
    if odd:
        line = f"in {len(odd)} of {len(both)} images the mask shows other classes than the labels ({odd[0]})"
        (report.problems if 2 * len(odd) > len(both) else report.remarks).append(line)
    own = report.name == "voc12" and space != VOC12
    for k, name in enumerate(space.classes if report.name != "hoofed" else ()):  # of 16 scenes
        if both and not shown[k] and (own or labelled[k]):
            named = f"{labelled[k] or 'no'} images are labelled so"
            report.problems.append(f"no mask shows the class {name!r} (value {k + 1}); {named}")
        elif not both and own and labelled and not labelled[k]:
            report.problems.append(f"no image is labelled with the class {name!r}")
    done = "applied, so masks have to be drawn on the turned picture"
    if report.name == "coco14":
        done = "not applied, because COCO's regions are those of the stored pixels"
    turned = [id for id, f in findings.items() if f.turned]
    empty = [id for id, f in findings.items() if f.labels is not None and not f.labels.any()]
    for ids, line in (
        (turned, f"{len(turned)} images carry an EXIF rotation, which is {done}"),
        (empty, f"{len(empty)} of {len(findings)} images show no class; they are left out of runs"),
    ):
        report.remarks += [f"{line} (first: {id})" for id in ids[:1]]


def _compare_lists(report: Report, findings: dict[str, _Finding], lists: dict[str, ImageSet]) -> None:
    """Add lists without any class, and what lists have in common."""
    for split, images in lists.items():
        if not any(findings[id].labels is None or findings[id].labels.any() for id in images.ids):
            report.problems.append(f"no image of {split} shows a class; list images that do")
    both = {"train", "train_aug"} <= set(lists)
    if report.name == "voc12" and both and lists["train"].source == lists["train_aug"].source:
        report.remarks.append("there is no list train_aug, so networks are trained on train")
    for split in ("train", "train_aug"):
        same = set(lists[split].ids) & set(lists["val"].ids) if {split, "val"} <= set(lists) else ()
        if same:
            report.remarks.append(f"{len(same)} images of val are in {split}, too, so val is no test of it")
            break


def _notebooks(report: Report, space: LabelSpace) -> None:
    """Add what each notebook lacks."""
    absent = [split for split in SPLITS if split not in report.present]
    horses = [name for name in VOC12.classes if name in HOOFED.classes]
    none = [name for name in horses if name not in space.classes]
    for number, scored in _SCORED.items():
        pictures = number in _PICTURES and not report.masks.get("train")
        unmasked = [s for s in scored if report.masks.get(s, 0) < report.present.get(s, 0) and not pictures]
        lack = ""
        if absent:
            lack = f"every notebook opens {', '.join(absent)}, too"
        elif number == "04" and unmasked == ["train_aug"]:
            lack = "no masks of train_aug for the upper bound; add -p upper_bound=false"
        elif unmasked:
            lack = f"no masks to score {' and '.join(unmasked)} with (training and maps need none)"
        elif report.problems:
            lack = "the problems above come first"
        elif number == "01" and report.name == "voc12" and none:
            lack = f"it is about {', '.join(horses)}, and there is no {', '.join(none)}"
            lack += "; add -p groups='[\"all\"]'"
        report.notebooks[number] = lack
    if not absent and not report.masks["train"]:
        which = " and ".join(_PICTURES)
        report.remarks.append(f"train has no masks: notebooks {which} show pictures and convergence, no mIoU")
