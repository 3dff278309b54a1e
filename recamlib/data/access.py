"""Access to data sets: images with image-level labels for training, true masks for metrics only.

`open_images` and `open_masks` open a data set by name; `labels_only` shuts the masks while anything trains.
"""

import os
import pkgutil
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recamlib import paths
from recamlib.data.labels import SPACES, LabelSpace
from recamlib.errors import DataError, MaskAccessError, SettingsError, nearest

#: Options that each data set takes beyond name, split and root.
DATASETS = {"hoofed": ("count", "size", "seed", "single_share"), "voc12": ("space",), "coco14": ()}
_READERS = {"hoofed": "hoofed.scenes:Hoofed", "voc12": "voc:Voc", "coco14": "coco:Coco"}  # read when needed
SPLITS = ("train", "train_aug", "val")
COMPARED = 16  # masks that are compared with the labels before the first one is handed out

# The counter lives in the environment so that loader workers, forked or spawned, start with it.
_GUARD = "RECAM_LABELS_ONLY"
_lock = threading.Lock()


def _guard_depth() -> int:
    return int(os.environ.get(_GUARD) or 0)


def _move_guard(step: int) -> None:
    with _lock:
        depth = _guard_depth() + step
        if depth > 0:
            os.environ[_GUARD] = str(depth)
        else:
            os.environ.pop(_GUARD, None)


@contextmanager
def labels_only() -> Iterator[None]:
    """Shut the masks: no mask set can be opened, read or sent to a worker inside this block.

    Training runs in it. It holds for the whole process and for worker processes started inside the block;
    blocks nest.
    """
    _move_guard(+1)
    try:
        yield
    finally:
        _move_guard(-1)


def masks_allowed() -> bool:
    """Say whether masks may be read at this moment (no `labels_only` block is open)."""
    return _guard_depth() == 0


def _check_guard() -> None:
    if not masks_allowed():
        raise MaskAccessError(
            "a pixel mask was asked for while training on image-level labels; masks are for metrics only, "
            "so score after the training block has ended"
        )


class ImageSet(ABC):
    """Images and image-level labels. Has no way to a mask.

    Parameters
    ----------
    space
        Label space of `labels`.
    ids
        Image ids in the order of the official list.
    source
        What to call this set in messages, for example a list file.
    """

    def __init__(self, space: LabelSpace, ids: Sequence[str], *, source: str = "") -> None:
        self.space = space
        self.ids = tuple(ids)
        self.source = source or type(self).__name__
        if not self.ids:
            raise DataError(f"{self.source}: the list of images is empty; check the split and the selection")

    def __len__(self) -> int:
        return len(self.ids)

    @abstractmethod
    def image(self, id: str) -> torch.Tensor:
        """Return one image, shape ``(3, H, W)``, uint8, RGB."""

    @abstractmethod
    def size(self, id: str) -> tuple[int, int]:
        """Return ``(H, W)`` in pixels, from the file's header where that is possible."""

    @abstractmethod
    def labels(self, id: str) -> np.ndarray:
        """Return the classes present, shape ``(K,)``, uint8 in {0, 1}."""

    def without_class(self) -> tuple[str, ...]:
        """Return the ids of images without a class, which `select` leaves out, as the paper does on COCO."""
        return ()

    def full_labels(self, id: str) -> np.ndarray:
        """Return the labels before any narrowing of classes, shape ``(K_full,)``."""
        return self.labels(id)

    def label_matrix(self) -> np.ndarray:
        """Return the labels of all images, shape ``(N, K)``, uint8, rows in the order of `ids`."""
        return np.stack([self.labels(id) for id in self.ids])

    def select(
        self,
        *,
        classes: Iterable[str] = (),
        single_label: bool = False,
        multi_label: bool = False,
        limit: int = 0,
        seed: int = 0,
    ) -> "ImageSet":
        """Return a part of this set; nothing is copied.

        Images without any class are always left out, with a warning that counts them.

        Parameters
        ----------
        classes
            Keep images with at least one of these classes and narrow the label space to them, in this
            order; empty keeps all. Labels of other classes are dropped.
        single_label
            Keep images with exactly one class in the full space, so a horse with its rider is left out
            even when only horses are asked for.
        multi_label
            Keep images with several classes in the full space.
        limit
            Keep this many images at most, drawn with `seed`, in their old order; 0 keeps all.

        Raises
        ------
        DataError
            If a class is unknown or no image is left.
        """
        return _Selection(
            self, classes=tuple(classes), single_label=single_label, multi_label=multi_label, limit=limit,
            seed=seed,
        )  # fmt: skip


class _Selection(ImageSet):
    """A part of another image set, perhaps with fewer classes."""

    def __init__(
        self,
        parent: ImageSet,
        *,
        classes: tuple[str, ...],
        single_label: bool,
        multi_label: bool,
        limit: int,
        seed: int,
    ) -> None:
        space = parent.space.subset(classes) if classes else parent.space
        self._parent = parent
        self._columns = [parent.space.index(name) for name in space.classes]
        empty = {*parent.without_class()}
        ids = [id for id in parent.ids if id not in empty]
        if not ids:
            raise DataError(f"no image of {parent.source} shows a class; list images that do")
        if len(ids) < len(parent.ids):
            warnings.warn(
                f"{len(parent.ids) - len(ids)} of {len(parent.ids)} images of {parent.source} show no class; "
                "they are left out of training and of scores", stacklevel=3,
            )  # fmt: skip
        if single_label:
            ids = [id for id in ids if parent.full_labels(id).sum() == 1]
        if multi_label:
            ids = [id for id in ids if parent.full_labels(id).sum() > 1]
        if classes:
            ids = [id for id in ids if parent.labels(id)[self._columns].any()]
        if limit < 0:
            raise DataError(f"limit must be 0 (all images) or more, got {limit}")
        if limit and limit < len(ids):
            kept = np.sort(np.random.default_rng(seed).permutation(len(ids))[:limit])
            ids = [ids[i] for i in kept]
        wanted = [f"classes {', '.join(classes)}"] * bool(classes) + ["single label"] * single_label
        wanted += ["several labels"] * multi_label
        source = f"{parent.source} ({'; '.join(wanted)})" if wanted else parent.source
        super().__init__(space, ids, source=source)

    def image(self, id: str) -> torch.Tensor:
        return self._parent.image(id)

    def size(self, id: str) -> tuple[int, int]:
        return self._parent.size(id)

    def labels(self, id: str) -> np.ndarray:
        return self._parent.labels(id)[self._columns]

    def full_labels(self, id: str) -> np.ndarray:
        return self._parent.full_labels(id)


def disagree(labels: np.ndarray, values: np.ndarray, space: LabelSpace) -> bool:
    """Say whether mask values ``(n,)`` show a class that labels ``(K,)`` lack, or none of those they name."""
    shown = {int(value) - 1 for value in values} - {-1, space.ignore - 1}
    named = {*np.flatnonzero(labels).tolist()}
    return bool(shown - named or (named and not shown))


class MaskSet(ABC):
    """True masks, for metrics only; refuses to work inside `labels_only`.

    Subclasses give `_mask`; the guard, the checks of size and values, and the comparison of some masks with
    the labels before the first one is handed out stand here, once.
    """

    def __init__(self, space: LabelSpace, ids: Sequence[str], *, source: str = "") -> None:
        _check_guard()
        self.space = space
        self.ids = tuple(ids)
        self.source = source or type(self).__name__
        if not self.ids:
            raise DataError(f"{self.source}: the list of masks is empty; check the split and the selection")

    def __len__(self) -> int:
        return len(self.ids)

    def __getstate__(self) -> dict:
        _check_guard()  # pickling is how a mask set would travel to a spawned worker
        return self.__dict__

    @abstractmethod
    def _mask(self, id: str) -> np.ndarray:
        """Return the stored mask, any integer type, unchecked."""

    @abstractmethod
    def _image_size(self, id: str) -> tuple[int, int]:
        """Return ``(H, W)`` of the image that the mask belongs to."""

    def _where(self, id: str) -> str:
        """Name the file of a mask for messages."""
        return f"mask {id!r} of {self.source}"

    def missing(self) -> tuple[str, ...]:
        """Return the ids of images whose mask is not there."""
        return ()

    def _labels(self, id: str) -> np.ndarray | None:
        """Return image-level labels ``(K,)`` that do not come from the masks, if there are any."""
        return None

    def mask(self, id: str) -> np.ndarray:
        """Return one mask, shape ``(H, W)``, uint8: 0 background, ``k + 1`` class ``k``, 255 ignore.

        Raises
        ------
        MaskAccessError
            Inside `labels_only`.
        DataError
            If the mask is not as large as its image or holds a value outside the label space, or if the
            masks of the set as a whole do not mean what they should, see `doubt`.
        """
        _check_guard()
        if self.doubt:
            raise DataError(self.doubt)
        return self.read(id)

    @cached_property
    def doubt(self) -> str:
        """Say why the masks cannot be what the labels name, or nothing: looks at some of them, once."""
        compared, blank, unlike = 0, 0, []
        for id in self.ids[:: -(-len(self.ids) // COMPARED)]:
            try:
                if (labels := self._labels(id)) is None:
                    continue
                values = np.unique(self.read(id))
            except DataError:  # named when it is asked for
                continue
            compared += 1
            blank += bool(labels.any()) and values.max() == self.space.ignore and not any(values[:-1])
            if disagree(labels, values, self.space):
                unlike.append((id, labels, values))
        if 2 * blank > compared:
            return (
                f"{self.source}: {blank} of {compared} masks hold 0 and 255 alone, 255 means 'not scored'; "
                f"values have to be {self._numbers()}"
            )
        if 2 * len(unlike) > compared:
            id, labels, values = unlike[0]
            named = ", ".join(self.space.decode(labels)) or "no class"
            shown = ", ".join(self.space.names[v] for v in values if 0 < v < len(self.space.names)) or "none"
            return (
                f"{self.source}: {len(unlike)} of {compared} masks show other classes than the labels name "
                f"({id}: labels {named}; mask {shown}); values have to be {self._numbers()}"
            )
        return ""

    def _numbers(self) -> str:
        """Return which value is which class, shortened."""
        first = ", ".join(f"{value} {name}" for value, name in enumerate(self.space.names[:4]))
        return first + (" ..." if len(self.space) > 3 else "")

    def read(self, id: str) -> np.ndarray:
        """Return one mask as `mask` does, without the comparison with the labels."""
        _check_guard()
        mask = np.asarray(self._mask(id))
        height, width = self._image_size(id)
        if mask.shape != (height, width):
            hint = "make both from the same original"
            if mask.shape == (width, height):
                hint = "the sides are swapped, so rotate the pixels of the image as its EXIF tag says"
            raise DataError(
                f"{self._where(id)} has shape {mask.shape}, its image ({height}, {width}); {hint}"
            )
        allowed = np.zeros(256, bool)
        allowed[[*range(self.space.with_background), self.space.ignore]] = True
        inside = mask.astype(np.uint8)
        fine = allowed[inside] if mask.dtype == np.uint8 else allowed[inside] & (inside == mask)
        if not fine.all():
            known = f"{self.space.name} knows 0 to {len(self.space)} and {self.space.ignore} (ignore)"
            value = mask[~fine][0]
            raise DataError(f"{self._where(id)} holds the value {value}, {known}; rewrite the mask")
        return inside

    def select(self, ids: Iterable[str], *, classes: Iterable[str] = ()) -> "MaskSet":
        """Return some of the masks; pixels of classes left out become the ignore value.

        Parameters
        ----------
        ids
            Ids to keep, in this order.
        classes
            Classes to keep, in this order; empty keeps all.
        """
        return _MaskSelection(self, tuple(ids), tuple(classes))


class _MaskSelection(MaskSet):
    """Some masks of another set, perhaps with fewer classes."""

    def __init__(self, parent: MaskSet, ids: tuple[str, ...], classes: tuple[str, ...]) -> None:
        known = set(parent.ids)
        for id in ids:
            if id not in known:
                raise DataError(f"{parent.source} has no mask {id!r}{nearest(id, parent.ids[:5000])}")
        space = parent.space.subset(classes) if classes else parent.space
        table = np.full(256, space.ignore, np.uint8)
        table[0] = 0
        for new, name in enumerate(space.classes):
            table[parent.space.index(name) + 1] = new + 1
        self._parent, self._table = parent, table
        super().__init__(space, ids, source=parent.source)

    def _mask(self, id: str) -> np.ndarray:
        return self._table[self._parent.mask(id)]

    def _image_size(self, id: str) -> tuple[int, int]:
        return self._parent._image_size(id)


def open_images(name: str, split: str, *, root: Path | None = None, **options: Any) -> ImageSet:
    """Open images and image-level labels of a data set.

    Parameters
    ----------
    name
        ``hoofed``, ``voc12`` or ``coco14``.
    split
        ``train``, ``train_aug`` or ``val``; hoofed and COCO have no larger training set, so there
        ``train_aug`` is ``train``.
    root
        Folder of the data sets, default ``paths.data_dir()``; hoofed needs none.
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
    return _open("Images", name, split, root, options)


def open_masks(name: str, split: str, *, root: Path | None = None, **options: Any) -> MaskSet:
    """Open the true masks of a data set, for metrics only.

    Parameters and errors are those of `open_images`; inside `labels_only` it raises `MaskAccessError`.
    """
    return _open("Masks", name, split, root, options)


def _open(kind: str, name: str, split: str, root: Path | None, options: dict[str, Any]) -> Any:
    """Return a reader of ``Images`` or ``Masks``, or raise an error that names the nearest valid word."""
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
    if isinstance(space := options.get("space"), str):
        if space not in SPACES:
            raise SettingsError(f"no label space {space!r}{nearest(space, SPACES)}")
        options = {**options, "space": SPACES[space]}
    reader = pkgutil.resolve_name(f"recamlib.data.{_READERS[name]}{kind}")
    if name == "hoofed":
        return reader(split, **options)
    return reader(paths.data_dir() if root is None else Path(root), split, **options)
