"""Access to data sets: images with image-level labels for training, true masks for metrics only."""

import os
import pkgutil
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recamlib import paths
from recamlib.data.labels import LabelSpace
from recamlib.errors import DataError, MaskAccessError, check_choice, nearest

DATASETS = {"hoofed": "hoofed.scenes:Hoofed", "voc12": "voc:Voc", "coco14": "coco:Coco"}  # read when needed
SPLITS = ("train", "train_aug", "val")
COMPARED = 16  # masks that are compared with the labels before the first one is handed out

# The counter lives in the environment so that loader workers, forked or spawned, start with it.
_GUARD = "RECAM_LABELS_ONLY"
_lock = threading.Lock()


@contextmanager
def labels_only() -> Iterator[None]:
    """Shut the masks while anything trains, for the whole process and those started inside; blocks nest."""

    def move(step: int) -> None:
        with _lock:
            os.environ[_GUARD] = str(int(os.environ.get(_GUARD) or 0) + step)

    move(+1)
    try:
        yield
    finally:
        move(-1)


def masks_allowed() -> bool:
    """Say whether no `labels_only` block is open."""
    return not int(os.environ.get(_GUARD) or 0)


def _check_guard() -> None:
    if not masks_allowed():
        raise MaskAccessError("masks are for metrics only, and labels_only is open: score after the training")


class _Listed:
    """Ids in order and their label space; `source` is what messages call the set, such as a list file."""

    def __init__(self, space: LabelSpace, ids: Sequence[str], *, source: str = "") -> None:
        self.space, self.ids = space, tuple(ids)
        self.source = source or type(self).__name__
        if not self.ids:
            raise DataError(f"{self.source}: the list of images is empty; check the split and the selection")

    def __len__(self) -> int:
        return len(self.ids)


class ImageSet(_Listed, ABC):
    """Images and image-level labels, in the order of `ids`. Has no way to a mask."""

    @abstractmethod
    def image(self, id: str) -> torch.Tensor:
        """Return one image, shape ``(3, H, W)``, uint8, RGB."""

    @abstractmethod
    def labels(self, id: str) -> np.ndarray:
        """Return the classes present, shape ``(K,)``, uint8 in {0, 1}."""

    def full_labels(self, id: str) -> np.ndarray:
        """Return the labels before any narrowing of classes, shape ``(K_full,)``."""
        return self.labels(id)

    def label_matrix(self) -> np.ndarray:
        """Return the labels of all images, shape ``(N, K)``, uint8, rows in the order of `ids`."""
        return np.stack([self.labels(id) for id in self.ids])

    def select(
        self, *, classes: Iterable[str] = (), single_label: bool = False, multi_label: bool = False,
        limit: int = 0, seed: int = 0,
    ) -> "ImageSet":  # fmt: skip
        """Return the images that show a class, as the paper does on COCO, or fewer; others are warned of.

        With `classes`, images of at least one of these classes stay, with these labels alone, in this order.
        With `single_label` or `multi_label`, those of exactly one class, or of several, in the full space.
        `limit` keeps this many images at most, drawn with `seed`, in their old order; 0 keeps all.
        """
        if limit < 0:
            raise DataError(f"limit must be 0 (all images) or more, got {limit}")
        classes = tuple(classes)
        space = self.space.subset(classes) if classes else self.space
        columns = [self.space.index(name) for name in space.classes]
        ids = [id for id in self.ids if self.labels(id).any()]
        if not ids:
            raise DataError(f"no image of {self.source} shows a class; list images that do")
        if len(ids) < len(self.ids):
            some = f"{len(self.ids) - len(ids)} of {len(self.ids)} images of {self.source} show no class"
            warnings.warn(f"{some}; they are left out of training and of scores", stacklevel=2)
        source = self.source
        if single_label:
            ids, source = [id for id in ids if self.full_labels(id).sum() == 1], f"{source} (single label)"
        if multi_label:
            ids, source = [id for id in ids if self.full_labels(id).sum() > 1], f"{source} (several labels)"
        if classes:
            ids = [id for id in ids if self.labels(id)[columns].any()]
            source += f" (classes {', '.join(classes)})"
        if 0 < limit < len(ids):
            ids = [ids[i] for i in np.sort(np.random.default_rng(seed).permutation(len(ids))[:limit])]
        return _Selection(self, columns, space, ids, source=source)


class _Selection(ImageSet):
    """A part of another image set, perhaps with fewer classes."""

    def __init__(self, parent: ImageSet, columns: list[int], *args: Any, source: str) -> None:
        super().__init__(*args, source=source)
        self._parent, self._columns = parent, columns

    def image(self, id: str) -> torch.Tensor:
        return self._parent.image(id)

    def labels(self, id: str) -> np.ndarray:
        return self._parent.labels(id)[self._columns]

    def full_labels(self, id: str) -> np.ndarray:
        return self._parent.full_labels(id)


def disagree(labels: np.ndarray, values: np.ndarray, space: LabelSpace) -> bool:
    """Say whether mask values show a class that labels ``(K,)`` lack, or none of those they name."""
    shown = {int(value) - 1 for value in values} - {-1, space.ignore - 1}
    named = {*np.flatnonzero(labels).tolist()}
    return bool(shown - named or (named and not shown))


class MaskSet(_Listed, ABC):
    """True masks, for metrics only; refuses to work inside `labels_only`."""

    def __init__(self, *args: Any, **named: Any) -> None:
        _check_guard()
        super().__init__(*args, **named)

    def __getstate__(self) -> dict:
        _check_guard()  # pickling is how a mask set would travel to a spawned worker
        return self.__dict__

    @abstractmethod
    def _mask(self, id: str) -> np.ndarray:
        """Return the stored mask, any integer type, unchecked."""

    @abstractmethod
    def _image_size(self, id: str) -> tuple[int, int]:
        """Return ``(H, W)`` of the image that the mask belongs to."""

    def _labels(self, id: str) -> np.ndarray | None:
        """Return image-level labels ``(K,)``, if they say more than the mask does."""
        return None

    def _where(self, id: str) -> str:
        """Name the file of a mask for messages."""
        return f"mask {id!r} of {self.source}"

    def missing(self) -> tuple[str, ...]:
        """Return the ids of images whose mask is not there."""
        return ()

    def mask(self, id: str) -> np.ndarray:
        """Return one mask, shape ``(H, W)``, uint8: 0 background, ``k + 1`` class ``k``, 255 ignore."""
        _check_guard()
        if self.doubt:
            raise DataError(self.doubt)
        return self.read(id)

    @cached_property
    def doubt(self) -> str:
        """Why the masks cannot be what the labels name, or nothing: looks at `COMPARED` of them, once."""
        compared, blank, unlike = 0, 0, []
        for id in self.ids[:: -(-len(self.ids) // COMPARED)]:
            with suppress(DataError):  # named when it is asked for
                if (labels := self._labels(id)) is None:
                    continue
                values = np.unique(self.read(id))
                compared += 1
                blank += bool(labels.any()) and values.max() == self.space.ignore and not any(values[:-1])
                if disagree(labels, values, self.space):
                    unlike.append((id, labels, values))
        names = self.space.names
        numbers = ", ".join(f"{v} {name}" for v, name in enumerate(names[:4])) + " ..." * (len(names) > 4)
        if 2 * blank > compared:
            what = f"{blank} of {compared} masks hold 0 and 255 alone, and 255 means 'not scored'"
        elif 2 * len(unlike) > compared:
            id, labels, values = unlike[0]
            named = ", ".join(self.space.decode(labels)) or "no class"
            shown = ", ".join(names[v] for v in values if 0 < v < len(names)) or "none"
            what = f"{len(unlike)} of {compared} masks show other classes than the labels name "
            what += f"({id}: labels {named}; mask {shown})"
        else:
            return ""
        return f"{self.source}: {what}; values have to be {numbers}"

    def read(self, id: str) -> np.ndarray:
        """Return one mask as `mask` does, without the comparison with the labels."""
        _check_guard()
        mask = np.asarray(self._mask(id))
        height, width = self._image_size(id)
        if mask.shape != (height, width):
            came = f"{self._where(id)} has shape {mask.shape}, its image ({height}, {width})"
            if mask.shape == (width, height):
                raise DataError(f"{came}; the sides are swapped: rotate the pixels as the EXIF tag says")
            raise DataError(f"{came}; make both from the same original")
        fine = np.isin(mask, [*range(self.space.with_background), self.space.ignore])
        if not fine.all():
            known = f"{self.space.name} knows 0 to {len(self.space)} and {self.space.ignore} (ignore)"
            came = f"{self._where(id)} holds the value {mask[~fine][0]}"
            raise DataError(f"{came}, {known}; rewrite the mask")
        return mask.astype(np.uint8)

    def select(self, ids: Iterable[str], *, classes: Iterable[str] = ()) -> "MaskSet":
        """Return the masks of `ids`; pixels of classes that are left out become the ignore value."""
        ids, known = tuple(ids), set(self.ids)
        for id in ids:
            if id not in known:
                raise DataError(f"{self.source} has no mask {id!r}{nearest(id, self.ids[:5000])}")
        space = self.space.subset(classes) if (classes := tuple(classes)) else self.space
        return _MaskSelection(self, space, ids, source=self.source)


class _MaskSelection(MaskSet):
    """Some masks of another set, perhaps with fewer classes."""

    def __init__(self, parent: MaskSet, space: LabelSpace, ids: tuple[str, ...], *, source: str) -> None:
        super().__init__(space, ids, source=source)
        self._parent, self._table = parent, np.full(256, space.ignore, np.uint8)
        self._table[[0, *(parent.space.index(name) + 1 for name in space.classes)]] = range(len(space) + 1)

    def _mask(self, id: str) -> np.ndarray:
        return self._table[self._parent.mask(id)]

    def _image_size(self, id: str) -> tuple[int, int]:
        return self._parent._image_size(id)


def open_images(name: str, split: str, *, root: Path | None = None, **options: Any) -> ImageSet:
    """Open images and image-level labels of a data set, one of `DATASETS`, and a split, one of `SPLITS`.

    `root` is the folder of the data sets, by default ``paths.data_dir()``. Options of ``hoofed``: see
    `recamlib.data.hoofed.scenes`.
    """
    return _open("Images", name, split, root, options)


def open_masks(name: str, split: str, *, root: Path | None = None, **options: Any) -> MaskSet:
    """Open the true masks of a data set, for metrics only: as `open_images`, but not inside `labels_only`."""
    return _open("Masks", name, split, root, options)


def _open(kind: str, name: str, split: str, root: Path | None, options: dict[str, Any]) -> Any:
    """Return a reader of ``Images`` or ``Masks``."""
    check_choice("data set", name, DATASETS)
    check_choice("split", split, SPLITS)
    reader = pkgutil.resolve_name(f"recamlib.data.{DATASETS[name]}{kind}")
    if name == "hoofed":
        return reader(split, **options)
    return reader(paths.data_dir() if root is None else Path(root), split, **options)
