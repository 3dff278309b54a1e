"""Views of an image and its pseudo mask: both move together, and draws depend on nothing but their keys."""

import numpy as np
import pytest
import torch

import recamlib as rc
from recamlib.data.paired import PairedView, PairedViews
from recamlib.errors import DataError, SettingsError

MEAN, STD = (0.0,) * 3, (1 / 255,) * 3  # normalised values are the pixels themselves


def painted(height=37, width=53):
    """A label map and an image whose pixels are the labels."""
    labels = np.arange(height * width, dtype=np.int64).reshape(height, width) // 97 % 7
    labels = np.kron(labels[::8, ::8], np.ones((8, 8), dtype=np.int64))[:height, :width].astype(np.uint8)
    return torch.from_numpy(np.repeat(labels[None], 3, 0)), labels


@pytest.mark.parametrize("seed", range(6))
def test_image_and_labels_move_together(seed):
    image, labels = painted()
    view = PairedView(crop=64, scale=(1.0, 1.0), stride=4, mean=MEAN, std=STD)
    out, coarse = view(image, labels, torch.Generator().manual_seed(seed))
    assert out.shape == (3, 64, 64)
    assert coarse.shape == (16, 16)
    inside = coarse != 255
    assert 0 < inside.sum() < inside.numel()  # the image is smaller than the crop
    assert torch.equal(out[0, 2::4, 2::4][inside].round().byte(), coarse[inside])
    assert (out[:, 2::4, 2::4][:, ~inside] == 0).all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_a_scaled_view_keeps_the_share_of_every_label(scale):
    labels = np.zeros((200, 200), np.uint8)
    labels[:, 100:] = 3
    image = torch.from_numpy(np.repeat(labels[None], 3, 0))
    view = PairedView(crop=400, scale=(scale, scale), stride=1)
    _, out = view(image, labels, torch.Generator().manual_seed(0))
    side = round(200 * scale)
    assert (out == 3).sum() == pytest.approx(side * side / 2, rel=0.02)
    assert (out != 255).sum() == side * side


def test_views_depend_on_seed_epoch_and_image_alone():
    images = rc.DataSettings(train_count=4, size=64).images("train")
    made = {name: np.full((48, 64), 1 + number, np.uint8) for number, name in enumerate(images.ids)}
    sizes = {name: images.size(name) for name in images.ids}
    made = {name: np.resize(mask, sizes[name]) for name, mask in made.items()}
    views = PairedViews(images, made.__getitem__, PairedView(crop=64), seed=3)
    first = [views[i] for i in range(4)]
    again = [views[i] for i in reversed(range(4))][::-1]
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again))
    views.set_epoch(1)
    assert any(not torch.equal(a[0], views[i][0]) for i, a in enumerate(first))
    assert {int(labels[labels != 255].max()) for _, labels, _ in first} == {1, 2, 3, 4}


def test_colours_change_and_labels_do_not():
    image, labels = painted()
    image = image * 20 + torch.tensor([60, 20, 0], dtype=torch.uint8)[:, None, None]
    plain, other = (PairedView(crop=64, jitter=jitter) for jitter in (False, True))
    changed = 0
    for seed in range(4):
        a, kept = plain(image, labels, torch.Generator().manual_seed(seed))
        b, same = other(image, labels, torch.Generator().manual_seed(seed))
        again, _ = other(image, labels, torch.Generator().manual_seed(seed))
        assert torch.equal(b, again)
        assert kept.shape == same.shape
        changed += not torch.equal(a, b)
    assert changed >= 2


def test_what_does_not_fit_is_refused():
    image, labels = painted()
    with pytest.raises(DataError, match=r"label map of shape \(37, 52\) for an image of \(37, 53\)"):
        PairedView(crop=64)(image, labels[:, 1:])
    with pytest.raises(SettingsError, match="crop must be a multiple of the stride 4, got 63"):
        PairedView(crop=63)
    with pytest.raises(SettingsError, match="scale must be 0 < low <= high"):
        PairedView(crop=64, scale=(1.5, 0.5))
