"""Pre-training of the small backbone: to the embedded scenes what ImageNet is to photographs."""

import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from recamlib.data.hoofed.scenes import OTHERS, OtherImages
from recamlib.data.views import LabelledViews, TrainView
from recamlib.engine.fit import fit, make_optimizer
from recamlib.engine.predict import image_logits
from recamlib.files import file_digest, whole_file
from recamlib.method.scores import accuracy
from recamlib.models.backbones import build_backbone
from recamlib.models.classifier import CamClassifier
from recamlib.models.weights import PACKAGED


def pretrain(
    path: Path = PACKAGED, *, scenes: int = 6000, epochs: int = 8, lr: float = 2e-3, seed: int = 0,
    tested: int = 600,
) -> dict[str, Any]:  # fmt: skip
    """Train ``resnet_small`` on image-level labels of scenes of `OTHERS`, and store its weights as halves.

    Returned, and stored beside them as JSON, are the settings, ``accuracy`` in [0, 1] of the stored weights
    on `tested` other scenes, ``seconds`` and ``sha256`` of the file.
    """
    torch.manual_seed(seed)
    net = CamClassifier(build_backbone("resnet_small"), len(OTHERS))
    images = OtherImages("train", count=scenes, seed=seed)
    views = LabelledViews(images, TrainView(crop=80, long_side=(72, 128)), seed=seed)
    groups = [{"params": list(net.parameters()), "lr": lr}]
    optimizer = make_optimizer(groups, kind="adamw", weight_decay=0.02)
    with tempfile.TemporaryDirectory() as folder:
        history = fit(
            net, views, lambda net, images, labels: {"loss": F.cross_entropy(net(images), labels)}, optimizer,
            epochs=epochs, batch_size=32, seed=seed, checkpoint=Path(folder), describe="pretrain",
        )  # fmt: skip
    state = {
        key.removeprefix("body.").removeprefix("stem."): value.half().contiguous()
        for key, value in net.backbone.cpu().state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    with whole_file(path) as part:
        save_file(state, part)
    stored = CamClassifier(build_backbone("resnet_small", weights=path), len(OTHERS))
    stored.fc1.load_state_dict(net.fc1.state_dict())
    val = OtherImages("val", count=tested, seed=seed)
    correct = accuracy(torch.tensor(image_logits(stored, val)), torch.from_numpy(val.label_matrix()))
    record = {
        "sha256": file_digest(path), "accuracy": round(correct, 4), "classes": list(OTHERS.classes),
        "scenes": scenes, "epochs": epochs, "lr": lr, "seed": seed, "loss": history["loss"],
        "seconds": round(history["seconds"]), "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip
    with whole_file(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record
