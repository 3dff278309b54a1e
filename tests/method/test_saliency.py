"""EPS's loss and EDAM's merge against cases worked out by hand, and where the gradient of the first goes."""

import numpy as np
import pytest
import torch

from recamlib.errors import SettingsError
from recamlib.method.saliency import edam_merge, eps_loss

# two classes and the background on four cells; the first class claims cells 1 and 2, the second cell 3
SHARES = ([0.8, 0.7, 0.2, 0.1], [0.1, 0.1, 0.6, 0.1], [0.1, 0.2, 0.2, 0.8])
MAPS = np.array([[[1.0, 0.9, 0.3, 0.0, 1e-7]], [[0.0, 0.999995, 0.4, 0.0, 1e-3]]], dtype=np.float32)


def scores_of(*shares: list[float]) -> torch.Tensor:
    """Return scores (1, K + 1, 1, n) whose softmax is these shares, one list per channel."""
    return torch.tensor(shares, dtype=torch.float64).log()[None, :, None]


def eps(shares, saliency, present, **more):
    target = torch.tensor([[saliency]], dtype=torch.float64)
    return eps_loss(scores_of(*shares), target, torch.tensor([present]), **more).item()


@pytest.mark.parametrize("saliency, present, estimate", [
    ([1.0, 1.0, 1.0, 0.0], [1, 1], [0.9, 0.8, 0.8, 0.2]),  # both are salient where they claim
    ([1.0, 1.0, 1.0, 0.0], [1, 0], [0.85, 0.75, 0.5, 0.15]),  # the second is absent: on neither side
    ([1.0, 1.0, 0.0, 0.0], [1, 1], [0.8, 0.7, 0.2, 0.1]),  # the second claims what is not salient: background
    ([1.0, 0.0, 0.0, 0.0], [1, 0], [0.85, 0.75, 0.5, 0.15]),  # one of two claimed: 0.5 > 0.4, foreground
    ([0.0, 0.0, 0.0, 0.0], [0, 0], [0.45, 0.4, 0.4, 0.1]),  # no class at all: the background alone
])  # fmt: skip
def test_sides_follow_overlap_and_labels(saliency, present, estimate):
    assert eps(SHARES, saliency, present) == pytest.approx(np.mean((np.array(estimate) - saliency) ** 2))


def test_the_overlap_has_to_be_exceeded_and_is_a_share_of_what_is_claimed():
    shares = ([0.9] * 5, [0.1] * 5)
    two, three = [1.0, 1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0]
    as_background = np.mean(np.square(two))  # 0 everywhere: all of it is background
    assert eps(shares, two, [1]) == pytest.approx(as_background)  # 2 of 5 are 0.4, which is not above 0.4
    assert eps(shares, three, [1]) == pytest.approx(np.mean((0.9 - np.array(three)) ** 2))
    assert eps(shares, two, [1], overlap=0.39) == pytest.approx(np.mean((0.9 - np.array(two)) ** 2))
    assert eps(([0.4] * 5, [0.6] * 5), [1.0] * 5, [1]) == pytest.approx(1.0)  # claims nothing: no overlap
    assert eps(shares, three, [1], share=1.0) == pytest.approx(np.mean((0.9 - np.array(three)) ** 2))


def test_saliency_of_any_size_is_averaged_over_the_cells():
    torch.manual_seed(0)
    scores, coarse = torch.randn(2, 4, 3, 5), torch.rand(2, 3, 5)
    labels = torch.tensor([[1, 0, 1], [0, 1, 0]])
    fine = coarse.repeat_interleave(4, 1).repeat_interleave(4, 2)
    torch.testing.assert_close(eps_loss(scores, fine, labels), eps_loss(scores, coarse, labels))


def test_the_gradient_reaches_present_classes_and_background_and_not_through_the_choice():
    scores = scores_of(*SHARES).requires_grad_()
    saliency = torch.tensor([[[1.0, 1.0, 0.0, 0.0]]], dtype=torch.float64, requires_grad=True)
    eps_loss(scores, saliency.detach(), torch.tensor([[1, 0]])).backward()
    gradient = scores.grad[0, :, 0]  # (K + 1, n)
    assert (gradient.abs() > 1e-4).any(1).all()  # an absent class's too: a softmax has one sum
    assert gradient[0, 0] < 0 < gradient[-1, 0]  # up with the class where it is salient, down with the rest
    assert gradient.sum(0).abs().max() < 1e-12
    assert torch.autograd.gradcheck(lambda s: eps_loss(s, saliency.detach(), torch.tensor([[1, 1]])), scores)


@pytest.mark.parametrize("saliency, more, mask", [
    ([1, 1, 1, 1, 1], {}, [1, 2, 2, 0, 2]),  # all salient: the highest, if above alpha
    ([0, 0, 0, 0, 0], {}, [1, 2, 0, 0, 0]),  # nothing salient: what is certain stays
    ([0, 0, 0, 0, 0], {"beta": 1.0}, [0, 0, 0, 0, 0]),  # a map of 1 ties with the background and loses
    ([0.2, 0.2, 0.2, 0.2, 0.21], {"beta": 1.0}, [0, 0, 0, 0, 2]),  # theta itself is background
    ([1, 1, 1, 1, 1], {"alpha": 0.5}, [1, 2, 0, 0, 0]),
    ([1, 1, 1, 1, 1], {"alpha": 0.0}, [1, 2, 2, 0, 2]),  # zero ties with the background and loses
])  # fmt: skip
def test_the_merge_by_hand(saliency, more, mask):
    assert edam_merge(MAPS, np.array([saliency]), **more).tolist() == [mask]


def test_theta_is_compared_in_the_precision_of_the_map():
    saliency = np.array([[51]], dtype=np.uint8) / np.float32(255)  # 20 of 100: as float32 above 0.2
    assert edam_merge(np.full((1, 1, 1), 0.5), saliency).tolist() == [[0]]
    assert edam_merge(np.zeros((0, 2, 3)), np.ones((2, 3))).tolist() == [[0, 0, 0]] * 2
    with pytest.raises(SettingsError, match="alpha 0.5 and beta 0.4"):
        edam_merge(MAPS, np.zeros((1, 5)), alpha=0.5, beta=0.4)
