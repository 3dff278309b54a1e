"""Weights files as people have them, good and bad."""

import argparse
import os
import re

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from recamlib.errors import WeightsError
from recamlib.models.backbones import build_backbone
from recamlib.models.weights import find_weights, load_features, read_weights

NET = torchvision.models.squeezenet1_1()
SMALL = {"conv.weight": torch.ones(4, 3, 1, 1), "norm.weight": 2 * torch.ones(4), "norm.bias": torch.ones(4)}


def test_half_precision_and_bare_names(tmp_path, monkeypatch):
    source = torchvision.models.resnet18(weights=None)
    half = {k: v.half() if v.is_floating_point() else v for k, v in source.state_dict().items()}
    save_file(half, tmp_path / "mine.safetensors")
    monkeypatch.setenv("RECAM_WEIGHTS", str(tmp_path))
    backbone = build_backbone("resnet18", weights="mine")
    assert {p.dtype for p in backbone.parameters()} == {torch.float32}
    torch.testing.assert_close(backbone.body["stem"].conv1.weight, source.conv1.weight, rtol=1e-3, atol=1e-4)
    with pytest.raises(WeightsError, match="did you mean 'mine'"):
        find_weights("mime")
    for name in ("w.pth", "w.pth.tar", "w.ckpt", "w.bin"):
        (tmp_path / name).touch()
        assert find_weights(name) == tmp_path / name


@pytest.mark.parametrize("name, key, value, message", [
    ("resnet18", "layer3.0.conv1.weight", None, "lacks layer3.0.conv1.weight"),
    ("resnet18", "extra.weight", torch.zeros(1), "no place for extra.weight"),
    ("resnet18", "conv1.weight", torch.zeros(64, 1, 7, 7), "another shape for conv1.weight"),
    # what comes after the last stage, as conv_head and classifier do, is left out, and only that
    ("timm/mobilenetv3_small_050", "blocks.5.0.new", torch.ones(1), "no place for blocks.5.0.new"),
])  # fmt: skip
def test_weights_that_do_not_fit_are_named(name, key, value, message, tmp_path):
    state, path = timm.create_model(name.removeprefix("timm/")).state_dict(), tmp_path / "w.pth"
    torch.save(state, path)
    build_backbone(name, weights=path)
    torch.save({k: v for k, v in (state | {key: value}).items() if v is not None}, path)
    with pytest.raises(WeightsError, match=re.escape(message)):
        build_backbone(name, weights=path)


class Surprise:
    def __reduce__(self):
        return (os.abort, ())


@pytest.mark.parametrize("content, message", [
    ({"x": Surprise()}, "cannot read weights from .*w.pth"), (b"no weights", "cannot read weights from"),
    ({"x": torch.tensor([torch.nan])}, "not finite in x"), ([1, 2], "plain dictionary of tensors"),
    (NET, r"SqueezeNet.* torch\.save\(model\.state_dict\(\), 'weights\.pth'\)"),
    ({"model": NET, "epoch": 1}, r"SqueezeNet.* torch\.save\("),
])  # fmt: skip
def test_damaged_or_executable_files_are_refused(content, message, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(WeightsError, match=message):
        read_weights(path)
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(WeightsError, match="cannot read weights from .*cut.safetensors"):
        read_weights(tmp_path / "cut.safetensors")


def loads(content, path) -> bool:
    torch.save(content, path)
    layers = {"conv": torch.nn.Conv2d(3, 4, 1, bias=False), "norm": torch.nn.GroupNorm(2, 4)}
    net = torch.nn.ModuleDict(layers)
    load_features(net, read_weights(path), source=path)
    return all(torch.equal(v, SMALL[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "ema", "trained"])
def test_checkpoints_of_a_training_are_unwrapped(key, tmp_path):
    optimizer = {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 0.1}]}
    beside = {"epoch": 3, "optimizer": optimizer, "args": argparse.Namespace(lr=1)}
    assert loads({key: SMALL, **beside}, tmp_path / "w.pth")
    assert loads({"model": {"state_dict": SMALL}}, tmp_path / "w.pth")


@pytest.mark.parametrize("prefix", [
    "module.", "_orig_mod.", "model.", "backbone.", "encoder.", "module.model.backbone.", "resnet50.",
])  # fmt: skip
def test_prefixes_are_found_and_what_lies_beside_them_is_left(prefix, tmp_path):
    named = {prefix + k: v for k, v in SMALL.items()}
    assert loads({"state_dict": named}, tmp_path / "w.pth")
    if prefix not in ("module.", "_orig_mod."):  # those hold all of a network
        assert loads({**named, "projector.0.weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"no place for conv\.bias: .*another network"):
        loads({**named, prefix + "conv.bias": torch.ones(4)}, tmp_path / "w.pth")


def test_two_networks_in_a_file_are_not_chosen_between(tmp_path):
    both = {f"{who}.{k}": v for who in ("student", "teacher") for k, v in SMALL.items()}
    with pytest.raises(WeightsError, match=r"student\. and as teacher\.: save one"):
        loads(both, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="several networks .student, teacher.: save the one you mean"):
        loads({"student": SMALL, "teacher": SMALL}, tmp_path / "w.pth")


def test_published_recam_classifier(tmp_path):
    """The authors' Net holds every layer twice: in resnet50 and in its stages."""
    net = torchvision.models.resnet50()
    state = {f"resnet50.{k}": v for k, v in net.state_dict().items()}
    stages = {f"stage1.{i}": layer for i, layer in enumerate(("conv1", "bn1", "relu", "maxpool", "layer1"))}
    for stage, layer in (stages | {f"stage{i}.0": f"layer{i}" for i in (2, 3, 4)}).items():
        state |= {f"{stage}.{k}": v for k, v in getattr(net, layer).state_dict().items()}
    torch.save({**state, "classifier.weight": torch.ones(20, 2048, 1, 1)}, tmp_path / "res50_cam.pth")
    backbone = build_backbone("resnet50", weights=tmp_path / "res50_cam.pth")
    assert torch.equal(backbone.body["layer4"][2].conv3.weight, net.layer4[2].conv3.weight)


@pytest.mark.parametrize("name, other", [
    ("timm/resnet18", "resnet34"), ("timm/vit_tiny_patch16_224", "vit_small_patch16_224"),
])  # fmt: skip
def test_a_larger_network_of_the_family_is_refused(name, other, tmp_path):
    save_file(timm.create_model(other).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="are these the weights of another network"):
        build_backbone(name, output_stride=16 if "vit" in name else 32, weights=tmp_path / "w.safetensors")


def test_paths_are_taken_from_where_the_user_stands(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "w.pth").touch()
    monkeypatch.setenv("PWD", str(tmp_path))  # a kernel's folder is another one
    assert find_weights("mine/w.pth") == tmp_path / "mine" / "w.pth"
    monkeypatch.delenv("PWD")
    monkeypatch.chdir(tmp_path)
    assert find_weights("mine/w.pth").samefile(tmp_path / "mine" / "w.pth")
    with pytest.raises(WeightsError, match=r"did you mean 'w\.pth'"):
        find_weights("mine/ww.pth")
