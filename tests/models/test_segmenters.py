"""Segmentation networks: shapes at every size, learning, parameter groups, weights of every layout."""

import re

import pytest
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
from recamlib.models.deeplabv2 import AtrousPyramid, DeepLabV2, convert_published, dilate
from recamlib.models.segmenters import ARCHS, build_segmenter

SMALL = [a for a in ARCHS if a.endswith("_small")]
SIZES = [(33, 47), (96, 96), (20, 9)]
SWIN = "timm/swin_tiny_patch4_window7_224"


def step(model, images, masks, optimizer):
    model.train()
    loss = multiscale_loss(model.training_outputs(images), masks, at=model.loss_at)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def optimizer_of(model, lr):
    if model.arch.startswith("upernet"):
        return torch.optim.AdamW(model.param_groups(lr), weight_decay=0.01)
    return make_optimizer(model.param_groups(lr), momentum=0.9, weight_decay=5e-4)


def test_published_swin_has_its_published_size():
    with torch.device("meta"):
        model = build_segmenter("upernet_swin", num_classes=21)
        encoder = sum(p.numel() for p in model.net.encoder.parameters())
        assert 86.5e6 < encoder < 87e6  # Swin-B without its classifier
        assert model(torch.zeros(2, 3, 224, 300)).shape == (2, 21, 56, 75)
    last = model.net.encoder.model.layers_3.blocks  # 7 cells a side at 224 pixels, more at 512
    assert [(b.window_size, b.shift_size) for b in last] == [((7, 7), (0, 0)), ((7, 7), (3, 3))]


@pytest.mark.parametrize("arch", SMALL)
def test_any_image_size(arch):
    torch.manual_seed(0)
    model = build_segmenter(arch, num_classes=4)
    for size in SIZES:
        images = torch.randn(2, 3, *size)
        masks = torch.zeros(2, *size, dtype=torch.uint8)
        before = {k: v.clone() for k, v in model.train().state_dict().items()}
        assert model.predict(images).shape == (2, 4, *size)
        assert model.training  # what predicting leaves as it was
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        model.eval()
        multiscale_loss(model.training_outputs(images), masks, at=model.loss_at).backward()
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
    optimizer = optimizer_of(model, {"deeplabv2_small": 0.02, "deeplabv3plus_small": 0.01}.get(arch, 2e-3))
    first = step(model, images, masks, optimizer)
    for _ in range(29):
        last = step(model, images, masks, optimizer)
    known = masks != 255
    right = (model.predict(images).argmax(1) == masks)[known].float().mean().item()
    # three seeds give 0.958 to 0.990; background everywhere gives 0.733
    assert last < 0.3 * first and right > 0.9, (first, last, right)


def test_enlarged_logits_lie_over_their_image():
    model = build_segmenter("deeplabv3plus_small", num_classes=2)
    ramp = torch.arange(9.0).expand(1, 2, 9, 9)  # cell i has its centre at pixel 4 i + 1.5
    out = model._enlarge(ramp, (33, 33))
    assert out.shape == (1, 2, 33, 33)
    torch.testing.assert_close(out[0, 0, 0, 2:30], (torch.arange(2.0, 30) - 1.5) / 4)


# ---- parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", [*SMALL, "deeplabv2"])
def test_every_trained_parameter_is_in_one_group(arch):
    with torch.device("meta"):
        model = build_segmenter(arch, num_classes=5)
    grouped = [id(p) for group in model.param_groups(0.1) for p in group["params"]]
    trained = [id(p) for p in model.parameters() if p.requires_grad]
    assert len(grouped) == len(set(grouped)) and set(grouped) == set(trained)


def test_rates_and_decay_of_the_families():
    v2 = build_segmenter("deeplabv2_small", num_classes=5).param_groups(0.1)
    assert [g["lr"] for g in v2] == pytest.approx([0.1, 1.0, 2.0])
    assert [g.get("weight_decay") for g in v2] == [None, None, 0.0]
    assert [p.ndim for p in v2[1]["params"]] == [4] * 4 and [p.ndim for p in v2[2]["params"]] == [1] * 4
    v3 = build_segmenter("deeplabv3plus_small", num_classes=5).param_groups(0.1)
    assert [g["lr"] for g in v3] == pytest.approx([0.1, 1.0])
    with torch.device("meta"):
        swin = build_segmenter("upernet_swin", num_classes=5)
    decayed, plain = swin.param_groups(6e-5)
    assert (decayed["lr"], plain["lr"], plain["weight_decay"]) == (6e-5, 6e-5, 0.0)
    names = {id(p): n for n, p in swin.named_parameters()}
    assert all(p.ndim > 1 for p in decayed["params"])
    assert not any("relative_position" in names[id(p)] for p in decayed["params"])
    assert any("relative_position" in names[id(p)] for p in plain["params"])
    optimizer = make_optimizer(v2, weight_decay=5e-4)
    assert [g["weight_decay"] for g in optimizer.param_groups] == [5e-4, 5e-4, 0.0]


# ---- DeepLabV2 ---------------------------------------------------------------------------------------------


def test_pyramid_is_the_sum_of_four_convolutions():
    torch.manual_seed(0)
    pyramid, x = AtrousPyramid(8, 3), torch.randn(2, 8, 11, 13)
    nn.init.normal_(pyramid["c2"].bias)
    by_hand = torch.zeros(2, 3, 11, 13)
    for rate, conv in zip((6, 12, 18, 24), pyramid.values()):
        padded = F.pad(x, (rate,) * 4)
        for i in range(3):
            for j in range(3):
                shifted = padded[:, :, i * rate : i * rate + 11, j * rate : j * rate + 13]
                by_hand += torch.einsum("kc,bchw->bkhw", conv.weight[:, :, i, j], shifted)
        by_hand += conv.bias[None, :, None, None]
    torch.testing.assert_close(pyramid(x), by_hand, rtol=1e-4, atol=1e-5)
    assert 0.008 < pyramid["c0"].weight.std() < 0.012 and (pyramid["c0"].bias == 0).all()


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("resnet101", (9, 13)),  # the first pooling rounds up
        ("resnet_small", (8, 12)),
        ("mobilenet_v2", (8, 12)),
        ("densenet121", (8, 12)),  # rounded up by the first pooling, down by the second
    ],
)
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
        model = build_segmenter("deeplabv2", num_classes=21)
        outputs = model.training_outputs(torch.zeros(1, 3, 321, 321))
    assert [tuple(o.shape[2:]) for o in outputs] == [(41, 41), (31, 31), (21, 21), (41, 41)]
    strides = [
        (m.kernel_size, n)
        for n, m in model.named_modules()
        if isinstance(m, nn.Conv2d) and m.stride == (2, 2)
    ]
    assert [n.removeprefix("net.backbone.body.") for _, n in strides] == [
        "stem.conv1", "layer2.0.conv1", "layer2.0.downsample.0",
    ]  # fmt: skip


def published_state(*, blocks=(3, 4, 6, 3), classes=5, msc=False, fc=False):
    """Random numbers under deeplab-pytorch's names; sizes such that activations stay near 1."""
    generator = torch.Generator().manual_seed(0)
    state = {}

    def unit(name, cin, cout, k, gain=1.0):
        weight = torch.randn(cout, cin, k, k, generator=generator) * (2 / (cin * k * k)) ** 0.5
        state[f"{name}.conv.weight"] = weight
        for leaf, low in (("weight", 0.5), ("running_var", 0.5), ("bias", -0.1), ("running_mean", -0.1)):
            values = low + torch.rand(cout, generator=generator) * (1.0 if low > 0 else 0.2)
            state[f"{name}.bn.{leaf}"] = values * (gain if leaf == "weight" else 1)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(0)

    unit("layer1.conv1", 3, 64, 7, gain=0.02)  # its input goes up to 150
    cin = 64
    for stage, (count, cout) in enumerate(zip(blocks, (256, 512, 1024, 2048)), start=2):
        for block in range(1, count + 1):
            name = f"layer{stage}.block{block}"
            unit(f"{name}.reduce", cin, cout // 4, 1)
            unit(f"{name}.conv3x3", cout // 4, cout // 4, 3)
            unit(f"{name}.increase", cout // 4, cout, 1, gain=0.3)
            if block == 1:
                unit(f"{name}.shortcut", cin, cout, 1, gain=0.7)
            cin = cout
    if fc:
        state |= {"fc.weight": torch.zeros(91, 2048, 1, 1), "fc.bias": torch.zeros(91)}
    else:
        for i in range(4):
            state[f"aspp.c{i}.weight"] = torch.randn(classes, 2048, 3, 3, generator=generator) * 0.01
            state[f"aspp.c{i}.bias"] = torch.randn(classes, generator=generator)
    return {f"base.{k}" if msc else k: v for k, v in state.items()}


def literal_deeplab(state, x, blocks=(3, 4, 6, 3)):
    """Logits of the published network, written out; `x` is blue, green, red minus the mean."""

    def unit(name, h, *, stride=1, padding=0, dilation=1, relu=True):
        h = F.conv2d(h, state[f"{name}.conv.weight"], None, stride, padding, dilation)
        mean, var, weight, bias = (
            state[f"{name}.bn.{leaf}"][:, None, None]
            for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        h = (h - mean) / torch.sqrt(var + 1e-5) * weight + bias
        return h.clamp(min=0) if relu else h

    h = unit("layer1.conv1", x, stride=2, padding=3)
    h = F.max_pool2d(h, 3, 2, 1, ceil_mode=True)
    for stage, count, first, dilation in zip((2, 3, 4, 5), blocks, (1, 2, 1, 1), (1, 1, 2, 4)):
        for block in range(1, count + 1):
            name, stride = f"layer{stage}.block{block}", first if block == 1 else 1
            inner = unit(f"{name}.reduce", h, stride=stride)
            inner = unit(f"{name}.conv3x3", inner, padding=dilation, dilation=dilation)
            inner = unit(f"{name}.increase", inner, relu=False)
            skip = unit(f"{name}.shortcut", h, stride=stride, relu=False) if block == 1 else h
            h = (inner + skip).clamp(min=0)
    return sum(
        F.conv2d(h, state[f"aspp.c{i}.weight"], state[f"aspp.c{i}.bias"], 1, rate, rate)
        for i, rate in enumerate((6, 12, 18, 24))
    )


def test_published_weights_give_the_published_numbers(tmp_path):
    state = published_state()
    torch.save({f"base.{k}": v for k, v in state.items()}, tmp_path / "v2.pth")
    model = build_segmenter("deeplabv2", num_classes=5, backbone="resnet50", weights=tmp_path / "v2.pth")
    assert model.head_loaded
    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (1, 3, 65, 49)).float()  # red, green, blue
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    theirs = literal_deeplab(state, pixels.flip(1) - torch.tensor([104.008, 116.669, 122.675]).view(3, 1, 1))
    with torch.no_grad():
        ours = model.net((pixels / 255 - mean) / std)
    assert ours.shape == (1, 5, 9, 7) and 0.1 < theirs.std() < 1e3
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max().item())


def test_pretrained_norms_are_fixed_in_full_and_others_are_not(tmp_path):
    torch.save(published_state(fc=True), tmp_path / "v1.pth")
    model = build_segmenter(
        "deeplabv2", num_classes=5, backbone="resnet50", weights=tmp_path / "v1.pth"
    ).train()
    assert not model.head_loaded  # DeepLabV1 has another last layer
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(m.training or m.weight.requires_grad or m.bias.requires_grad for m in norms)
    assert {p.ndim for p in model.param_groups(0.1)[0]["params"]} == {4}
    scratch = build_segmenter("deeplabv2_small", num_classes=5).train()
    norms = [m for m in scratch.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(m.training and m.weight.requires_grad for m in norms)


def test_norms_of_a_pretrained_encoder_can_be_fixed(tmp_path):
    torch.manual_seed(0)
    encoder = build_segmenter("deeplabv3plus", num_classes=3, backbone="mobilenet_v2").net.encoder
    save_file({k: v.clone() for k, v in encoder.state_dict().items()}, tmp_path / "e.safetensors")
    with pytest.raises(SettingsError, match="fixed_norm .* give weights"):
        build_segmenter("deeplabv3plus", num_classes=3, backbone="mobilenet_v2", fixed_norm=True)
    for fixed in (True, False):
        model = build_segmenter(
            "deeplabv3plus", num_classes=3, backbone="mobilenet_v2", weights=tmp_path / "e.safetensors",
            fixed_norm=fixed,
        ).train()  # fmt: skip
        before = {k: v.clone() for k, v in model.state_dict().items() if "running_mean" in k}
        model.training_outputs(torch.randn(2, 3, 64, 64))
        moved = {k for k, v in model.state_dict().items() if k in before and not torch.equal(v, before[k])}
        assert any("decoder" in k for k in moved)
        assert any("encoder" in k for k in moved) != fixed


def test_published_names_map_one_to_one():
    state = published_state(blocks=(3, 4, 23, 3), msc=True)
    converted = convert_published({f"module.{k}": v for k, v in state.items()})
    with torch.device("meta"):
        wanted = DeepLabV2(build_backbone("resnet101", output_stride=8), 5).state_dict()
    assert {k: v.shape for k, v in converted.items()} == {k: v.shape for k, v in wanted.items()}


def test_wrong_published_keys_are_named(tmp_path):
    build = {"num_classes": 5, "backbone": "resnet50", "weights": tmp_path / "w.pth"}
    state = published_state()
    torch.save({k: v for k, v in state.items() if k != "layer3.block2.conv3x3.bn.bias"}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"lacks backbone\.body\.layer2\.1\.bn2\.bias"):
        build_segmenter("deeplabv2", **build)
    torch.save({**state, "layer3.block2.widen.conv.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"no place for layer3\.block2\.widen\.conv\.weight"):
        build_segmenter("deeplabv2", **build)
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"lacks backbone\.body\.layer3\.6"):  # 6 blocks, not 23
        build_segmenter("deeplabv2", **{**build, "backbone": "resnet101"})
    other = build_segmenter("deeplabv2", **{**build, "num_classes": 7})
    assert not other.head_loaded and other.net.aspp["c0"].weight.shape[0] == 7


# ---- weights of the other layouts --------------------------------------------------------------------------


def test_torchvision_weights_reach_the_backbone(tmp_path):
    theirs = torchvision.models.resnet50(weights=None)
    save_file(theirs.state_dict(), tmp_path / "r.safetensors")
    for arch, body in (("deeplabv2", "net.backbone.body."), ("deeplabv3plus", "net.encoder.")):
        model = build_segmenter(arch, num_classes=3, backbone="resnet50", weights=tmp_path / "r.safetensors")
        ours = model.state_dict()
        torch.testing.assert_close(ours[f"{body}layer4.2.conv3.weight"], theirs.layer4[2].conv3.weight)
        assert not model.head_loaded


def test_timm_weights_reach_the_encoder(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False)
    state = {k: v for k, v in theirs.state_dict().items() if "attn_mask" not in k}
    save_file(state, tmp_path / "swin.safetensors")
    monkeypatch.setenv("RECAM_WEIGHTS", str(tmp_path))
    options = {"num_classes": 3, "backbone": SWIN, "weights": "swin"}
    ours = build_segmenter("upernet_swin", **options).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens = theirs.eval().layers[:3](theirs.patch_embed(x))  # the last stage shifts no windows there
        torch.testing.assert_close(ours.net.encoder(x)[-2], tokens.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)
    save_file(
        {k: v for k, v in state.items() if "layers.1.blocks.0.mlp" not in k}, tmp_path / "swin.safetensors"
    )
    with pytest.raises(WeightsError, match=r"lacks layers_1\.blocks\.0\.mlp"):
        build_segmenter("upernet_swin", **options)


@pytest.mark.parametrize("arch", SMALL)
def test_saved_network_comes_back(arch, tmp_path):
    torch.manual_seed(0)
    model = build_segmenter(arch, num_classes=3)
    path = tmp_path / "mine.safetensors"
    save_file(model.state_dict(), path)
    again = build_segmenter(arch, num_classes=3, weights=path)
    x = torch.randn(1, 3, 40, 40)
    assert again.head_loaded
    torch.testing.assert_close(again.predict(x), model.predict(x))
    assert not build_segmenter(arch, num_classes=4, weights=path).head_loaded
    state = dict(model.state_dict())
    name = next(k for k, v in state.items() if v.ndim == 4)
    save_file({k: v for k, v in state.items() if k != name}, path)
    with pytest.raises(WeightsError, match=re.escape(name.removeprefix("net."))):
        build_segmenter(arch, num_classes=3, weights=path)


# ---- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arch", "options", "error", "message"),
    [
        ("deeplab2", {}, SettingsError, "did you mean 'deeplabv2'"),
        ("deeplabv2_small", {"num_classes": 1}, SettingsError, "expected at least a background"),
        ("deeplabv2", {"backbone": "resnet5"}, SettingsError, "did you mean 'resnet50'"),
        ("deeplabv3plus", {"backbone": "resnet5"}, SettingsError, "did you mean 'resnet50'"),
        ("upernet_swin", {"backbone": SWIN[:-1]}, SettingsError, "did you mean 'swin_"),
        ("deeplabv3plus", {"backbone": SWIN}, SettingsError, "cannot be built"),
        ("upernet_small", {"weights": "imagenet"}, WeightsError, "no 'imagenet' weights: use 'scenes'"),
        ("deeplabv2_small", {"weights": "imagenet"}, WeightsError, "no 'imagenet' weights: use 'scenes'"),
        ("deeplabv2", {"weights": "scenes"}, WeightsError, "has no 'scenes' weights: use 'imagenet'"),
        ("upernet_swin", {"weights": "scenes"}, WeightsError, "has no 'scenes' weights: use 'imagenet'"),
        ("deeplabv2", {"weights": "coco"}, WeightsError, "no weights file .*coco"),
        ("deeplabv2", {"backbone": "squeezenet1_1"}, SettingsError, "take a ResNet"),
    ],
)
def test_mistakes_name_the_way_out(arch, options, error, message):
    with pytest.raises(error, match=message):
        build_segmenter(arch, **{"num_classes": 3, **options})


@pytest.mark.parametrize("arch", SMALL)
def test_images_that_are_none(arch):
    model = build_segmenter(arch, num_classes=3)
    for shape in ((3, 32, 32), (1, 4, 32, 32)):
        with pytest.raises(DataError, match=r"expected \(images, 3, height, width\)"):
            model(torch.zeros(shape))
    if arch != "deeplabv2_small":
        with pytest.raises(DataError, match="a batch of 2 or more"):
            model.train()(torch.zeros(1, 3, 32, 32))
