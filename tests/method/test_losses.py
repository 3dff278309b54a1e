"""Losses against their formulas, autograd and the published code's numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from recamlib.errors import RecamError
from recamlib.method.losses import (
    bce_gradient,
    bce_loss,
    reactivation_loss,
    sce_gradient,
    sce_loss,
    sce_single_loss,
)

BASELINES = Path(__file__).parents[1] / "baselines"


def random_batch(images: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    logits = 6 * torch.randn(images, classes, generator=g, dtype=torch.float64)
    labels = (torch.rand(images, classes, generator=g) < 0.4).to(torch.uint8)
    labels[0] = 0  # an image without a class
    labels[1] = torch.eye(classes)[1]  # an image with one
    return logits, labels


@pytest.mark.parametrize(("images", "classes"), [(4, 2), (7, 5), (3, 80)])
@pytest.mark.parametrize(
    ("loss", "gradient"), [(bce_loss, bce_gradient), (sce_loss, sce_gradient)], ids=["bce", "sce"]
)
def test_autograd_agrees_with_eq12(loss, gradient, images, classes):
    logits, labels = random_batch(images, classes, seed=classes)
    logits.requires_grad_()
    loss(logits, labels).backward()
    torch.testing.assert_close(logits.grad * images, gradient(logits.detach(), labels), rtol=0, atol=1e-6)


def test_bce_is_the_multilabel_soft_margin_loss():
    logits, labels = random_batch(5, 20, seed=0)
    expected = nn.functional.multilabel_soft_margin_loss(logits, labels.double())
    torch.testing.assert_close(bce_loss(logits, labels), expected)


def test_sce_is_cross_entropy_on_single_labels_and_skips_empty_images():
    logits, _ = random_batch(6, 4, seed=1)
    target = torch.tensor([0, 1, 2, 3, 0, 1])
    labels = nn.functional.one_hot(target, 4)
    torch.testing.assert_close(sce_loss(logits, labels), nn.functional.cross_entropy(logits, target))
    empty = torch.cat([labels, torch.zeros_like(labels)])
    torch.testing.assert_close(sce_loss(logits.repeat(2, 1), empty), sce_loss(logits, labels) / 2)


def test_sce_single_takes_each_image_by_its_own_loss():
    logits, labels = random_batch(9, 5, seed=2)
    parts = [
        (sce_loss if y.sum() == 1 else bce_loss)(z[None], y[None])
        for z, y in zip(logits, labels, strict=True)
    ]
    torch.testing.assert_close(sce_single_loss(logits, labels), torch.stack(parts).mean())


# Section 4.2 with two classes, the positive p first: magnitudes of the terms (1) BCE on p, (2) BCE on q,
# (3) SCE on p, (4) SCE on q. Eq. (12) divides BCE by K = 2, so its terms end at 0.5 where SCE's end at 1.
CASES = {
    "a": ((-10.0, 10.0), (0.5, 0.5, 1.0, 1.0)),
    "b": ((10.0, -10.0), (0.0, 0.0, 0.0, 0.0)),
    "c1": ((10.0, 10.0), (0.0, 0.5, 0.5, 0.5)),
    "c2": ((-10.0, -10.0), (0.5, 0.0, 0.5, 0.5)),
}


@pytest.mark.parametrize("case", CASES)
def test_cases_of_section_4_2(case):
    pair, expected = CASES[case]
    logits, labels = torch.tensor([pair], dtype=torch.float64), torch.tensor([[1, 0]])
    terms = torch.cat([bce_gradient(logits, labels), sce_gradient(logits, labels)], 1)[0]
    assert terms.abs().tolist() == pytest.approx(expected, abs=5e-5)
    assert (terms[[0, 2]] <= 0).all() and (terms[[1, 3]] >= 0).all()  # p is pulled up, q pushed down
    if case == "a":
        assert (terms[:2].abs() < 0.5).all()  # "less than 0.5" in the paper's words


def test_reactivation_loss_weighs_images_equally_and_counts_empty_ones():
    torch.manual_seed(0)
    features, classifier = torch.randn(3, 4, 6), nn.Linear(6, 4, bias=False)
    labels = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]])
    per_image = []
    for f, y in zip(features, labels, strict=True):
        terms = [-classifier(f[k]).log_softmax(0)[k] for k in range(4) if y[k]]
        per_image.append(sum(terms) / max(len(terms), 1))
    expected = sum(per_image) / 3
    assert reactivation_loss(features, labels, classifier=classifier).item() == pytest.approx(
        expected.item(), rel=1e-6
    )


def test_reactivation_loss_on_published_numbers():
    z = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(BASELINES / "reactivation.npz").items()}
    fc2 = nn.Linear(z["fc2"].shape[1], z["fc2"].shape[0], bias=False)
    fc2.weight.data = z["fc2"]
    assert bce_loss(z["logits"], z["labels"]).item() == pytest.approx(z["bce"].item(), rel=1e-5)
    sce = reactivation_loss(z["class_features"], z["labels"], classifier=fc2)
    assert sce.item() == pytest.approx(z["sce"].item(), rel=1e-5)


@pytest.mark.parametrize("loss", [bce_loss, sce_loss, sce_single_loss, bce_gradient, sce_gradient])
def test_shape_mismatch_names_both(loss):
    with pytest.raises(RecamError, match=r"\(2, 3\).*\(2, 4\)"):
        loss(torch.zeros(2, 3), torch.zeros(2, 4))


def test_reactivation_loss_says_what_is_wrong():
    with pytest.raises(RecamError, match="no image of this batch has a class"):
        reactivation_loss(torch.zeros(2, 3, 4), torch.zeros(2, 3), classifier=nn.Identity())
    with pytest.raises(ValueError, match=r"\(2, 3, 4\).*\(2, 5\)"):
        reactivation_loss(torch.zeros(2, 3, 4), torch.ones(2, 5), classifier=nn.Identity())


@pytest.mark.parametrize("loss", [bce_loss, sce_loss, sce_single_loss])
def test_extreme_logits_stay_finite(loss):
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    value = loss(logits, torch.tensor([[0, 1, 0]]))
    value.backward()
    assert math.isfinite(value.item()) and logits.grad.isfinite().all()
