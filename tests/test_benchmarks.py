"""The literal pipeline against ours on a few scenes, and what the harness of the benchmarks reports."""

import harness
import literal_pipeline
import numpy as np
import pytest
import torch

from recamlib.method.boundary import boundary_loss
from recamlib.method.losses import bce_loss, reactivation_loss
from recamlib.method.maps import class_activation_maps, class_features
from recamlib.models.backbones import build_backbone
from recamlib.models.classifier import CamClassifier, ReactivationHead
from recamlib.models.irnet import BoundaryNet


def test_literal_boundary_step_is_our_loss():
    torch.manual_seed(0)
    net = BoundaryNet(build_backbone("resnet_small"))
    both = literal_pipeline.BothBranches(net, radius=5, cells=(16, 20))
    images, labels = torch.randn(2, 3, 64, 80), torch.randint(0, 3, (2, 16, 20))
    labels[labels == 2] = 255
    literal_pipeline.boundary_step(both, images, labels).backward()
    ours = boundary_loss(net(images).sigmoid(), labels, radius=5).total
    assert both.boundary_loss == pytest.approx(ours.item(), rel=1e-5)
    weights = list(net.branch.parameters())
    theirs, wanted = [p.grad.clone() for p in weights], torch.autograd.grad(ours, weights)
    torch.testing.assert_close(theirs, list(wanted), rtol=1e-4, atol=1e-6)  # displacements have no part in it


def test_literal_reactivation_step_is_our_loss():
    torch.manual_seed(0)
    net = torch.nn.Module()
    net.classifier = CamClassifier(build_backbone("resnet_small"), 4).eval()
    net.head = ReactivationHead(net.classifier.backbone.channels, 4)
    images, labels = torch.randn(3, 3, 64, 64), torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1]])
    features = net.classifier.features(images)
    maps = class_activation_maps(features, net.classifier.fc1.weight)
    sce = reactivation_loss(class_features(features, maps), labels, classifier=net.head)
    ours = bce_loss(net.classifier.logits(features), labels) + sce
    torch.testing.assert_close(literal_pipeline.reactivation_step(net, images, labels), ours)


def test_differences_tell_numbers_from_labels(tmp_path):
    first = {"maps": np.array([1.0, -4.0]), "masks": np.array([1, 2, 3, 255], np.uint8)}
    np.savez(tmp_path / "a.npz", **first, own=np.zeros(1))
    np.savez(tmp_path / "b.npz", maps=np.array([1.0, -4.4]), masks=np.array([1, 0, 3, 255], np.uint8))
    found = harness._differences(tmp_path / "a.npz", tmp_path / "b.npz")
    assert found == pytest.approx({"maps": 0.4 / 4.4, "masks": 0.25})
