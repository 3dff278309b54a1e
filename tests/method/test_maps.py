"""Map equations against published numbers and literal formulas; extraction against a plain loop."""

import pytest
import torch
from golden import golden, off

from recamlib.data.views import normalise, rescale
from recamlib.engine.extract import extract_scale_maps
from recamlib.errors import SettingsError
from recamlib.method.losses import bce_loss, reactivation_loss
from recamlib.method.maps import OPTIONS, class_activation_maps, class_features, combine_weights, merge_scales
from recamlib.models.backbones import build_backbone
from recamlib.models.classifier import CamClassifier


def test_scale_merge_and_reactivation_with_its_gradients_match_the_published_code():
    z = golden("multiscale_merge")
    scales, size = [z[f"scale{i}"][z["present"]] for i in range(4)], tuple(z["size"].tolist())
    assert off(merge_scales(scales, size, stride=4), z["strided"]) < 1e-5
    assert off(merge_scales(scales, size), z["full"]) < 1e-5
    z = golden("reactivation")
    features, fc1, fc2 = (z[k].clone().requires_grad_() for k in ("features", "fc1", "fc2"))
    logits = features.mean((2, 3)) @ fc1.T
    maps = class_activation_maps(features, fc1)
    pooled = class_features(features, maps)
    bce = bce_loss(logits, z["labels"])
    sce = reactivation_loss(pooled, z["labels"], classifier=lambda f: f @ fc2.T)
    total = bce + z["sce_weight"].item() * sce
    total.backward()
    ours = {
        "logits": logits, "maps": maps, "class_features": pooled, "bce": bce, "sce": sce, "total": total,
        "grad_features": features.grad, "grad_fc1": fc1.grad, "grad_fc2": fc2.grad,
    }  # fmt: skip
    assert {k: off(v.detach(), z[k]) for k, v in ours.items() if off(v.detach(), z[k]) > 1e-5} == {}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_class_features_equal_the_literal_product(memory_format):
    torch.manual_seed(0)
    f = torch.rand(2, 7, 5, 6, dtype=torch.float64).to(memory_format=memory_format)
    m = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    grads = []
    for form in (class_features, lambda f, m: (f[:, None] * m[:, :, None]).mean((3, 4))):
        f_, m_ = f.clone().requires_grad_(), m.clone().requires_grad_()
        out = form(f_, m_)
        (out * torch.arange(7)).square().sum().backward()
        grads.append((out, f_.grad, m_.grad))
    for ours, literal in zip(*grads, strict=True):
        torch.testing.assert_close(ours, literal)


def test_combine_weights_names_the_options():
    a, b = torch.full((2, 3), 2.0), torch.full((2, 3), 5.0)
    assert [combine_weights(a, b, o)[0, 0].item() for o in OPTIONS] == [2, 5, 7, 10]
    with pytest.raises(SettingsError, match=r"unknown weight option 'w-w'"):
        combine_weights(a, b, "w-w")
    a, b = torch.tensor([[2.0, -2.0, -2.0]]), torch.tensor([[3.0, -3.0, 3.0]])
    assert combine_weights(a, None, "relu(w)").tolist() == [[2, 0, 0]]
    assert combine_weights(a, None, "w*w").tolist() == [[4, 4, 4]]
    assert combine_weights(a, b, "w*w'").tolist() == [[6, 6, -6]]  # two negative weights count for the class
    assert combine_weights(a, b, "relu(w)*relu(w')").tolist() == [[6, 0, 0]]  # here they do not
    one, two = (combine_weights(torch.ones(2, 400), None, "w*random", seed=s) for s in (0, 1))
    assert one.equal(combine_weights(torch.ones(2, 400), None, "w*random")) and not one.equal(two)
    assert one.abs().max() <= 400**-0.5 and abs(one.mean()) < 0.005
    with pytest.raises(SettingsError, match="needs w', the weights of FC2"):
        combine_weights(a, None, "w+w'")


def plain_loop(model, image, weights, classes, scales):
    """One image, one mirror image, one scale, one weight option at a time."""
    out = []
    for scale in scales:
        x = normalise(rescale(image, scale))[None]
        both = []
        for view in (x, x.flip(3)):
            with torch.no_grad():
                f = model.features(view)
            both.append(torch.relu(torch.einsum("nkc,chw->nkhw", weights, f[0])))
        out.append((both[0] + both[1].flip(3))[:, classes])
    return out


def test_extraction_equals_one_image_at_a_time(model, monkeypatch):
    monkeypatch.setattr("recamlib.engine.extract.ON_CPU", 2 * 2 * 50 * 70)
    g = torch.Generator().manual_seed(1)
    sizes = [(50, 70), (70, 50), (50, 70), (50, 70), (33, 47)]
    images = [torch.randint(0, 256, (3, *s), generator=g, dtype=torch.uint8) for s in sizes]
    classes = [torch.tensor(c, dtype=torch.long) for c in ([0], [1, 3], [], [2, 0], [0, 1, 2, 3])]
    weights = torch.randn(3, 4, 160, generator=g)
    scales = (1.0, 1.5)
    ours = extract_scale_maps(model, images, weights, classes=classes, scales=scales)
    assert not model.training
    for maps, image, present in zip(ours, images, classes, strict=True):
        expected = plain_loop(model, image, weights, present, scales)
        assert [m.shape for m in maps] == [e.shape for e in expected]
        for m, e in zip(maps, expected, strict=True):
            assert m.dtype == torch.float32 and m.device.type == "cpu"
            if len(present):
                assert off(m, e) < 1e-4
    ours[0][0].add_(1)  # ordinary tensors: a later step may change them in place
    none = [m[0] for m in ours[2]]  # no class is present
    assert merge_scales(none, (50, 70), stride=5).shape == (0, 10, 14)
    assert merge_scales(none, (50, 70)).shape == (0, 50, 70)
    assert extract_scale_maps(model, [], weights, classes=[]) == []


@pytest.mark.parametrize("name, size", [
    ("resnet_small", (1, 1)), ("squeezenet1_1", (1, 90)), ("mobilenet_v2", (33, 1)), ("densenet121", (1, 1)),
    ("resnet_small", (4, 2500)),  # shrunk before the network
])  # fmt: skip
def test_extraction_of_slivers(name, size):
    torch.manual_seed(0)
    model = CamClassifier(build_backbone(name), 2)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    weights = torch.rand(1, 2, model.backbone.channels)
    maps = extract_scale_maps(model, [image], weights, classes=[torch.tensor([0, 1])], scales=(1.0, 0.5))[0]
    assert all(m.shape[:2] == (1, 2) and min(m.shape[2:]) == 1 and m.isfinite().all() for m in maps)
    merged = merge_scales([m[0] for m in maps], size)
    assert merged.shape == (2, *size) and merged.isfinite().all()


