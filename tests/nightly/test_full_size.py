"""Networks and images of full size: built, run and trained for a step."""

import pytest
import torch
from PIL import Image

from recamlib.data.images import read_image
from recamlib.method.losses import multiscale_loss
from recamlib.models.backbones import build_backbone
from recamlib.models.segmenters import build_segmenter

SWIN = "timm/swin_tiny_patch4_window7_224"


def test_eight_thousand_pixels_square(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (8000, 8000), 9).save(path, compress_level=1)
    image = read_image(path)
    assert image.shape == (3, 8000, 8000) and int(image[2, -1, -1]) == 9


@pytest.mark.parametrize(("name", "stride"), [("timm/vit_small_patch14_reg4_dinov2", 14), (SWIN, 32)])
def test_a_transformer_takes_any_size_and_its_mirror_image(name, stride):
    backbone = build_backbone(name, output_stride=stride).eval()
    for height, width in ((96, 96), (97, 131), (33, 200)):
        x = torch.randn(2, 3, height, width)
        with torch.inference_mode():
            shapes = {backbone(view).shape for view in (x, x.flip(3))}
        assert shapes == {(2, backbone.channels, -(-height // stride), -(-width // stride))}


@pytest.mark.parametrize("arch", ["deeplabv2", "deeplabv3plus", "upernet_swin"])
def test_full_size_trains_and_predicts(arch):
    torch.manual_seed(0)
    model = build_segmenter(arch, num_classes=21, backbone=SWIN if "swin" in arch else None)
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
