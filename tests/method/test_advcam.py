"""AdvCAM against the published loop, and its rules on sizes one can check by hand."""

import literal_advcam
import pytest
import torch
from golden import off
from torch import nn

from recamlib.engine import advcam
from recamlib.engine.advcam import adversarial_maps
from recamlib.engine.extract import extract_scale_maps
from recamlib.errors import RecamError
from recamlib.method.advcam import advcam_gain, advcam_step
from recamlib.method.maps import combine_weights, merge_scales


def smooth(height: int, width: int, *, seed: int) -> torch.Tensor:
    rough = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return (255 * nn.functional.interpolate(rough, (height, width), mode="bilinear")[0]).byte()


@pytest.fixture
def image() -> torch.Tensor:
    return smooth(50, 70, seed=1)


@pytest.fixture
def weight(model) -> torch.Tensor:
    other = torch.randn(4, 160, generator=torch.Generator().manual_seed(5))
    return combine_weights(model.fc1.weight.detach(), other, "w+w'")


@pytest.mark.parametrize("settings", [
    {}, {"rivals": "present"}, {"score": "rectified"}, {"mu": 0.0, "mask_threshold": 0.2},
    {"penalty": "channels", "score": "rectified", "mu": 20.0}, {"scales": (1.0, 0.5, 1.5), "steps": 3},
], ids=str)  # fmt: skip
def test_maps_equal_the_published_loop(model, weight, settings):
    image = smooth(66, 90, seed=1)  # below 32 pixels, at scale 0.5 too, ours would be padded
    options = {"scales": (1.0,), "steps": 3, "step_size": 0.03} | settings
    theirs = literal_advcam.adversarial_maps(model, image, weight, classes=[0, 2, 3], **options)
    model.zero_grad()
    ours = adversarial_maps(model, [image], weight, classes=[torch.tensor([0, 2, 3])], **options)[0]
    assert [m.shape for m in ours] == [t.shape for t in theirs]
    assert [off(m, t) for m, t in zip(ours, theirs, strict=True) if off(m, t) > 1e-3] == []


def test_the_region_is_that_of_the_moved_image_and_nothing_is_held_without_activation():
    features = torch.tensor([[[[[4.0, 1.0, 3.0]]], [[[3.0, 1.0, 4.0]]]]])  # maps 8, 2, 6; 2 is not above 4
    weight, signs = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0, -1.0]])
    gain, maps = advcam_gain(features, weight, signs, torch.tensor([[[0.0, 9.0, 7.0]]]), mu=1)
    assert maps.tolist() == [[[8, 2, 6]]] and gain.item() == pytest.approx(-(8 + 1) / 3)
    by_channel, _ = advcam_gain(features, weight, signs, maps + 1, mu=1, penalty="channels")
    assert by_channel.item() == pytest.approx(-2 / 2)
    gain, maps = advcam_gain(-features, weight, torch.tensor([[1.0, 0.0]]), torch.ones(1, 1, 3), mu=1)
    assert maps.sum() == 0 and gain.item() == pytest.approx(-16 / 3)
    rectified = advcam_gain(-features, weight, torch.tensor([[1.0, 0.0]]), None, mu=1, score="rectified")
    assert rectified[0].item() == 0


def test_a_step_moves_by_the_step_size_at_most_and_each_pair_by_its_own_gradient():
    images, gradient = torch.zeros(2, 2, 3, 1, 1), torch.zeros(2, 2, 3, 1, 1)
    gradient[0, 0, 0], gradient[0, 1, 0] = 4, -2  # a pair shares its largest gradient
    gradient[1, 0, 0] = 100
    bounds = torch.full((2, 1, 1, 1, 1), 1.0)
    moved = advcam_step(images, gradient, -bounds, bounds, step_size=0.5)
    assert moved[0, 0, 0].item() == 0.5 and moved[0, 1, 0].item() == -0.25 and moved[1, 0, 0].item() == 0.5
    moved = advcam_step(images, gradient, -0.1 * bounds, 0.3 * bounds, step_size=0.5)
    assert moved.max().item() == pytest.approx(0.3) and moved.min().item() == pytest.approx(-0.1)
    assert torch.equal(advcam_step(images, torch.zeros_like(images), -bounds, bounds, step_size=1), images)


@pytest.mark.parametrize(("steps", "half"), [(1, 1), (2, 1), (3, 1), (5, 2), (27, 13)])
def test_the_half_scale_takes_half_and_counts_double(model, image, weight, monkeypatch, steps, half):
    options = {"classes": [torch.tensor([1])], "scales": (1.0, 0.5)}
    sides, plain = [], advcam.padded_features
    counted = lambda net, x, **more: sides.append(x.shape[2]) or plain(net, x, **more)  # noqa: E731
    monkeypatch.setattr(advcam, "padded_features", counted)
    ((whole, small),) = adversarial_maps(model, [image], weight, steps=steps, step_size=1e-7, **options)
    assert (sides.count(50), sides.count(25)) == (steps + 1, half + 1)
    still = extract_scale_maps(model, [image], weight[None], **options)[0]  # that step moves nothing
    assert off(whole, (steps + 1) * still[0][0]) < 1e-3 and off(small, 2 * (half + 1) * still[1][0]) < 1e-3


def test_the_model_comes_back_as_it_was(model, image, weight):
    model.zero_grad()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    options = {"classes": [torch.tensor([0])], "scales": (1.0,), "steps": 1}
    for training in (True, False):
        model.train(training)
        adversarial_maps(model, [image], weight, **options)
        assert all(m.training is training for m in model.modules())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    with pytest.raises(RecamError):
        adversarial_maps(model.train(), [image], weight * torch.nan, **options)
    assert model.training
    model.eval()


@pytest.mark.parametrize("pixels", [1, 2 * 2 * 50 * 70, 2**22])
def test_maps_depend_on_neither_order_nor_company(model, image, weight, monkeypatch, pixels):
    monkeypatch.setattr("recamlib.engine.extract.ON_CPU", pixels)
    options = {"scales": (1.0,), "steps": 3, "step_size": 0.03}
    other, turned = smooth(50, 70, seed=3), smooth(70, 50, seed=4)
    classes = [torch.tensor(c, dtype=torch.long) for c in ([3, 0, 2], [1], [], [2, 3])]
    many = adversarial_maps(model, [image, turned, other, other], weight, classes=classes, **options)
    for picture, present, maps in zip([image, turned, other, other], classes, many, strict=True):
        assert maps[0].dtype == torch.float32 and maps[0].device.type == "cpu"
        for k, m in zip(present, maps[0], strict=True):
            alone = adversarial_maps(model, [picture], weight, classes=[k[None]], **options)[0][0]
            assert off(m, alone[0]) < 1e-3
    many[0][0].add_(1)  # an ordinary tensor: a later step may change it in place


def test_no_class_and_no_activation(model, image, weight):
    maps = adversarial_maps(model, [image], weight, classes=[torch.tensor([])], steps=1)[0]
    assert [m.shape for m in maps] == [(0, 4, 5), (0, 2, 3), (0, 5, 7), (0, 7, 9)]
    assert merge_scales(maps, (50, 70)).shape == (0, 50, 70)
    assert adversarial_maps(model, [], weight, classes=[]) == []
    negative = -weight.abs()  # features are not negative: no pixel speaks for any class
    maps = adversarial_maps(model, [image], negative, classes=[torch.tensor([1])], scales=(1.0,), steps=2)[0]
    assert maps[0].isfinite().all() and maps[0].max() == 0


@pytest.mark.parametrize("change, message", [
    ({"steps": 0}, "steps is 0"), ({"step_size": 0.0}, "step_size 0.0"), ({"mu": -1.0}, "mu -1.0"),
    ({"mask_threshold": 1.0}, "mask_threshold 1.0"),
    ({"mask_threshold": float("nan")}, "mask_threshold nan"),
    ({"rivals": "presents"}, "did you mean 'present'"), ({"score": "logit"}, "unknown score 'logit'"),
    ({"penalty": "mean"}, "unknown penalty 'mean'"),
    ({"weight": torch.ones(1, 4, 160)}, r"weight \(1, 4, 160\)"),
    ({"weight": torch.ones(4, 160) * torch.inf}, "gradient for class 2 of image 0, scale 1.0 is not finite"),
])  # fmt: skip
def test_what_is_out_of_range_or_does_not_fit_is_named(model, image, weight, change, message):
    options = {"classes": [torch.tensor([2])], "scales": (1.0,), "rivals": "present", "weight": weight}
    with pytest.raises(RecamError, match=message):
        adversarial_maps(model, [image], **(options | change))
