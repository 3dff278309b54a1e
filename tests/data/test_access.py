"""Access to images and masks: what image sets can do, and that masks stay shut while training."""

import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from devkits import both
from torch.utils.data import DataLoader

from recamlib.data.access import ImageSet, labels_only, masks_allowed, open_masks
from recamlib.data.labels import HOOFED
from recamlib.errors import DataError, MaskAccessError, SettingsError

IMAGES, MASKS = both("hoofed", "train", count=40, size=48)


class MaskReader(list):
    """What a cheating training data set would look like: a list of mask sets."""

    def __getitem__(self, index):
        masks = super().__getitem__(index)
        return torch.from_numpy(masks.mask(masks.ids[0]).astype(np.int64))


def test_guard_shuts_every_way_in():
    for reader in (ImageSet, type(IMAGES), type(IMAGES.select(limit=3))):
        assert not [name for name in dir(reader) if "mask" in name.lower()]
    part = MASKS.select(MASKS.ids[:2], classes=("cow",))
    with labels_only():
        assert not masks_allowed()
        for use in (
            lambda: MASKS.mask(MASKS.ids[0]), lambda: part.mask(part.ids[0]), lambda: pickle.dumps(MASKS),
            lambda: MASKS.select(MASKS.ids[:1]), lambda: open_masks("hoofed", "val"),
        ):  # fmt: skip
            with pytest.raises(MaskAccessError, match="masks are for metrics only"):
                use()
        IMAGES.image(IMAGES.ids[0])  # images stay open
    assert masks_allowed()
    MASKS.mask(MASKS.ids[0])


def test_guard_nests_and_ends_after_an_error_and_holds_in_other_processes():
    with labels_only():
        with labels_only():
            pass
        assert not masks_allowed()
    with pytest.raises(RuntimeError), labels_only():
        raise RuntimeError
    assert masks_allowed()
    loader = DataLoader(MaskReader([MASKS]), num_workers=1, multiprocessing_context="fork")
    assert next(iter(loader)).shape[1:] == MASKS.mask(MASKS.ids[0]).shape
    with labels_only(), pytest.raises(MaskAccessError, match="masks are for metrics only"):
        next(iter(loader))
    with labels_only(), multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(masks_allowed) is False


@pytest.mark.parametrize("mask, message", [
    (np.zeros((4, 4), np.uint8), r"shape \(4, 4\), its image \(4, 5\)"),
    (np.zeros((5, 4), np.uint8), "sides are swapped.*EXIF"),
    *((np.full((4, 5), value), f"value {value}, hoofed knows 0 to 5 and 255") for value in (6, 254, -1, 300)),
])  # fmt: skip
def test_mask_of_another_size_or_value_names_the_fix(monkeypatch, mask, message):
    monkeypatch.setattr(MASKS, "_image_size", lambda id: (4, 5))
    monkeypatch.setattr(MASKS, "_mask", lambda id: mask)
    with pytest.raises(DataError, match=message):
        MASKS.mask(MASKS.ids[0])
    array = np.full((4, 5), 255, np.uint8)
    monkeypatch.setattr(MASKS, "_mask", lambda id: array)
    MASKS.mask(MASKS.ids[0])[:] = 0
    assert (array == 255).all()  # a copy


def test_select_narrows_labels_and_masks_alike_and_limit_is_seeded_and_keeps_order():
    part = IMAGES.select(classes=("zebra", "cow"))
    assert part.space.classes == ("zebra", "cow") and part.label_matrix().any(axis=1).all()
    narrow = MASKS.select(part.ids, classes=("zebra", "cow"))
    for id in part.ids:
        full, small = MASKS.mask(id), narrow.mask(id)
        assert np.array_equal(small == 1, full == HOOFED.index("zebra") + 1)
        assert np.array_equal(small == 0, full == 0)
        assert np.array_equal(part.labels(id), [(small == 1).any(), (small == 2).any()])
    some = IMAGES.select(limit=7, seed=1)
    assert len(some) == 7
    assert some.ids == IMAGES.select(limit=7, seed=1).ids != IMAGES.select(limit=7, seed=2).ids
    assert list(some.ids) == sorted(some.ids) and IMAGES.select(limit=1000).ids == IMAGES.ids
    part = IMAGES.select(classes=("cow",), single_label=True)  # of all classes, not of the one asked for
    assert {IMAGES.labels(id).sum() for id in part.ids} == {1}


@pytest.mark.parametrize("call, message", [
    (lambda: IMAGES.select(limit=-1), "limit must be 0"),
    (lambda: IMAGES.select(classes=("hors",)), "did you mean 'horse'"),
    (lambda: open_masks("hoofed", "train").select(["hoofed_train_001"]), "did you mean 'hoofed_train"),
    (lambda: open_masks("hofed", "train"), "did you mean 'hoofed'"),
    (lambda: open_masks("hoofed", "trian"), "did you mean 'train'"),
])  # fmt: skip
def test_what_is_not_there_names_the_nearest(call, message):
    with pytest.raises((DataError, SettingsError), match=message):
        call()
