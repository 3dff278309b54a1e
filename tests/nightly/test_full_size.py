"""Networks and images of full size: built, run and trained for a step."""

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import recamlib as rc
from recamlib.data.images import read_image
from recamlib.data.views import normalise
from recamlib.method.losses import bce_loss, multiscale_loss
from recamlib.models.backbones import build_backbone
from recamlib.models.classifier import CamClassifier
from recamlib.models.segmenters import build_segmenter
from recamlib.models.transformers import SCRATCH

DINO = "timm/vit_small_patch14_reg4_dinov2"
SWIN = "timm/swin_tiny_patch4_window7_224"
CLASSES = ("zebra", "cow", "giraffe")


def test_eight_thousand_pixels_square(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (8000, 8000), 9).save(path, compress_level=1)
    image = read_image(path)
    assert image.shape == (3, 8000, 8000)
    assert int(image[2, -1, -1]) == 9


@pytest.mark.parametrize(("name", "stride"), [(DINO, 14), (SWIN, 32)])
def test_a_transformer_takes_any_size_and_its_mirror_image(name, stride):
    backbone = build_backbone(name, output_stride=stride).eval()
    for height, width in ((96, 96), (97, 131), (33, 200)):
        x = torch.randn(2, 3, height, width)
        with torch.inference_mode():
            features, mirrored = backbone(x), backbone(x.flip(3))
        assert features.shape == (2, backbone.channels, -(-height // stride), -(-width // stride))
        assert mirrored.shape == features.shape


@pytest.mark.parametrize(
    ("arch", "backbone"),
    [("deeplabv2", None), ("deeplabv3plus", None), ("upernet_swin", SWIN)],
)
def test_full_size_trains_and_predicts(arch, backbone):
    torch.manual_seed(0)
    model = build_segmenter(arch, num_classes=21, backbone=backbone)
    images, masks = torch.randn(2, 3, 64, 64), torch.randint(0, 21, (2, 64, 64), dtype=torch.uint8)
    masks[:, :8] = 255
    optimizer = torch.optim.AdamW(model.param_groups(1e-4), weight_decay=0.01)
    before = [p.clone() for p in model.parameters()]
    loss = multiscale_loss(model.train().training_outputs(images), masks, at=model.loss_at)
    assert loss.isfinite()
    loss.backward()
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, model.parameters())]
    assert sum(moved) > 0.95 * len(moved)  # some biases before a normalisation have no gradient
    logits = model.predict(torch.randn(1, 3, 33, 47))
    assert logits.shape == (1, 21, 33, 47) and logits.isfinite().all()


@pytest.mark.parametrize("name", SCRATCH)
def test_an_object_in_the_left_half_lights_the_left_half(name):
    """Two scenes side by side, put together anew in every step: where is the map of each one's class?"""
    images = rc.DataSettings(train_count=40, size=48, classes=CLASSES, single_label=True).images("train")
    x = normalise(torch.stack([images.image(i) for i in images.ids]))  # (N, 3, 40, 48), one animal each
    own = torch.tensor(images.label_matrix()).argmax(1)
    others = [(own != k).nonzero()[:, 0] for k in own]
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)

    def pairs(count):
        left = torch.randint(len(x), (count,), generator=generator)
        right = torch.stack([others[i][torch.randint(len(others[i]), (), generator=generator)] for i in left])
        return torch.cat([x[left], x[right]], 3), own[left], own[right]

    model = CamClassifier(build_backbone(name), len(CLASSES)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    for step in range(150):
        images, left, right = pairs(12)
        loss = bce_loss(model(images), F.one_hot(left, 3) + F.one_hot(right, 3))
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / 150)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, left, right = pairs(100)
    with torch.inference_mode():
        maps = F.relu(torch.einsum("kc,bchw->bkhw", model.fc1.weight, model.eval().features(images)))

    def found(maps):
        halves = torch.stack([half.mean((2, 3)) for half in maps.chunk(2, dim=3)], 2)  # (B, K, 2)
        each = torch.arange(len(left))
        return torch.cat([halves[each, left].argmax(1) == 0, halves[each, right].argmax(1) == 1])

    assert found(maps).float().mean() > 0.8
    assert found(maps.flip(3)).float().mean() < 0.2  # and a network that swaps the sides would be noticed
