"""Training views: sizes, values, padding, and draws that depend on nothing but seed, epoch and id."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from recamlib.data import views as data
from recamlib.data.access import open_images
from recamlib.data.views import LabelledViews, PairedView, PairedViews, TrainView
from recamlib.errors import DataError, SettingsError

IMAGES = open_images("hoofed", "train", count=6, size=48)
PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # 255 is 1


def noise(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, height, width)).astype(np.uint8))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("scale", [0.5, 1.5, 2.0, 0.37])
def test_rescale_is_pillows_bicubic(scale):
    image = noise(61, 47)
    ours = data.rescale(image, scale).permute(1, 2, 0).numpy().astype(int)
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    theirs = np.asarray(picture.resize((ours.shape[1], ours.shape[0]), Image.Resampling.BICUBIC)).astype(int)
    assert ours.shape[:2] == (round(61 * scale), round(47 * scale)) and np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (1, 60), (60, 1), (1, 1)])
def test_view_of_any_shape(shape):
    view = TrainView(crop=32, long_side=(20, 60))
    for seed in range(20):
        out = view(noise(*shape), seeded(seed))
        assert out.shape == (3, 32, 32) and out.dtype == torch.float32 and out.isfinite().all()


def test_padding_is_zero_and_the_image_lands_anywhere():
    view = TrainView(crop=32, long_side=(8, 8), flip=False, **PLAIN)
    corners = set()
    for seed in range(30):
        out = view(torch.full((3, 4, 8), 255, dtype=torch.uint8), seeded(seed))
        assert set(out.unique().tolist()) == {0.0, 1.0} and out[0].count_nonzero() == 4 * 8
        corners.add(tuple(out[0].nonzero()[0].tolist()))
    assert len(corners) > 20


def test_a_crop_shows_pixels_of_the_image_and_reaches_both_ends():
    image = torch.arange(200, dtype=torch.uint8)[None, None, :].expand(3, 40, 200).contiguous()
    view = TrainView(crop=40, long_side=(200, 200), flip=False, **PLAIN)
    rows = [(255 * view(image, seeded(seed))[0, 0]).round().int() for seed in range(300)]
    assert all((row.diff() == 1).all() for row in rows)
    assert (min(int(row[0]) for row in rows), max(int(row[0]) for row in rows)) == (0, 160)


def test_long_side_is_drawn_from_both_ends_and_half_are_mirrored():
    view = TrainView(crop=64, long_side=(20, 22), **PLAIN)
    image = torch.tensor([255, 128], dtype=torch.uint8).repeat_interleave(5).expand(3, 10, 10)
    sides, mirrored = set(), 0
    for seed in range(200):
        out = view(image, seeded(seed))[0]
        rows, cols = out.nonzero(as_tuple=True)
        sides.add(int(cols.max() - cols.min()) + 1)
        mirrored += bool(out[rows[0], cols.min()] < 0.7)
    assert sides == {20, 21, 22} and 70 < mirrored < 130


def batches(**options):
    views = LabelledViews(IMAGES, TrainView(crop=24, long_side=(24, 48)), seed=3, epoch=2)
    found = {}
    for view, labels, index in DataLoader(views, batch_size=2, shuffle=True, generator=seeded(), **options):
        for one, label, i in zip(view, labels, index.tolist()):
            assert np.array_equal(label, IMAGES.labels(IMAGES.ids[i]))
            found[i] = one
    return torch.stack([found[i] for i in range(len(IMAGES))])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than cores
def test_draws_depend_on_seed_epoch_and_id_alone():
    here, part = batches(), IMAGES.select(limit=3)
    assert torch.equal(here, batches(num_workers=2))
    views = LabelledViews(part, TrainView(crop=24, long_side=(24, 48)), seed=3, epoch=2)
    for i, id in enumerate(part.ids):
        assert torch.equal(views[i][0], here[IMAGES.ids.index(id)])
    first, other = views[0][0], LabelledViews(part, views.view, seed=1, epoch=2)
    assert not torch.equal(first, other[0][0])
    views.set_epoch(1)
    assert not torch.equal(first, views[0][0])


def painted(height=37, width=53):
    """A label map and an image whose pixels are the labels."""
    labels = np.arange(height * width, dtype=np.int64).reshape(height, width) // 97 % 7
    labels = np.kron(labels[::8, ::8], np.ones((8, 8), dtype=np.int64))[:height, :width].astype(np.uint8)
    return torch.from_numpy(np.repeat(labels[None], 3, 0)), labels


@pytest.mark.parametrize("seed", range(6))
def test_image_and_labels_move_together(seed):
    out, coarse = PairedView(crop=64, scale=(1.0, 1.0), stride=4)(*painted(), seeded(seed))
    assert out.shape == (3, 64, 64) and coarse.shape == (16, 16)
    inside = coarse != 255
    assert 0 < inside.sum() < inside.numel()  # the image is smaller than the crop
    shown = 255 * (out[0, 2::4, 2::4] * data.IMAGENET_STD[0] + data.IMAGENET_MEAN[0])
    assert torch.equal(shown[inside].round().byte(), coarse[inside])
    assert (out[:, 2::4, 2::4][:, ~inside] == 0).all()


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5])
def test_a_scaled_view_keeps_the_share_of_every_label(scale):
    labels = np.repeat(np.array([[0, 3]], np.uint8), 100, 1).repeat(200, 0)
    image = torch.from_numpy(labels).expand(3, -1, -1)
    _, out = PairedView(crop=400, scale=(scale, scale), stride=1)(image, labels, seeded())
    side = round(200 * scale)
    assert (out == 3).sum() == pytest.approx(side * side / 2, rel=0.02) and (out != 255).sum() == side * side


@pytest.mark.parametrize(("size", "short"), [((100, 133), 64), ((60, 600), 25.6)])
def test_a_view_by_the_short_side_is_bounded_by_the_long_one(size, short):
    image, labels = torch.zeros(3, *size, dtype=torch.uint8), np.zeros(size, np.uint8)
    _, out = PairedView(crop=400, scale=(1.0, 1.0), short_side=64, stride=1)(image, labels, seeded())
    assert (out != 255).any(1).sum() == round(short)


def test_paired_views_depend_on_seed_epoch_and_image_alone():
    made = {id: np.full(IMAGES.size(id), 1 + number, np.uint8) for number, id in enumerate(IMAGES.ids)}
    views = PairedViews(IMAGES, made.__getitem__, PairedView(crop=64), seed=3)
    first, again = [views[i] for i in range(6)], [views[i] for i in reversed(range(6))][::-1]
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again))
    views.set_epoch(1)
    assert any(not torch.equal(a[0], views[i][0]) for i, a in enumerate(first))
    assert [int(labels[labels != 255].max()) for _, labels, _ in first] == [1, 2, 3, 4, 5, 6]


def test_colours_are_changed_and_the_same_seed_changes_them_alike():
    image, labels = painted()
    image = image * 20 + torch.tensor([60, 20, 0], dtype=torch.uint8)[:, None, None]
    views = [PairedView(crop=64, jitter=jitter) for jitter in (False, True, True)]
    plain, one, other = (view(image, labels, seeded())[0] for view in views)
    assert torch.equal(one, other) and not torch.equal(plain, one)


@pytest.mark.parametrize("call, message", [
    (lambda: PairedView(crop=64)(noise(37, 53), np.zeros((37, 52))), r"image .3, 37, 53., label map .37"),
    (lambda: PairedView(crop=63), "crop must be a multiple of the stride 4, got 63"),
    (lambda: PairedView(crop=64, scale=(1.5, 0.5)), "scale must be 0 < low <= high"),
    (lambda: TrainView(crop=0, long_side=(1, 2)), "crop 0 and long_side"),
    (lambda: TrainView(crop=8, long_side=(30, 20)), "crop 8 and long_side .30, 20.: use 1 or more"),
])  # fmt: skip
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises((DataError, SettingsError), match=message):
        call()
