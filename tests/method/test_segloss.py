"""The pixel loss against literal loops, unknown pixels, grids of different size, and the sum over sizes."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from recamlib.errors import DataError, SettingsError
from recamlib.method import losses
from recamlib.method.losses import multiscale_loss, segmentation_loss


def literal_loss(logits, masks, ignore=255):
    """Eq. (3) pixel by pixel, for logits and masks of one size."""
    total, known = 0.0, 0
    for image, mask in zip(logits.tolist(), masks.tolist()):
        for i, row in enumerate(mask):
            for j, k in enumerate(row):
                if k == ignore:
                    continue
                z = [plane[i][j] for plane in image]
                total -= math.log(math.exp(z[k]) / sum(math.exp(v) for v in z))
                known += 1
    return total / known


def draw(h, w, *, batch=2, classes=4, dtype=torch.uint8):
    torch.manual_seed(0)
    masks = torch.randint(0, classes, (batch, h, w))
    masks[torch.rand(batch, h, w) < 0.3] = 255
    return torch.randn(batch, classes, h, w), masks.to(dtype)


@pytest.mark.parametrize("at", ["logits", "masks"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_equals_the_loop_over_pixels(at, dtype):
    logits, masks = draw(5, 7, dtype=dtype)
    assert segmentation_loss(logits, masks, at=at).item() == pytest.approx(
        literal_loss(logits, masks), rel=1e-5
    )


def test_mean_is_over_the_known_pixels_of_the_batch_not_of_an_image():
    logits, masks = draw(4, 4)
    masks[0] = 255
    masks[0, 0, 0] = 1  # one pixel of the first image must not weigh as much as all of the second
    assert segmentation_loss(logits, masks).item() == pytest.approx(literal_loss(logits, masks), rel=1e-5)


@pytest.mark.parametrize("size", [(41, 41), (31, 30), (21, 20), (10, 50)])
def test_labels_shrink_as_pillow_does_it(size):
    logits, masks = draw(45, 33)
    small = [np.asarray(Image.fromarray(m.numpy()).resize(size[::-1], Image.NEAREST)) for m in masks]
    logits = torch.randn(2, 4, *size)
    expected = segmentation_loss(logits, torch.from_numpy(np.stack(small)))
    torch.testing.assert_close(segmentation_loss(logits, masks, at="logits"), expected)


def test_logits_grow_bilinearly():
    logits = torch.tensor([[[[0.0, 4.0]], [[0.0, 0.0]]]])
    masks = torch.zeros(1, 1, 4, dtype=torch.uint8)  # cell centres at 0.5 and 2.5 of 4 pixels
    by_hand = torch.tensor([0.0, 1.0, 3.0, 4.0])
    expected = torch.log1p(torch.exp(-by_hand)).mean()
    torch.testing.assert_close(segmentation_loss(logits, masks, at="masks"), expected)


@pytest.mark.parametrize("at", ["logits", "masks"])
def test_without_a_known_pixel_nothing_is_learnt(at):
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((2, 16, 20), 255, dtype=torch.uint8), at=at)
    loss.backward()
    assert loss.item() == 0
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=0)


def test_gradient_is_finite_and_leaves_unknown_pixels_alone():
    logits, masks = draw(6, 6)
    logits = (1e4 * logits).requires_grad_()
    segmentation_loss(logits, masks).backward()
    assert logits.grad.isfinite().all()
    unknown = (masks == 255)[:, None].expand_as(logits)
    assert (logits.grad[unknown] == 0).all() and (logits.grad[~unknown] != 0).any()


def test_gradient_against_finite_differences():
    logits, _ = draw(3, 2, batch=1, classes=3)
    wide = torch.randint(0, 3, (1, 6, 5))
    exact = logits.double().requires_grad_()
    # the loss itself works in single precision, so steps are wide and the bounds loose
    for at in ("logits", "masks"):
        assert torch.autograd.gradcheck(
            lambda z, at=at: segmentation_loss(z, wide, at=at), (exact,), eps=1e-2, atol=1e-3, rtol=1e-2
        )


def test_half_precision_logits_are_compared_in_single():
    logits, masks = draw(5, 7)
    loss = segmentation_loss(logits.bfloat16(), masks)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, segmentation_loss(logits.bfloat16().float(), masks), rtol=0, atol=0)


def test_another_value_can_mean_unknown():
    logits, masks = draw(5, 7)
    other = torch.where(masks == 255, 0, masks.long() + 1)
    shifted = torch.cat([torch.zeros_like(logits[:, :1]) - 1e9, logits], 1)
    torch.testing.assert_close(segmentation_loss(shifted, other, ignore=0), segmentation_loss(logits, masks))


def test_sum_over_sizes():
    logits, masks = draw(12, 12)
    outputs = [logits, torch.randn(2, 4, 9, 9), torch.randn(2, 4, 6, 6), logits + 1]
    for at in ("logits", "masks"):
        expected = sum(segmentation_loss(x, masks, at=at) for x in outputs)
        torch.testing.assert_close(multiscale_loss(outputs, masks, at=at), expected)
    torch.testing.assert_close(multiscale_loss([logits], masks), segmentation_loss(logits, masks))
    with pytest.raises(DataError, match="no list of logits"):
        multiscale_loss([], masks)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"masks": torch.full((2, 4, 4), 3)}, DataError, r"holds the value 3, expected 0 to 2 or 255"),
        ({"masks": torch.full((2, 4, 4), -1)}, DataError, r"holds the value -1"),
        ({"masks": torch.zeros(2, 4, 4)}, DataError, "dtype torch.float32, expected class numbers"),
        ({"masks": torch.zeros(2, 1, 4, 4).long()}, DataError, r"masks \(2, 1, 4, 4\)"),
        ({"masks": torch.zeros(1, 4, 4).long()}, DataError, r"shape \(2, 3, 4, 4\) and masks \(1, 4, 4\)"),
        ({"at": "logit"}, SettingsError, "did you mean 'logits'"),
    ],
)
def test_mistakes_are_named(change, error, message):
    given = {"logits": torch.zeros(2, 3, 4, 4), "masks": torch.zeros(2, 4, 4).long(), "at": "logits"} | change
    with pytest.raises(error, match=message):
        segmentation_loss(given["logits"], given["masks"], at=given["at"])


def test_it_is_found_among_the_losses():
    assert losses.segmentation_loss is segmentation_loss and losses.multiscale_loss is multiscale_loss
