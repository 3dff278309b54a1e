"""BatchNorm folded into convolutions: the same outputs, and only where it may be."""

import copy

import pytest
import torch
from torch import nn

from recamlib.models.backbones import build_backbone
from recamlib.models.base import fold_batch_norm, freeze_batch_norm, layout
from recamlib.models.segmenters import build_segmenter


def norms(net):
    return sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def trained(net):
    """Give every BatchNorm statistics of its own: fresh ones change nothing and would hide a fault."""
    for i, norm in enumerate(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        g = torch.Generator().manual_seed(i)
        norm.running_mean.copy_(torch.randn(norm.num_features, generator=g) / 10)
        norm.running_var.copy_(torch.rand(norm.num_features, generator=g) + 0.5)
    return net.eval()


@pytest.mark.parametrize("arch", ["deeplabv2_small", "deeplabv3plus_small", "upernet_small"])
def test_the_same_predictions_at_any_size(arch):
    torch.manual_seed(0)
    net = trained(build_segmenter(arch, num_classes=5))
    before = copy.deepcopy(net.state_dict())
    folded = fold_batch_norm(net)
    assert norms(folded) < norms(net)
    assert (layout("cpu"), layout("cuda:0")) == (torch.channels_last, torch.contiguous_format)
    other = torch.randn(2, 3, 45, 70)
    expected = net.predict(other)
    assert (folded.predict(other) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("put_together", [
    lambda net, x: (y := net.a(x)) + 3 * net.norm(y),  # the output goes on beside the BatchNorm
    lambda net, x: net.norm(net.a(x)) + net.norm(net.b(x)),  # two convolutions before one BatchNorm
    lambda net, x: net.b(net.a(net.norm(x))),  # it comes first, whatever the order of the names
    lambda net, x: net.b(net.norm(net.a(x).relu_())),  # something lies between
])  # fmt: skip
def test_what_cannot_be_folded_stays(put_together):
    torch.manual_seed(0)
    net, images = type("Net", (nn.Module,), {"forward": put_together})(), torch.randn(1, 3, 64, 64)
    net.a, net.b, net.norm = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3), trained(nn.BatchNorm2d(3))
    folded, net = fold_batch_norm(net), net.to(memory_format=torch.channels_last)
    assert norms(folded) == 1
    with torch.no_grad():
        torch.testing.assert_close(folded(images), net(images), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121", "timm/resnet10t"])
def test_the_same_features_of_a_backbone_with_fixed_statistics(name):
    torch.manual_seed(0)
    net = freeze_batch_norm(trained(build_backbone(name)))
    folded, x = fold_batch_norm(net), torch.randn(2, 3, 50, 70)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), net(x), rtol=1e-3, atol=1e-4 * net(x).abs().max().item())
    assert norms(folded) < norms(net)
