"""Images, classes and scales that are easily mixed up are refused before a network runs."""

import math

import pytest
import torch

from recamlib.engine.advcam import adversarial_maps
from recamlib.engine.extract import extract_scale_maps, image_features
from recamlib.engine.predict import segment_image
from recamlib.errors import DataError, SettingsError

IMAGE = (torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)


def extract(model, image, classes, scales=(1.0,), **more):
    weights = model.fc1.weight[None]
    return extract_scale_maps(model, [image], weights, classes=[classes], scales=scales, **more)


def move(model, image, classes, scales=(1.0,), **more):
    more |= {"classes": [classes], "scales": scales, "steps": 2}
    return adversarial_maps(model, [image], model.fc1.weight, **more)


@pytest.mark.parametrize("run", [extract, move])
@pytest.mark.parametrize("change, error, message", [
    ({"image": IMAGE / 255}, DataError, r"image 0 is torch\.float32 .* by 255"),
    ({"image": IMAGE.permute(1, 2, 0)}, DataError, r"of shape \(40, 50, 3\)"),
    ({"image": IMAGE[:1]}, DataError, r"of shape \(1, 40, 50\)"),
    ({"classes": torch.tensor([1, 0, 1])}, DataError, "each once: of multi-hot labels take labels.nonzero"),
    ({"classes": torch.tensor([True, False, True])}, DataError, "multi-hot"),
    ({"classes": torch.tensor([0.0, 2.0])}, DataError, "expected indices"),
    ({"classes": torch.tensor([-1])}, DataError, "indices from 0 to 3"),
    ({"classes": [4]}, DataError, "indices from 0 to 3"),
    ({"classes": torch.tensor([[0, 1]])}, DataError, "expected indices"),
    *(({"scales": s}, SettingsError, "must be numbers above 0") for s in ((0.0,), (1.0, -1.0), (math.nan,))),
    ({"scales": ()}, SettingsError, "at least one"),
    ({"precision": "bf16"}, SettingsError, "did you mean 'bf16-mixed'"),
])  # fmt: skip
def test_what_is_mixed_up_is_refused(model, run, change, error, message):
    with pytest.raises(error, match=message):
        run(model, **({"image": IMAGE, "classes": [0]} | change))


def test_other_ways_into_a_network(model):
    for call, message in (
        (lambda: image_features(model.backbone, [IMAGE / 255]), "image 0 is"),
        (lambda: segment_image(lambda x: x, IMAGE / 255), "image 0 is"),
        (lambda: segment_image(lambda x: x, IMAGE, scales=(0.0,)), "above 0"),
        (lambda: extract_scale_maps(model, [IMAGE], torch.ones(1, 4, 7), classes=[[0]]), r"\(1, 4, 7\)"),
    ):
        with pytest.raises((DataError, SettingsError), match=message):
            call()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_advcam_makes_its_own_gradients(model, mode):
    expected = move(model, IMAGE, [0, 2])[0][0]
    with mode():
        again = move(model, IMAGE, [0, 2])[0][0]
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(again, expected, rtol=0, atol=0)
