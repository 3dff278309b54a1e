"""Losses against their formulas, autograd and the published code's numbers."""

import itertools
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from recamlib.method import losses
from recamlib.method.losses import bce_loss, multiscale_loss, reactivation_loss, sce_loss, segmentation_loss


def random_batch(images: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = 6 * torch.randn(images, classes, generator=g, dtype=torch.float64)
    labels = (torch.rand(images, classes, generator=g) < 0.4).to(torch.uint8)
    labels[0] = 0  # an image without a class
    labels[1] = torch.eye(classes)[1]  # an image with one
    return logits, labels


@pytest.mark.parametrize(("images", "classes"), [(4, 2), (7, 5), (3, 80)])
@pytest.mark.parametrize("name", ["bce", "sce"])
def test_autograd_agrees_with_eq12(name, images, classes):
    loss, gradient = (getattr(losses, f"{name}_{what}") for what in ("loss", "gradient"))
    logits, labels = random_batch(images, classes, seed=classes)
    logits.requires_grad_()
    loss(logits, labels).backward()
    torch.testing.assert_close(logits.grad * images, gradient(logits.detach(), labels), rtol=0, atol=1e-6)


def test_bce_is_multilabel_soft_margin_and_sce_cross_entropy_that_skips_empty_images():
    logits, labels = random_batch(5, 20, seed=0)
    expected = nn.functional.multilabel_soft_margin_loss(logits, labels.double())
    torch.testing.assert_close(bce_loss(logits, labels), expected)
    logits, _ = random_batch(6, 4, seed=1)
    target = torch.tensor([0, 1, 2, 3, 0, 1])
    labels = nn.functional.one_hot(target, 4)
    torch.testing.assert_close(sce_loss(logits, labels), nn.functional.cross_entropy(logits, target))
    empty = torch.cat([labels, torch.zeros_like(labels)])
    torch.testing.assert_close(sce_loss(logits.repeat(2, 1), empty), sce_loss(logits, labels) / 2)


def test_sce_single_takes_each_image_by_its_own_loss():
    logits, labels = random_batch(9, 5, seed=2)
    parts = [(sce_loss if y.sum() == 1 else bce_loss)(z[None], y[None]) for z, y in zip(logits, labels)]
    torch.testing.assert_close(losses.sce_single_loss(logits, labels), torch.stack(parts).mean())


# Section 4.2 with two classes, the positive p first: magnitudes of the terms (1) BCE on p, (2) BCE on q,
# (3) SCE on p, (4) SCE on q. Eq. (12) divides BCE by K = 2, so its terms end at 0.5 where SCE's end at 1.
@pytest.mark.parametrize("case, pair, expected", [
    ("a", (-10.0, 10.0), (0.5, 0.5, 1.0, 1.0)), ("b", (10.0, -10.0), (0.0, 0.0, 0.0, 0.0)),
    ("c1", (10.0, 10.0), (0.0, 0.5, 0.5, 0.5)), ("c2", (-10.0, -10.0), (0.5, 0.0, 0.5, 0.5)),
])  # fmt: skip
def test_cases_of_section_4_2(case, pair, expected):
    logits, labels = torch.tensor([pair], dtype=torch.float64), torch.tensor([[1, 0]])
    terms = torch.cat([losses.bce_gradient(logits, labels), losses.sce_gradient(logits, labels)], 1)[0]
    assert terms.abs().tolist() == pytest.approx(expected, abs=5e-5)
    assert (terms[[0, 2]] <= 0).all() and (terms[[1, 3]] >= 0).all()  # p is pulled up, q pushed down
    if case == "a":
        assert (terms[:2].abs() < 0.5).all()  # "less than 0.5" in the paper's words


def test_reactivation_loss_weighs_images_equally_and_counts_empty_ones_and_all_losses_stay_finite():
    torch.manual_seed(0)
    features, classifier = torch.randn(3, 4, 6), nn.Linear(6, 4, bias=False)
    labels = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
    expected = 0.0
    for f, y in zip(features, labels, strict=True):
        terms = [-classifier(f[k]).log_softmax(0)[k].item() for k in range(4) if y[k]]
        expected += sum(terms) / max(len(terms), 1) / 3
    ours = reactivation_loss(features, labels, classifier=classifier).item()
    assert ours == pytest.approx(expected, rel=1e-6)
    for loss in (bce_loss, sce_loss, losses.sce_single_loss):  # extreme logits stay finite
        logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
        value = loss(logits, torch.tensor([[0, 1, 0]]))
        value.backward()
        assert math.isfinite(value.item()) and logits.grad.isfinite().all()


def literal_loss(logits, masks):
    """Eq. (3) pixel by pixel, for logits and masks of one size."""
    total, known = 0.0, 0
    for image, i, j in itertools.product(*map(range, masks.shape)):
        if (k := masks[image, i, j].item()) != 255:
            z = logits[image, :, i, j].tolist()
            total -= math.log(math.exp(z[k]) / sum(map(math.exp, z)))
            known += 1
    return total / known


def draw(h, w, *, classes=4, dtype=torch.uint8):
    torch.manual_seed(0)
    masks = torch.randint(0, classes, (2, h, w))
    masks[torch.rand(2, h, w) < 0.3] = 255
    return torch.randn(2, classes, h, w), masks.to(dtype)


@pytest.mark.parametrize("at", ["logits", "masks"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_pixels_are_averaged_over_the_known_ones_of_the_batch(at, dtype):
    logits, masks = draw(5, 7, dtype=dtype)
    expected = literal_loss(logits, masks)
    assert segmentation_loss(logits, masks, at=at).item() == pytest.approx(expected, rel=1e-5)
    masks[0] = 255
    masks[0, 0, 0] = 1  # one pixel of the first image must not weigh as much as all of the second
    expected = literal_loss(logits, masks)
    assert segmentation_loss(logits, masks, at=at).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [(41, 41), (31, 30), (21, 20), (10, 50)])
def test_masks_shrink_as_pillow_does_it(size):
    _, masks = draw(45, 33)
    small = [np.asarray(Image.fromarray(m.numpy()).resize(size[::-1], Image.NEAREST)) for m in masks]
    logits = torch.randn(2, 4, *size)
    expected = segmentation_loss(logits, torch.from_numpy(np.stack(small)))
    torch.testing.assert_close(segmentation_loss(logits, masks, at="logits"), expected)


def test_logits_grow_bilinearly():
    logits = torch.tensor([[[[0.0, 4.0]], [[0.0, 0.0]]]])
    masks = torch.zeros(1, 1, 4, dtype=torch.uint8)  # cell centres at 0.5 and 2.5 of 4 pixels
    expected = torch.log1p(torch.exp(-torch.tensor([0.0, 1.0, 3.0, 4.0]))).mean()
    torch.testing.assert_close(segmentation_loss(logits, masks, at="masks"), expected)


@pytest.mark.parametrize("at", ["logits", "masks"])
def test_unknown_pixels_have_no_gradient_and_losses_of_several_sizes_are_summed(at):
    logits, masks = draw(6, 6)
    outputs = [logits, torch.randn(2, 4, 9, 9), torch.randn(2, 4, 3, 3), logits + 1]
    expected = sum(segmentation_loss(x, masks, at=at) for x in outputs)
    torch.testing.assert_close(multiscale_loss(outputs, masks, at=at), expected)
    logits = (1e4 * logits).requires_grad_()
    segmentation_loss(logits, masks, at=at).backward()
    unknown = (masks == 255)[:, None].expand_as(logits)
    assert logits.grad.isfinite().all()
    assert (logits.grad[unknown] == 0).all() and (logits.grad[~unknown] != 0).any()
    logits = torch.randn(2, 3, 4, 5, requires_grad=True)
    loss = segmentation_loss(logits, torch.full((2, 16, 20), 255, dtype=torch.uint8), at=at)
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


