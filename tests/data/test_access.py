"""Access to images and masks: what image sets can do, and that masks stay shut while training."""

import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from recamlib.data.access import ImageSet, MaskSet, labels_only, masks_allowed, open_images, open_masks
from recamlib.data.labels import HOOFED
from recamlib.errors import DataError, MaskAccessError, SettingsError


@pytest.fixture(scope="module")
def images():
    return open_images("hoofed", "train", count=40, size=48)


@pytest.fixture(scope="module")
def masks():
    return open_masks("hoofed", "train", count=40, size=48)


class OneMask(MaskSet):
    def __init__(self, mask, size):
        super().__init__(HOOFED, ["one"])
        self._array, self._size = mask, size

    def _mask(self, id):
        return self._array

    def _image_size(self, id):
        return self._size


class MaskReader(list):
    """What a cheating training data set would look like: a list of mask sets."""

    def __getitem__(self, index):
        masks = super().__getitem__(index)
        return torch.from_numpy(masks.mask(masks.ids[0]).astype(np.int64))


def test_image_sets_have_no_way_to_a_mask(images):
    for reader in (ImageSet, type(images), type(images.select(limit=3))):
        assert not [name for name in dir(reader) if "mask" in name.lower()]


def test_guard_shuts_every_way_in(images, masks):
    part = masks.select(masks.ids[:2], classes=("cow",))
    with labels_only():
        assert not masks_allowed()
        for use in (
            lambda: masks.mask(masks.ids[0]),
            lambda: part.mask(part.ids[0]),
            lambda: masks.select(masks.ids[:1]),
            lambda: open_masks("hoofed", "val"),
            lambda: pickle.dumps(masks),
        ):
            with pytest.raises(MaskAccessError, match="masks are for metrics only"):
                use()
        images.image(images.ids[0])  # images stay open
    assert masks_allowed()
    masks.mask(masks.ids[0])


def test_guard_nests_and_ends_after_an_error(masks):
    with labels_only():
        with labels_only():
            pass
        assert not masks_allowed()
    with pytest.raises(RuntimeError), labels_only():
        raise RuntimeError
    assert masks_allowed()


def test_guard_holds_in_forked_loader_workers(masks):
    loader = DataLoader(MaskReader([masks]), num_workers=1, multiprocessing_context="fork")
    assert next(iter(loader)).shape[1:] == masks.mask(masks.ids[0]).shape
    with labels_only(), pytest.raises(MaskAccessError, match="masks are for metrics only"):
        next(iter(loader))


def test_guard_holds_in_spawned_processes():
    with labels_only(), multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(masks_allowed) is False


def test_mask_of_another_size_or_value_names_the_fix():
    with pytest.raises(DataError, match=r"shape \(4, 4\), its image \(4, 5\)"):
        OneMask(np.zeros((4, 4), np.uint8), (4, 5)).mask("one")
    with pytest.raises(DataError, match="sides are swapped.*EXIF"):
        OneMask(np.zeros((5, 4), np.uint8), (4, 5)).mask("one")
    for value in (6, 254, -1, 300):
        mask = np.zeros((4, 5), np.int64)
        mask[2, 3] = value
        with pytest.raises(DataError, match=f"value {value}, hoofed knows 0 to 5 and 255"):
            OneMask(mask, (4, 5)).mask("one")
    array = np.full((4, 5), 255, np.uint8)
    OneMask(array, (4, 5)).mask("one")[:] = 0
    assert (array == 255).all()  # a copy


def test_select_narrows_labels_and_masks_alike(images, masks):
    part = images.select(classes=("zebra", "cow"))
    assert part.space.classes == ("zebra", "cow") and part.label_matrix().any(axis=1).all()
    narrow = masks.select(part.ids, classes=("zebra", "cow"))
    for id in part.ids:
        full, small = masks.mask(id), narrow.mask(id)
        assert np.array_equal(small == 1, full == HOOFED.index("zebra") + 1)
        assert np.array_equal(small == 0, full == 0)
        assert np.array_equal(part.labels(id), [(small == 1).any(), (small == 2).any()])


def test_limit_is_seeded_and_keeps_order(images):
    some = images.select(limit=7, seed=1)
    assert len(some) == 7
    assert some.ids == images.select(limit=7, seed=1).ids != images.select(limit=7, seed=2).ids
    assert list(some.ids) == sorted(some.ids) and images.select(limit=1000).ids == images.ids
    part = images.select(classes=("cow",), single_label=True)  # of all classes, not of the one asked for
    assert {images.labels(id).sum() for id in part.ids} == {1}


@pytest.mark.parametrize("call, message", [
    (lambda images: images.select(limit=-1), "limit must be 0"),
    (lambda images: images.select(classes=("hors",)), "did you mean 'horse'"),
    (lambda images: open_masks("hoofed", "train").select(["hoofed_train_001"]), "did you mean 'hoofed_train"),
    (lambda images: open_masks("hofed", "train"), "did you mean 'hoofed'"),
    (lambda images: open_masks("hoofed", "trian"), "did you mean 'train'"),
    (lambda images: open_masks("hoofed", "train", singleshare=0.1), "did you mean 'single_share'"),
    (lambda images: open_masks("coco14", "train", seed=1), "option of coco14 'seed'"),
])  # fmt: skip
def test_what_is_not_there_names_the_nearest(images, call, message):
    with pytest.raises((DataError, SettingsError), match=message):
        call(images)
