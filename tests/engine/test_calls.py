"""Images, classes and scales that are easily mixed up are refused before a network runs."""

import pytest
import torch

from recamlib.engine.advcam import adversarial_maps
from recamlib.engine.extract import extract_scale_maps, image_features
from recamlib.engine.predict import segment_image
from recamlib.errors import DataError, SettingsError
from recamlib.models.backbones import build_backbone
from recamlib.models.classifier import CamClassifier

IMAGE = (torch.rand(3, 40, 50, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def model() -> CamClassifier:
    torch.manual_seed(0)
    return CamClassifier(build_backbone("resnet_small"), 3).eval()


def extract(model, image, classes, **more):
    options = {"scales": (1.0,)} | more
    return extract_scale_maps(model, [image], model.fc1.weight[None], classes=[classes], **options)


def move(model, image, classes, **more):
    options = {"scales": (1.0,), "steps": 2} | more
    return adversarial_maps(model, [image], model.fc1.weight, classes=[classes], **options)


@pytest.mark.parametrize("run", [extract, move])
@pytest.mark.parametrize("image, classes, message", [
    (IMAGE / 255, [0], r"image 0 is torch\.float32 .* by 255"),
    (IMAGE.permute(1, 2, 0), [0], r"of shape \(40, 50, 3\)"), (IMAGE[:1], [0], r"of shape \(1, 40, 50\)"),
    (IMAGE[None], [0], r"of shape \(1, 3, 40, 50\)"),
    (IMAGE, torch.tensor([1, 0, 1]), "each once: of multi-hot labels take labels.nonzero"),
    (IMAGE, torch.tensor([True, False, True]), "multi-hot"),
    (IMAGE, torch.tensor([0.0, 2.0]), "expected indices"),
    (IMAGE, torch.tensor([-1]), "indices from 0 to 2"), (IMAGE, [3], "indices from 0 to 2"),
    (IMAGE, torch.tensor([[0, 1]]), "expected indices"),
])  # fmt: skip
def test_images_and_classes(model, run, image, classes, message):
    with pytest.raises(DataError, match=message):
        run(model, image, classes)


@pytest.mark.parametrize("run", [extract, move])
@pytest.mark.parametrize("more, message", [
    ({"scales": (0.0,)}, "must be numbers above 0"), ({"scales": (1.0, -1.0)}, "must be numbers above 0"),
    ({"scales": (float("nan"),)}, "must be numbers above 0"), ({"scales": ()}, "at least one"),
    ({"precision": "bf16"}, "did you mean 'bf16-mixed'"),
])  # fmt: skip
def test_scales_and_precision(model, run, more, message):
    with pytest.raises(SettingsError, match=message):
        run(model, IMAGE, [0], **more)


def test_other_ways_into_a_network(model):
    with pytest.raises(DataError, match="image 0 is"):
        image_features(model.backbone, [IMAGE / 255])
    with pytest.raises(DataError, match="image 0 is"):
        segment_image(lambda x: x, IMAGE / 255)
    with pytest.raises(SettingsError, match="above 0"):
        segment_image(lambda x: x, IMAGE, scales=(0.0,))
    with pytest.raises(DataError, match=r"weights \(1, 3, 7\)"):
        extract_scale_maps(model, [IMAGE], torch.ones(1, 3, 7), classes=[[0]])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_advcam_makes_its_own_gradients(model, mode):
    expected = move(model, IMAGE, [0, 2])[0][0]
    with mode():
        again = move(model, IMAGE, [0, 2])[0][0]
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(again, expected, rtol=0, atol=0)
