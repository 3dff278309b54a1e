"""Transformers as backbones: shape, orientation, size independence, checkpointing, weights, whole stages."""

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import recamlib as rc
from recamlib.engine.advcam import adversarial_maps
from recamlib.models.backbones import build_backbone
from recamlib.models.base import freeze_batch_norm, freeze_stem
from recamlib.models.classifier import CamClassifier
from recamlib.models.transformers import SCRATCH


@pytest.mark.parametrize("name", [*SCRATCH, "timm/vit_tiny_patch16_224"])  # the large ones run nightly
def test_any_size_comes_out_at_its_stride_and_mirrored_alike(name):
    backbone = build_backbone(name).eval()
    for height, width in ((96, 96), (97, 131), (33, 200)):
        x = torch.randn(2, 3, height, width)
        with torch.inference_mode():
            stages, features, mirrored = backbone.stages(x), backbone(x), backbone(x.flip(3))
        assert features.shape == (2, backbone.channels, -(-height // 16), -(-width // 16))
        assert mirrored.shape == features.shape and tuple(stages) == backbone.stage_names
        torch.testing.assert_close(stages[backbone.stage_names[-1]], features)


def test_features_are_timms_patch_tokens_and_nothing_else(tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    save_file(theirs.state_dict(), tmp_path / "w.safetensors")
    ours = build_backbone("timm/vit_tiny_patch16_224", weights=tmp_path / "w.safetensors").eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        tokens = theirs.forward_features(x)[:, 1:]  # (1, 196, C), the class token left out
        torch.testing.assert_close(ours(x).flatten(2).mT, tokens, rtol=1e-4, atol=1e-4)
        part = x[..., :90, :70]  # padding is the mean colour and moves nothing
        torch.testing.assert_close(ours(part), ours(F.pad(part, (0, 10, 0, 6))))


@pytest.mark.parametrize("name", SCRATCH)
def test_checkpointing_gives_the_same_gradients_and_the_stem_alone_is_frozen(name):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = CamClassifier(build_backbone(name, checkpointing=checkpointing), 3).train()
        model(torch.randn(2, 3, 64, 80)).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
        assert model.backbone.body["net"].training
    for plain, again in zip(*gradients):
        torch.testing.assert_close(plain, again, rtol=0, atol=0)
    backbone = freeze_stem(freeze_batch_norm(build_backbone(name)))
    frozen = {k for k, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen and all("patch_embed" in k for k in frozen)


def test_maps_and_advcam_work_on_tokens():
    model = CamClassifier(build_backbone("vit_small_scratch"), 3)
    images = [torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8)]
    present = [torch.tensor([0, 2])]
    plain = rc.extract.extract_scale_maps(model, images, model.fc1.weight.detach()[None], classes=present)
    moved = adversarial_maps(model, images, model.fc1.weight.detach(), classes=present, steps=2)
    assert [m.shape[1:] for m in plain[0]] == [m.shape for m in moved[0]]
