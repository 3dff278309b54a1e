"""Pre-training of the small backbone, and the weights that come with the package."""

import json

import torch

from recamlib.data.hoofed.scenes import OTHERS
from recamlib.data.labels import HOOFED
from recamlib.engine.pretrain import pretrain
from recamlib.files import file_digest
from recamlib.models.backbones import build_backbone
from recamlib.models.weights import PACKAGED, SCENES, find_weights, read_weights


def test_packaged_weights_are_the_recorded_ones_and_load():
    record = json.loads(PACKAGED.with_suffix(".json").read_text(encoding="utf-8"))
    assert find_weights(SCENES) == PACKAGED and file_digest(PACKAGED) == record["sha256"]
    assert PACKAGED.stat().st_size < 2**21
    assert tuple(record["classes"]) == OTHERS.classes and not set(OTHERS.classes) & set(HOOFED.classes)
    assert record["accuracy"] > 0.8  # by chance 0.07
    state, net = read_weights(PACKAGED), build_backbone("resnet_small", weights=SCENES)
    torch.testing.assert_close(net.body["stem"].conv1.weight, state["conv1.weight"])
    torch.testing.assert_close(net.body["layer4"][0].bn2.running_var, state["layer4.0.bn2.running_var"])
    assert net.eval()(torch.randn(1, 3, 72, 96)).isfinite().all()


def test_a_short_run_learns_and_its_weights_come_back(tmp_path):
    path = tmp_path / "short.safetensors"
    record = pretrain(path, scenes=192, epochs=4, tested=60)
    assert record["loss"][-1] < record["loss"][0] - 0.15 and 0 <= record["accuracy"] <= 1
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8")) == record
    assert record["sha256"] == file_digest(path)
    state, net = read_weights(path), build_backbone("resnet_small", weights=path)
    assert {key for key in net.state_dict() if "num_batches" not in key} == {
        f"body.stem.{key}" if key.startswith(("conv1", "bn1")) else f"body.{key}" for key in state
    }
