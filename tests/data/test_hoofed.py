"""The embedded data set: same seed same bytes, exact masks, everything it promises about its scenes."""

import hashlib

import numpy as np
import pytest
from devkits import both

from recamlib.data.access import open_images
from recamlib.data.hoofed import scenes
from recamlib.data.hoofed.scenes import MIN_AREA, OTHERS, OtherImages, scene_size
from recamlib.data.labels import HOOFED
from recamlib.data.voc import write_voc
from recamlib.errors import DataError, SettingsError

# SHA-256 over images and masks of the first eight scenes of each split, seed 0, 96 pixels.
DIGEST = "12cbb669f2068da21d5e3ec4907e1240db18f9386cfe02a8d1b81f9f020d9e18"


def test_same_seed_same_bytes():
    for _ in range(2):
        total = hashlib.sha256()
        for split in ("train", "val"):
            images, masks = both("hoofed", split, count=8, size=96)
            for id in images.ids:
                total.update(images.image(id).numpy().tobytes() + masks.mask(id).tobytes())
        assert total.hexdigest() == DIGEST
        scenes._drawer.cache_clear()  # drawn anew


@pytest.mark.parametrize("size", [48, 50, 96])
def test_labels_are_what_the_mask_shows(size):
    images, masks = both("hoofed", "val", count=60, size=size)
    for id in images.ids:
        mask = masks.mask(id)
        seen = set(np.unique(mask)) - {0}
        assert seen == {k + 1 for k in np.flatnonzero(images.labels(id))}
        assert images.image(id).shape == (3, *mask.shape) == (3, *images.size(id)) == (3, *scene_size(size))
        assert min((mask == value).mean() for value in seen) >= MIN_AREA


def test_scenes_differ_by_seed_split_and_number_but_not_by_count():
    first, more, other, val = (
        open_images("hoofed", split, count=count, size=48, seed=seed)
        for split, count, seed in (("train", 2, 0), ("train", 9, 0), ("train", 2, 1), ("val", 2, 0))
    )
    a, b = first.ids
    first.image(a).zero_()  # a reader's own copy
    assert (first.image(a) == more.image(a)).all()
    pictures = [first.image(a), first.image(b), other.image(a), val.image(val.ids[0])]
    assert len({p.numpy().tobytes() for p in pictures}) == 4


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_single_share_and_balanced_classes(share):
    labels = open_images("hoofed", "train_aug", count=400, size=48, single_share=share).label_matrix()
    assert abs((labels.sum(1) == 1).mean() - share) < 0.08
    assert labels.sum(1).min() >= 1 and labels.sum(1).max() <= 3 and np.ptp(labels.mean(0)) < 0.12


def test_what_there_is_not():
    for options, message in (
        ({"size": 40}, "size 40, .*48 to 2048"), ({"single_share": 1.5}, "single_share 1.5"),
        ({"seed": -1}, "seed -1"), ({"count": 0}, "count 0, .*expected 1 or more"),
    ):  # fmt: skip
        with pytest.raises((SettingsError, DataError), match=message):
            open_images("hoofed", "train", **options)
    images = open_images("hoofed", "train", count=3)
    for id in ("hoofed_val_00000", "hoofed_train_00003", "other"):
        with pytest.raises(DataError, match="hoofed_train_00000 to hoofed_train_00002"):
            images.image(id)


def test_scenes_of_other_classes_show_one_object_each_and_none_of_the_five():
    assert not set(OTHERS.classes) & set(HOOFED.classes) and len(OTHERS) == 15
    images = OtherImages("train", count=120, size=48)
    assert (images.label_matrix().sum(1) == 1).all() and len(set(images.label_matrix().argmax(1))) == 15
    val, hoofed = OtherImages("val", count=1, size=48), open_images("hoofed", "train", count=1, size=48)
    pictures = [s.image(s.ids[0]).numpy().tobytes() for s in (images, val, hoofed)]
    assert len(set(pictures)) == 3


def test_the_reader_gives_back_what_was_written(tmp_path):
    for split, count in (("train", 10), ("val", 4)):
        images, masks = both("hoofed", split, count=count, size=64)
        write_voc(tmp_path, images, masks, split=split)
        back, back_masks = both("voc12", split, root=tmp_path)
        assert back.ids == images.ids == back_masks.ids and back.space.classes == images.space.classes
        assert np.array_equal(back.label_matrix(), images.label_matrix())
        for id in images.ids:
            assert np.array_equal(back_masks.mask(id), masks.mask(id)) and back.size(id) == images.size(id)
            assert (back.image(id).int() - images.image(id).int()).abs().float().mean() < 4  # JPEG
