"""When a training counts as converged: both conditions, on both sides, and the fitted softmax layer."""

import pytest
import torch

from recamlib.method import convergence as rules
from recamlib.method.convergence import COST, MARGIN, convergence
from recamlib.method.maps import class_activation_maps, class_features

RECORD = {"val_map": 70.0, "fc1_map": 68.4, "fc2_accuracy": 95.0, "softmax_accuracy": 97.0}


@pytest.mark.parametrize("change, converged", [
    ({}, True), ({"val_map": 68.4}, True), ({"val_map_after": 68.4 - COST}, True),
    ({"val_map": 68.3}, False),  # worse than FC1 alone on untouched features
    ({"val_map_after": 68.3 - COST}, False),  # FC1 followed an FC2 that was not trained yet
    ({"fc2_accuracy": 97.0 - MARGIN}, True),
    ({"fc2_accuracy": 96.9 - MARGIN}, False),  # FC2 stopped before it had learned what its features tell
])  # fmt: skip
def test_the_two_conditions_and_the_first_alone_of_a_classifier(change, converged):
    assert convergence(RECORD | change).converged is converged
    if change.keys() <= {"val_map"}:
        alone = {name: RECORD[name] for name in ("val_map", "fc1_map")}
        assert convergence(alone | change).converged is converged


def test_one_class_features_are_those_of_the_loss():
    torch.manual_seed(0)
    features, fc1 = torch.rand(3, 6, 4, 5), torch.randn(4, 6)
    labels = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    every = class_features(features, class_activation_maps(features, fc1))
    pooled, target, share = rules.one_class_features(every, labels)
    assert target.tolist() == [0, 2, 1] and share.tolist() == [0.5, 0.5, 1]
    assert pooled.equal(every[[0, 0, 2], [0, 2, 1]])


def test_the_softmax_layer_is_a_minimum():
    torch.manual_seed(0)
    features, targets, share = torch.randn(200, 8), torch.randint(0, 3, (200,)), torch.ones(200)
    weight = rules.fit_softmax(features, targets, share, classes=3).requires_grad_()
    loss = torch.nn.functional.cross_entropy(features @ weight.T, targets)
    (loss + 0.5e-4 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-4
    at_zero, fitted = (
        rules.head_numbers(features, targets, share, w) for w in (torch.zeros(3, 8), weight.detach())
    )
    assert at_zero["sce"] == pytest.approx(1.0986, abs=1e-4) and fitted["sce"] < at_zero["sce"]
    assert fitted["accuracy"] > 40
