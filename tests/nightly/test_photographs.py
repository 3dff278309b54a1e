"""Real photographs and pre-trained weights, where ``RECAM_DATA`` and ``RECAM_WEIGHTS`` name them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file

import recamlib as rc
from recamlib.data.access import open_images
from recamlib.data.labels import VOC12
from recamlib.errors import DataError
from recamlib.models.backbones import build_backbone
from recamlib.models.weights import find_weights
from tests.data.devkits import both
from tests.stages import chain

DATA = Path(os.environ.get("RECAM_DATA", ""))
THERE = os.environ.get("RECAM_DATA") and os.environ.get("RECAM_WEIGHTS")
pytestmark = [
    pytest.mark.skipif(not THERE, reason="needs RECAM_DATA with a VOC devkit and RECAM_WEIGHTS"),
    pytest.mark.usefixtures("results"),
]


@pytest.mark.parametrize("name", ["densenet169", "mobilenet_v2", "squeezenet1_1"])
def test_real_weights_load(name):
    backbone = build_backbone(name, weights=f"{name}_imagenet").eval()
    with torch.inference_mode():
        features = backbone(torch.zeros(1, 3, 64, 64))
    assert features.isfinite().all() and features.max() > 0


def test_real_features_tell_an_aeroplane():
    photographs = open_images("voc12", "train", root=DATA)
    alone = VOC12.encode(["aeroplane"])
    found = [id for id in photographs.ids if (photographs.labels(id) == alone).all()][:6]
    state = load_file(find_weights("mobilenet_v2_imagenet"))
    backbone = build_backbone("mobilenet_v2", output_stride=32, weights="mobilenet_v2_imagenet").eval()
    prepare = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms()
    images = torch.stack([prepare(photographs.image(id)) for id in found])
    with torch.inference_mode():
        features = backbone(images)
    assert features.min() >= 0 and features.max() <= 6  # ends in ReLU6
    scores = features.mean((2, 3)) @ state["classifier.1.weight"].float().T
    flying = {404, 895, 908}  # ImageNet's airliner, warplane and wing
    assert sum(s.argmax().item() in flying for s in scores) >= 4


@pytest.mark.parametrize("name", ["voc12", "coco14"])
def test_masks_are_those_of_the_labels(name):
    try:
        images, masks = both(name, "train", root=DATA)
    except DataError as error:
        pytest.skip(str(error))
    assert images.label_matrix().any(axis=1).all()
    for id in images.ids[:: max(1, len(images) // 20)]:
        mask = masks.mask(id)
        assert images.image(id).shape == (3, *mask.shape)
        assert set(np.unique(mask)) - {0, 255} <= {k + 1 for k in np.flatnonzero(images.labels(id))}


def classifier(limit: int, **more) -> rc.TrainClassifier:
    data, name = rc.DataSettings(name="voc12", limit=limit), "mobilenet_v2"
    assert data.fingerprint
    return chain.classifier(dataset=data, backbone=name, weights=f"{name}_imagenet", lr=0.001, **more)


def test_photographs_go_from_classifier_to_score():
    model = rc.Reactivate(base=classifier(8, precision="bf16-mixed"), epochs=1, batch_size=4)
    maps = rc.ExtractCams(model=model, weights="w*w'", scales=(0.5,))
    result, merged = (rc.Score(of=stage, split="train") for stage in (maps, rc.SaliencyMerge(cams=maps)))
    assert 0 < result.miou < 100 and 0 < merged.miou < 100 and maps.fixed_threshold == 0.21
    assert len(result.per_class()) == len(model.dataset.images("train").space) + 1
    found = rc.SaliencyScore(dataset=model.dataset)
    assert 0 < found.miou < 100 and 0 < found.result["share"] < 1


def test_photographs_go_through_refinement():
    maps = rc.AdvCams(model=classifier(6), scales=(0.5,), steps=2)
    net = rc.TrainBoundary(cams=maps, epochs=1, batch_size=2, crop=128, crf=False)
    assert 0 < rc.Score(of=rc.Walk(cams=maps, boundary=net, power=1.5, steps=16), split="train").miou < 100
