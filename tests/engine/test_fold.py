"""BatchNorm folded into convolutions: the same outputs, and only where it may be."""

import copy

import pytest
import torch
from torch import nn

from recamlib.models.backbones import build_backbone
from recamlib.models.base import fold_batch_norm, freeze_batch_norm
from recamlib.models.segmenters import build_segmenter


@pytest.fixture
def images():
    return torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def norms(net):
    return sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())


def trained(net):
    """Give every BatchNorm statistics of its own: fresh ones change nothing and would hide a fault."""
    for i, norm in enumerate(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        g = torch.Generator().manual_seed(i)
        norm.running_mean.copy_(torch.randn(norm.num_features, generator=g) / 10)
        norm.running_var.copy_(torch.rand(norm.num_features, generator=g) + 0.5)
    return net.eval()


@pytest.mark.parametrize(
    ("arch", "backbone"),
    [("deeplabv2_small", None), ("deeplabv3plus", "mobilenet_v2"), ("upernet_small", None)],
)  # fmt: skip
def test_the_same_predictions_at_any_size(arch, backbone):
    torch.manual_seed(0)
    net = trained(build_segmenter(arch, num_classes=5, backbone=backbone))
    before = copy.deepcopy(net.state_dict())
    folded = fold_batch_norm(net)
    assert norms(folded) < norms(net)
    other = torch.randn(2, 3, 45, 70, generator=torch.Generator().manual_seed(2))
    expected = net.predict(other)
    assert (folded.predict(other) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class Twice(nn.Module):
    """The convolution's output goes on beside the BatchNorm."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return y + 3 * self.norm(y)


class Shared(nn.Module):
    """Two convolutions before one BatchNorm: neither may take it."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.a(x)) + self.norm(self.b(x))


class Backwards(nn.Module):
    """The BatchNorm comes first, whatever the order of its names."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.conv(self.norm(x))


class Between(nn.Module):
    """A ReLU writes over what the convolution hands over."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.conv(x).relu_())


@pytest.mark.parametrize("kind", [Twice, Shared, Backwards, Between])
def test_what_cannot_be_folded_stays(kind, images):
    torch.manual_seed(0)
    net = trained(kind())
    folded = fold_batch_norm(net)
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


def test_statistics_of_the_batch_stay():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    assert norms(fold_batch_norm(net)) == 1
    assert net.training and not fold_batch_norm(net).training
