"""The boundary network: shapes, what is frozen, what it learns, and that nothing else takes part."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from recamlib.models.backbones import build_backbone
from recamlib.models.irnet import BoundaryBranch, BoundaryNet

NAMES = ("resnet_small", "mobilenet_v2", "densenet121", "squeezenet1_1", "timm/resnet10t")


def boundary_net(name="resnet_small", *, seed=0, **options) -> BoundaryNet:
    torch.manual_seed(seed)
    backbone = build_backbone(name, **options)
    with torch.no_grad():
        backbone.train()(torch.randn(4, 3, 64, 64))  # running statistics that are not the initial ones
    return BoundaryNet(backbone)


@pytest.mark.parametrize("name", NAMES)
def test_boundaries_come_out_at_stride_4_for_any_size(name):
    net = boundary_net(name)
    for size in ((97, 131), (64, 96), (1, 1), (5, 70)):
        expected = (2, *(math.ceil(n / 4) for n in size))
        logits = net(torch.randn(2, 3, *size))
        assert logits.shape == expected and logits.isfinite().all() and logits.requires_grad
        probability = net.boundary(torch.randn(2, 3, *size))
        assert probability.shape == expected and not probability.requires_grad
        assert 0 < probability.min() <= probability.max() < 1


def test_branch_is_the_published_one_on_the_published_strides():
    torch.manual_seed(0)
    channels, strides = (8, 12, 16, 20, 24), (4, 4, 8, 16, 16)
    branch = BoundaryBranch(channels, strides)
    size = (75, 90)  # no multiple of 4, 8 or 16
    stages = [torch.randn(2, c, *(math.ceil(n / s) for n in size)) for c, s in zip(channels, strides)]
    projected = []
    for x, s, project in zip(stages, strides, branch.project):
        x = F.group_norm(F.conv2d(x, project[0].weight), 4, project[1].weight, project[1].bias)
        x = nn.Upsample(scale_factor=s // 4, mode="bilinear", align_corners=False)(x) if s > 4 else x
        projected.append(x.relu()[..., :19, :23])
    literal = F.conv2d(torch.cat(projected, 1), branch.merge.weight, branch.merge.bias)
    torch.testing.assert_close(branch(stages, size), literal[:, 0])
    assert sum(p.numel() for p in branch.parameters()) == 32 * sum(channels) + 5 * 64 + 161


@pytest.mark.parametrize("name", NAMES)
def test_scores_lie_where_the_image_changed(name):
    net = boundary_net(name)
    image = torch.randn(1, 3, 97, 131, generator=torch.Generator().manual_seed(0))
    for y, x in ((20, 24), (84, 116), (20, 104)):
        spotted = image.clone()
        spotted[:, :, y - 4 : y + 4, x - 4 : x + 4] = 5
        with torch.no_grad():
            change = (net(spotted) - net(image)).abs()[0]  # (25, 33)
        change = (change - change.max() / 2).clamp(min=0)
        places = change.nonzero() + 0.5
        middle = 4 * (places * change[change > 0][:, None]).sum(0) / change.sum()
        assert math.dist(middle, (y, x)) < 8  # pixels: two cells


def test_mirrored_image_has_the_mirrored_boundary():
    net, images = boundary_net(), torch.randn(2, 3, 64, 96)
    once = net.boundary(images)
    torch.testing.assert_close(net.boundary(images.flip(3)), once.flip(2), rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        here, there = net(images), net(images.flip(3)).flip(2)
    assert (here - there).abs().max() > 1e-3  # alone, neither is symmetric
    torch.testing.assert_close(once, (here / 2 + there / 2).sigmoid(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet_small", "mobilenet_v2"])
def test_training_moves_the_branch_alone_and_the_mode_changes_nothing(name):
    net, images = boundary_net(name), torch.randn(2, 3, 32, 48)
    before, there = copy.deepcopy(net.state_dict()), net.eval().boundary(images)
    torch.testing.assert_close(net.train().boundary(images), there, rtol=0, atol=0)
    optimizer = torch.optim.SGD(net.branch.parameters(), lr=0.5)
    F.binary_cross_entropy_with_logits(net(images), torch.ones(2, 8, 12)).backward()
    optimizer.step()
    assert net.training and not any(m.training for m in net.backbone.modules())
    assert all(p.grad is None and not p.requires_grad for p in net.backbone.parameters())
    changed = {k for k, v in net.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {f"branch.{k}" for k in net.branch.state_dict()}
