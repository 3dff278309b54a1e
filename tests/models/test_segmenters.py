"""Segmentation networks: shapes at every size, learning, parameter groups, weights of every layout."""

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn

from recamlib.data.views import IMAGENET_MEAN, IMAGENET_STD
from recamlib.engine.fit import make_optimizer
from recamlib.errors import DataError, SettingsError, WeightsError
from recamlib.method.losses import multiscale_loss
from recamlib.models.backbones import build_backbone
from recamlib.models.deeplabv2 import dilate
from recamlib.models.segmenters import ARCHS, build_segmenter

SMALL = [a for a in ARCHS if a.endswith("_small")]
SWIN = "timm/swin_tiny_patch4_window7_224"
PARTS = {"1": "reduce", "2": "conv3x3", "3": "increase", "S": "shortcut"}


@pytest.mark.parametrize("arch", SMALL)
def test_any_image_size_and_a_saved_network_comes_back(arch, tmp_path):
    torch.manual_seed(0)
    model, path = build_segmenter(arch, num_classes=4), tmp_path / "mine.safetensors"
    save_file(model.state_dict(), path)
    again, x = build_segmenter(arch, num_classes=4, weights=path), torch.randn(1, 3, 40, 40)
    assert again.head_loaded and not build_segmenter(arch, num_classes=3, weights=path).head_loaded
    torch.testing.assert_close(again.predict(x), model.predict(x))
    with pytest.raises(DataError, match=r"expected images \(images, 3, height, width\)"):
        model(torch.zeros(1, 4, 32, 32))
    for size in ((33, 47), (96, 96), (20, 9)):
        images, masks = torch.randn(2, 3, *size), torch.zeros(2, *size, dtype=torch.uint8)
        before = {k: v.clone() for k, v in model.train().state_dict().items()}
        assert model.predict(images).shape == (2, 4, *size)
        assert model.training  # what predicting leaves as it was
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        multiscale_loss(model.eval().training_outputs(images), masks, at=model.loss_at).backward()
        if "deeplabv2" not in arch:
            assert model(images).shape == (2, 4, -(-size[0] // 4), -(-size[1] // 4))


@pytest.mark.parametrize("arch", SMALL)
def test_small_network_learns_a_toy_mask(arch):
    torch.manual_seed(0)
    model = build_segmenter(arch, num_classes=3)
    masks = torch.zeros(2, 96, 96, dtype=torch.uint8)
    masks[0, 16:64, 32:80], masks[1, 40:88, 8:56], masks[:, :6] = 1, 2, 255
    colours = torch.tensor([[0.0, 0, 0], [1, -1, 0], [-1, 1, 0]])
    images = colours[masks.long().clamp(max=2) * (masks != 255)].permute(0, 3, 1, 2)
    images = images + 0.3 * torch.randn(2, 3, 96, 96)
    rates = {"deeplabv2_small": (0.02, "sgd"), "deeplabv3plus_small": (0.01, "sgd")}
    rate, kind = rates.get(arch, (2e-3, "adamw"))
    optimizer = make_optimizer(model.param_groups(rate), kind=kind, momentum=0.9, weight_decay=5e-4)
    losses = []
    for _ in range(30):
        losses.append(multiscale_loss(model.train().training_outputs(images), masks, at=model.loss_at))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    right = (model.predict(images).argmax(1) == masks)[masks != 255].float().mean().item()
    # three seeds give 0.958 to 0.990; background everywhere gives 0.733
    assert losses[-1] < 0.3 * losses[0] and right > 0.9, (losses[0], losses[-1], right)


def test_rates_and_decay_of_the_families():
    for arch in (*SMALL, "deeplabv2"):  # every trained parameter is in one group
        with torch.device("meta"):
            model = build_segmenter(arch, num_classes=5)
        grouped = [id(p) for group in model.param_groups(0.1) for p in group["params"]]
        assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    v2 = build_segmenter("deeplabv2_small", num_classes=5).param_groups(0.1)
    assert [g["lr"] for g in v2] == pytest.approx([0.1, 1.0, 2.0])
    assert [p.ndim for p in v2[1]["params"]] == [4] * 4 and [p.ndim for p in v2[2]["params"]] == [1] * 4
    decays = [g["weight_decay"] for g in make_optimizer(v2, weight_decay=5e-4).param_groups]
    assert decays == [5e-4, 5e-4, 0.0]
    v3 = build_segmenter("deeplabv3plus_small", num_classes=5).param_groups(0.1)
    assert [g["lr"] for g in v3] == pytest.approx([0.1, 1.0])
    with torch.device("meta"):
        swin = build_segmenter("upernet_swin", num_classes=5)
        assert swin(torch.zeros(2, 3, 224, 300)).shape == (2, 5, 56, 75)
    assert 86.5e6 < sum(p.numel() for p in swin.net.encoder.parameters()) < 87e6  # Swin-B, no classifier
    decayed, plain = swin.param_groups(6e-5)
    assert (decayed["lr"], plain["lr"], plain["weight_decay"]) == (6e-5, 6e-5, 0.0)
    names = {id(p): n for n, p in swin.named_parameters()}
    assert all(p.ndim > 1 and "relative_position" not in names[id(p)] for p in decayed["params"])
    assert any("relative_position" in names[id(p)] for p in plain["params"])


@pytest.mark.parametrize("name, cells", [
    ("resnet101", (9, 13)),  # the first pooling rounds up
    ("resnet_small", (8, 12)), ("mobilenet_v2", (8, 12)),
    ("densenet121", (8, 12)),  # rounded up by the first pooling, down by the second
])  # fmt: skip
def test_last_stages_are_dilated(name, cells):
    with torch.device("meta"):
        backbone = dilate(build_backbone(name, output_stride=8))
        stages = list(backbone.body.values())
        for stage, rate in zip(stages, [1] * (len(stages) - 2) + [2, 4]):
            convs = [m for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
            assert convs or rate == 1
            assert {m.dilation for m in convs} <= {(rate, rate)}
        assert backbone(torch.zeros(1, 3, 64, 96)).shape[2:] == cells


def test_published_crop_has_published_cells():
    with torch.device("meta"):
        outputs = build_segmenter("deeplabv2", num_classes=21).training_outputs(torch.zeros(1, 3, 321, 321))
    assert [tuple(o.shape[2:]) for o in outputs] == [(41, 41), (31, 31), (21, 21), (41, 41)]


def published(*, fc=False):
    """Return torchvision's layers put together as deeplab-pytorch does it, and numbers under its names."""
    torch.manual_seed(0)
    net, state = torchvision.models.resnet50(), {}
    net.maxpool.ceil_mode = True
    for stage, stride, rate in ((net.layer2, 2, 1), (net.layer3, 1, 2), (net.layer4, 1, 4)):
        stage[0].conv1.stride = stage[0].downsample[0].stride = (stride, stride)
        for block in stage:
            block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (rate, rate), (rate, rate)
    for norm in (m for m in net.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.uniform_(norm.bias, -0.1, 0.1)
        norm.momentum = None  # statistics are those of the one batch that follows
    net.train()(150 * torch.randn(4, 3, 65, 65))
    for name, value in net.eval().state_dict().items():
        *place, part, leaf = name.replace("downsample.0", "convS").replace("downsample.1", "bnS").split(".")
        kind, part = part[:-1], PARTS[part[-1]] if place else "conv1"
        start = f"layer{int(place[0][-1]) + 1}.block{int(place[1]) + 1}" if place else "layer1"
        state |= {f"{start}.{part}.{kind}.{leaf}": value} if kind in ("conv", "bn") else {}
    if fc:
        return net, state | {"fc.weight": torch.zeros(91, 2048, 1, 1), "fc.bias": torch.zeros(91)}
    for i in range(4):
        state[f"aspp.c{i}.weight"] = torch.randn(5, 2048, 3, 3) * 0.01
        state[f"aspp.c{i}.bias"] = torch.randn(5)
    return net, state


def test_published_weights_give_the_published_numbers(tmp_path):
    net, state = published()
    torch.save({f"base.{k}": v for k, v in state.items()}, tmp_path / "v2.pth")
    model = build_segmenter("deeplabv2", num_classes=5, backbone="resnet50", weights=tmp_path / "v2.pth")
    assert model.head_loaded
    pixels = torch.randint(0, 256, (1, 3, 65, 49)).float()  # red, green, blue; theirs are turned, less a mean
    h = pixels.flip(1) - torch.tensor([104.008, 116.669, 122.675]).view(3, 1, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        for layer in list(net.children())[:-2]:
            h = layer(h)
        theirs = sum(
            F.conv2d(h, state[f"aspp.c{i}.weight"], state[f"aspp.c{i}.bias"], 1, rate, rate)
            for i, rate in enumerate((6, 12, 18, 24))
        )
        ours = model.net((pixels / 255 - mean) / std)
    assert ours.shape == (1, 5, 9, 7) and 0.1 < theirs.std() < 1e3
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_pretrained_norms_are_fixed_in_full_and_others_are_not(tmp_path):
    torch.save(published(fc=True)[1], tmp_path / "v1.pth")
    options = {"backbone": "resnet50", "weights": tmp_path / "v1.pth"}
    model = build_segmenter("deeplabv2", num_classes=5, **options).train()
    assert not model.head_loaded  # DeepLabV1 has another last layer
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training or m.weight.requires_grad or m.bias.requires_grad for m in norms)
    assert {p.ndim for p in model.param_groups(0.1)[0]["params"]} == {4}
    scratch = build_segmenter("deeplabv2_small", num_classes=5).train()
    norms = [m for m in scratch.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.training and m.weight.requires_grad for m in norms)


def test_norms_of_a_pretrained_encoder_can_be_fixed(tmp_path):
    options = {"num_classes": 3, "backbone": "mobilenet_v2"}
    encoder = build_segmenter("deeplabv3plus", **options).net.encoder
    save_file({k: v.clone() for k, v in encoder.state_dict().items()}, tmp_path / "e.safetensors")
    with pytest.raises(SettingsError, match="fixed_norm .* give weights"):
        build_segmenter("deeplabv3plus", **options, fixed_norm=True)
    options |= {"weights": tmp_path / "e.safetensors"}
    for fixed in (True, False):
        model = build_segmenter("deeplabv3plus", **options, fixed_norm=fixed).train()
        before = {k: v.clone() for k, v in model.state_dict().items() if "running_mean" in k}
        model.training_outputs(torch.randn(2, 3, 64, 64))
        moved = {k for k, v in model.state_dict().items() if k in before and not torch.equal(v, before[k])}
        assert any("decoder" in k for k in moved) and any("encoder" in k for k in moved) != fixed


def test_wrong_published_keys_are_named(tmp_path):
    build = {"num_classes": 5, "backbone": "resnet50", "weights": tmp_path / "w.pth"}
    _, state = published()
    gone = {k: v for k, v in state.items() if k != "layer3.block2.conv3x3.bn.bias"}
    more = {**state, "layer3.block2.widen.conv.weight": torch.zeros(1)}
    for content, backbone, message in (
        (gone, "resnet50", r"lacks backbone\.body\.layer2\.1\.bn2\.bias"),
        (more, "resnet50", r"no place for layer3\.block2\.widen\.conv\.weight"),
        (state, "resnet101", r"lacks backbone\.body\.layer3\.6"),  # 6 blocks, not 23
    ):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=message):
            build_segmenter("deeplabv2", **{**build, "backbone": backbone})
    other = build_segmenter("deeplabv2", **{**build, "num_classes": 7})
    assert not other.head_loaded and other.net.aspp["c0"].weight.shape[0] == 7


def test_torchvision_and_timm_weights_reach_the_backbone(tmp_path):
    theirs = torchvision.models.resnet50(weights=None)
    save_file(theirs.state_dict(), tmp_path / "r.safetensors")
    for arch, body in (("deeplabv2", "net.backbone.body."), ("deeplabv3plus", "net.encoder.")):
        model = build_segmenter(arch, num_classes=3, backbone="resnet50", weights=tmp_path / "r.safetensors")
        ours = model.state_dict()
        torch.testing.assert_close(ours[f"{body}layer4.2.conv3.weight"], theirs.layer4[2].conv3.weight)
        assert not model.head_loaded
    theirs = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False).eval()
    torch.save({k: v for k, v in theirs.state_dict().items() if "attn_mask" not in k}, tmp_path / "w.pth")
    options = {"num_classes": 3, "backbone": SWIN, "weights": tmp_path / "w.pth"}
    ours, x = build_segmenter("upernet_swin", **options).eval(), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens = theirs.layers[:3](theirs.patch_embed(x))  # the last stage shifts no windows there
        torch.testing.assert_close(ours.net.encoder(x)[-2], tokens.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch, options, error, message", [
    ("deeplab2", {}, SettingsError, "did you mean 'deeplabv2'"),
    ("deeplabv2_small", {"num_classes": 1}, SettingsError, "expected at least a background"),
    ("deeplabv2", {"backbone": "resnet5"}, SettingsError, "did you mean 'resnet50'"),
    ("upernet_swin", {"backbone": SWIN[:-1]}, SettingsError, "did you mean 'swin_"),
    ("deeplabv3plus", {"backbone": SWIN}, SettingsError, "cannot be built"),
    ("upernet_small", {"weights": "imagenet"}, WeightsError, "no 'imagenet' weights: use 'scenes'"),
    ("deeplabv2", {"weights": "scenes"}, WeightsError, "has no 'scenes' weights: use 'imagenet'"),
    ("deeplabv2", {"weights": "coco"}, WeightsError, "no weights file .*coco"),
    ("deeplabv2", {"backbone": "squeezenet1_1"}, SettingsError, "take a ResNet"),
])  # fmt: skip
def test_mistakes_name_the_way_out(arch, options, error, message):
    with pytest.raises(error, match=message):
        build_segmenter(arch, **{"num_classes": 3, **options})
