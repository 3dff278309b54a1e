"""The boundary loss against the published code and its definition; labels two masks agree on."""

import itertools
import math

import numpy as np
import pytest
import torch
from golden import golden

from recamlib.method.boundary import boundary_loss, confident_labels
from recamlib.method.walk import pair_offsets, straight_path

PARTS = ("background", "foreground", "negative")


def test_published_losses_counts_and_gradient():
    z = golden("boundary_loss")
    boundary = z["boundary"].requires_grad_()
    loss = boundary_loss(boundary, z["labels"], radius=int(z["radius"]))
    for part in PARTS:
        assert getattr(loss, f"{part}_pairs") == z[f"pairs_{part}"]
        assert getattr(loss, part).item() == pytest.approx(z[f"loss_{part}"].item(), rel=1e-5)
    assert loss.total.item() == pytest.approx(z["loss_boundary"].item(), rel=1e-5)
    loss.total.backward()
    torch.testing.assert_close(boundary.grad, z["grad_boundary"], rtol=1e-4, atol=1e-6)


def test_the_definition_pair_by_pair():
    g = torch.Generator().manual_seed(0)
    boundary = torch.rand(2, 7, 9, generator=g, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 255])[torch.randint(0, 4, (2, 7, 9), generator=g)]
    nats = {part: [] for part in PARTS}
    for image, y, x, (dy, dx) in itertools.product(range(2), range(4), range(3, 6), pair_offsets(4)):
        one, other = labels[image, y, x], labels[image, y + dy, x + dx]
        if 255 in (one, other):
            continue
        affinity = 1 - max(boundary[image, y + py, x + px].item() for py, px in straight_path(dy, dx))
        part = "negative" if one != other else "foreground" if one else "background"
        nats[part].append(-math.log(1e-5 + (1 - affinity if part == "negative" else affinity)))
    loss = boundary_loss(boundary, labels, radius=4)
    assert boundary_loss(boundary, labels.to(torch.uint8), radius=4) == loss
    for part, terms in nats.items():
        assert len(terms) > 5 and getattr(loss, f"{part}_pairs") == len(terms)
        assert getattr(loss, part).item() == pytest.approx(sum(terms) / (len(terms) + 1e-5), rel=1e-9)
    expected = (loss.background / 2 + loss.foreground / 2 + loss.negative) / 2
    assert loss.total.item() == pytest.approx(expected.item())


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_certain_boundaries_and_unknown_labels_are_finite(value):
    labels = torch.zeros(1, 12, 20, dtype=torch.int64)
    labels[..., 10:] = 1
    boundary = torch.full((1, 12, 20), value, requires_grad=True)
    loss = boundary_loss(boundary, labels)
    loss.total.backward()
    assert boundary.grad.isfinite().all()
    missed, met = (loss.background, loss.negative) if value else (loss.negative, loss.background)
    assert missed.item() == pytest.approx(-math.log(1e-5), rel=1e-2) and abs(met.item()) < 1e-4
    boundary.grad = None
    loss = boundary_loss(boundary, torch.full_like(labels, 255))
    loss.total.backward()
    assert loss.total.item() == 0 and loss[4:] == (0, 0, 0) and (boundary.grad == 0).all()


def test_confident_labels_for_every_pair_of_values():
    strict, lenient = np.divmod(np.arange(9, dtype=np.uint8).reshape(1, 9), 3)
    labels = confident_labels(strict, lenient)
    assert labels.dtype == np.uint8 and labels.tolist() == [[0, 255, 255, 1, 1, 1, 2, 2, 2]]
    np.testing.assert_array_equal(confident_labels(strict.astype(np.int64), lenient), labels)
    assert confident_labels(strict[:, :0], lenient[:, :0]).shape == (1, 0)
