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


@pytest.mark.parametrize("arch", SMALL)
def test_any_image_size(arch):
    torch.manual_seed(0)
    model = build_segmenter(arch, num_classes=4)
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
    rate, kind = {"deeplabv2_small": (0.02, "sgd"), "deeplabv3plus_small": (0.01, "sgd")}.get(
        arch, (2e-3, "adamw")
    )
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
    ("resnet_small", (8, 12)),
    ("mobilenet_v2", (8, 12)),
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
        model = build_segmenter("deeplabv2", num_classes=21)
        outputs = model.training_outputs(torch.zeros(1, 3, 321, 321))
    assert [tuple(o.shape[2:]) for o in outputs] == [(41, 41), (31, 31), (21, 21), (41, 41)]
    convs = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    strided = [n.removeprefix("net.backbone.body.") for n, m in convs.items() if m.stride == (2, 2)]
    assert strided == ["stem.conv1", "layer2.0.conv1", "layer2.0.downsample.0"]


BLOCKS = (3, 4, 6, 3)  # of ResNet-50


def published_state(*, fc=False):
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
    for stage, (count, cout) in enumerate(zip(BLOCKS, (256, 512, 1024, 2048)), start=2):
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
            state[f"aspp.c{i}.weight"] = torch.randn(5, 2048, 3, 3, generator=generator) * 0.01
            state[f"aspp.c{i}.bias"] = torch.randn(5, generator=generator)
    return state


def literal_deeplab(state, x):
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
    for stage, count, first, dilation in zip((2, 3, 4, 5), BLOCKS, (1, 2, 1, 1), (1, 1, 2, 4)):
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
    state = published_state()
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


def test_torchvision_weights_reach_the_backbone(tmp_path):
    theirs = torchvision.models.resnet50(weights=None)
    save_file(theirs.state_dict(), tmp_path / "r.safetensors")
    for arch, body in (("deeplabv2", "net.backbone.body."), ("deeplabv3plus", "net.encoder.")):
        model = build_segmenter(arch, num_classes=3, backbone="resnet50", weights=tmp_path / "r.safetensors")
        ours = model.state_dict()
        torch.testing.assert_close(ours[f"{body}layer4.2.conv3.weight"], theirs.layer4[2].conv3.weight)
        assert not model.head_loaded


def test_timm_weights_reach_the_encoder(tmp_path):
    theirs = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False).eval()
    save_file(
        {k: v for k, v in theirs.state_dict().items() if "attn_mask" not in k}, tmp_path / "w.safetensors"
    )
    options = {"num_classes": 3, "backbone": SWIN, "weights": tmp_path / "w.safetensors"}
    ours, x = build_segmenter("upernet_swin", **options).eval(), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        tokens = theirs.layers[:3](theirs.patch_embed(x))  # the last stage shifts no windows there
        torch.testing.assert_close(ours.net.encoder(x)[-2], tokens.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", SMALL)
def test_saved_network_comes_back(arch, tmp_path):
    torch.manual_seed(0)
    model, path = build_segmenter(arch, num_classes=3), tmp_path / "mine.safetensors"
    save_file(model.state_dict(), path)
    again, x = build_segmenter(arch, num_classes=3, weights=path), torch.randn(1, 3, 40, 40)
    assert again.head_loaded
    torch.testing.assert_close(again.predict(x), model.predict(x))
    assert not build_segmenter(arch, num_classes=4, weights=path).head_loaded
    with pytest.raises(DataError, match=r"expected \(images, 3, height, width\)"):
        model(torch.zeros(1, 4, 32, 32))


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
