"""What training the classifier and reactivating it share: loop, probes, what is stored."""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from recamlib.engine import fit as engine
from recamlib.engine.device import measured
from recamlib.engine.predict import image_logits
from recamlib.stages.base import Stage, store_trained


def trained(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a module that are not fixed."""
    return [p for p in module.parameters() if p.requires_grad]


def run_training(
    stage: Stage, name: str, model: nn.Module, step: Callable, groups: list[dict], *, base: Stage
) -> dict[str, Any]:
    """Run one training stage: optimizer, loop, stored weights, cost; then the checkpoint goes.

    `base` is the stage of the classifier, which may be `stage` itself: it knows views, seed and precision.
    """
    views = base.views()
    optimizer = engine.make_optimizer(
        groups, kind=base.optimizer if stage is base else "sgd",
        momentum=stage.momentum, weight_decay=stage.weight_decay,
    )  # fmt: skip
    probe = None
    if base.probe and stage is base:
        val = base.dataset.images("val")
        probe = lambda net, epoch: {"logits": image_logits(net, val)}  # noqa: E731
    with measured() as cost:
        history = engine.fit(
            model, views, step, optimizer, epochs=stage.epochs, batch_size=stage.batch_size, seed=base.seed,
            checkpoint=stage.folder / "checkpoint", precision=base.precision, after_epoch=probe,
            describe=f"{type(stage).__name__} {base.loss if stage is base else stage.sce_weight}",
        )  # fmt: skip
    probes = [p["logits"] for p in history.pop("probes", [])]
    result = store_trained(stage.folder, model, name, history=history, cost=cost, images=len(views))
    if probes:
        result["probe_logits"] = np.array(probes, dtype=np.float32)  # (E + 1, N, K)
    return result
