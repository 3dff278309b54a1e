"""Backbones at every stride, freezing, weights files good and bad, and the two heads."""

import copy
from unittest.mock import Mock

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from recamlib.errors import SettingsError, WeightsError
from recamlib.models.backbones import NETWORKS, Network, _features, build_backbone
from recamlib.models.base import freeze_batch_norm, freeze_stem
from recamlib.models.classifier import CamClassifier, ReactivationHead
from recamlib.models.deeplabv2 import DeepLabV2
from recamlib.models.irnet import BoundaryNet


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"resnet101", "densenet169", "resnet34"}))
def test_backbone_comes_out_at_its_stride(name, stride):
    backbone = build_backbone(name, output_stride=stride).eval()
    with torch.inference_mode():
        stages = backbone.stages(torch.zeros(1, 3, 64, 96))
        features = backbone(torch.zeros(1, 3, 64, 96))
    assert tuple(stages) == backbone.stage_names
    deepest = stages[backbone.stage_names[-1]]
    torch.testing.assert_close(deepest, features)
    slack = int(name == "squeezenet1_1")  # its first convolution is not padded
    assert features.shape[:2] == (1, backbone.channels)
    assert all(n // stride - slack <= m <= n // stride for n, m in zip((64, 96), features.shape[2:]))
    # the frozen stem is the first convolution and its normalisation
    frozen = [k for k, p in freeze_stem(backbone).named_parameters() if not p.requires_grad]
    assert len(frozen) == 3 - slack and all(k.startswith("body.stem.") for k in frozen)


def test_a_new_torchvision_network_is_one_row(monkeypatch, tmp_path):
    row = Network(_features(3, 6, 11, 16, 21), 32, 512, "classifier")
    monkeypatch.setitem(NETWORKS, "vgg11", row)
    theirs, x = torchvision.models.vgg11().eval(), torch.randn(1, 3, 64, 96)
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    plain = build_backbone("vgg11", output_stride=32, weights=tmp_path / "w.pth").eval()
    with torch.inference_mode():
        torch.testing.assert_close(plain(x), theirs.features(x), rtol=1e-4, atol=1e-5)
        model = CamClassifier(build_backbone("vgg11"), 3).eval()
        assert model.features(x).shape == (1, row.channels, 4, 6) and model(x).shape == (1, 3)
        assert BoundaryNet(model.backbone)(x).shape == (1, 16, 24)
        assert DeepLabV2(build_backbone("vgg11", output_stride=8), 4).eval()(x).shape[:2] == (1, 4)


def test_full_stride_is_torchvisions_network_and_a_reduced_one_dilates_no_kernel(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 64, 64)
    for name, head in (("mobilenet_v2", "classifier"), ("densenet121", "classifier"), ("resnet18", "fc")):
        theirs = torchvision.models.get_model(name, weights=None).eval()
        save_file(theirs.state_dict(), tmp_path / "w.safetensors")
        ours = build_backbone(name, output_stride=32, weights=tmp_path / "w.safetensors").eval()
        with torch.inference_mode():
            found = getattr(theirs, head)(ours(x).mean((2, 3)))
            torch.testing.assert_close(found, theirs(x), rtol=1e-4, atol=1e-5)
    convs = [m for m in build_backbone("resnet50").body["layer4"].modules() if isinstance(m, nn.Conv2d)]
    assert all(c.stride == (1, 1) and c.dilation == (1, 1) for c in convs)


def test_timm_network_with_weights_from_a_file(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("resnet10t", pretrained=False).eval()
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    ours = build_backbone("timm/resnet10t", weights=tmp_path / "w.safetensors").eval()
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert ours(x).shape == (1, ours.channels, 4, 6)
        first = ours.stages(x)[ours.stage_names[0]]
        torch.testing.assert_close(first, theirs.act1(theirs.bn1(theirs.conv1(x))))


@pytest.mark.parametrize("name, options, message", [
    ("resnet5", {}, "did you mean 'resnet50'"), ("timm/resnet1t", {}, "did you mean 'resnet1"),
    ("squeezenet1_1", {"output_stride": 32}, "use 16"),
    ("timm/vit_small_patch14_reg4_dinov2", {}, "comes out at stride 14, not 16"),
    ("timm/swin_tiny_patch4_window7_224", {}, "comes out at stride 32, not 16"),
    ("swin_small_scratch", {"output_stride": 8}, "comes out at stride 16"),
    ("vit_small_scrath", {}, "did you mean 'vit_small_scratch'"),
    ("vit_small_scratch", {"weights": "imagenet"}, "train it from scratch"),
    ("resnet_small", {"weights": "imagenet"}, "resnet_small has no 'imagenet' weights: use 'scenes'"),
    ("resnet18", {"weights": "scenes"}, "resnet18 has no 'scenes' weights: use 'imagenet'"),
    ("resnet50", {"weights": "imagenet"}, r"registry \(no route\): check the network, or give the path"),
])  # fmt: skip
def test_mistakes_name_the_way_out(monkeypatch, name, options, message):
    if "route" in message:
        monkeypatch.setattr(torchvision.models, "get_model", Mock(side_effect=OSError("no route")))
    with pytest.raises(WeightsError if "weights" in options else SettingsError, match=message):
        build_backbone(name, **options)


def test_frozen_statistics_survive_train_and_still_learn():
    backbone = build_backbone("resnet_small")
    keys = list(backbone.state_dict())
    freeze_batch_norm(freeze_batch_norm(backbone)).train()
    assert list(backbone.state_dict()) == keys
    twin = copy.deepcopy(backbone).train()
    x = torch.randn(4, 3, 32, 32)
    before = twin.body["stem"].bn1.running_mean.clone()
    twin(x).sum().backward()
    torch.testing.assert_close(twin.body["stem"].bn1.running_mean, before, rtol=0, atol=0)
    assert twin.body["stem"].bn1.weight.grad.abs().sum() > 0
    torch.testing.assert_close(twin(x), twin.eval()(x))  # no dependence on the mode


def test_score_is_the_mean_of_the_map():
    torch.manual_seed(0)
    model = CamClassifier(build_backbone("resnet_small"), 5).eval()
    x = torch.randn(2, 3, 64, 96)
    features = model.features(x)
    maps = torch.einsum("kc,bchw->bkhw", model.fc1.weight, features)
    torch.testing.assert_close(model(x), maps.mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert ReactivationHead(160, 5)(torch.zeros(2, 5, 160)).shape == (2, 5, 5)
