"""Whether classifier and reactivation have converged, judged on image-level labels alone."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 3.0  # points of accuracy that FC2 may stay behind a softmax layer fitted to convergence
COST = 1.0  # points of mean average precision below FC1 alone that a reactivation may end at


class Convergence(NamedTuple):
    """Whether a run has converged, and the numbers that say so in a few words."""

    converged: bool
    text: str
    spoiled: bool = False  # by a reactivation: FC1 classified better before it


def convergence(record: Mapping[str, Any]) -> Convergence:
    """Judge a training by its record, in percent.

    A classifier has converged if its mean average precision on val, ``val_map``, is at least that of FC1
    trained alone on the untouched features of the same backbone, ``fc1_map``; a reactivation if, besides,
    ``val_map_after`` is at least ``fc1_map`` minus `COST`, and the accuracy of FC2 on the pooled one-class
    features of training images is within `MARGIN` points of a softmax layer fitted to convergence on them.

    >>> convergence({"val_map": 15.0, "fc1_map": 62.9})
    Convergence(converged=False, text='mAP 15.0 of 62.9', spoiled=False)
    >>> convergence({"val_map": 70.0, "fc1_map": 68.4, "fc2_accuracy": 64.0, "softmax_accuracy": 93.0}).text
    'FC2 64 % of 93 %'
    >>> spoiled = {"val_map_after": 47.9, "fc2_accuracy": 100.0, "softmax_accuracy": 100.0}
    >>> convergence({"val_map": 62.0, "fc1_map": 62.0} | spoiled)
    Convergence(converged=False, text='mAP 47.9 of 62.0 after reactivation', spoiled=True)
    """
    classifier = f"mAP {record['val_map']:.1f} of {record['fc1_map']:.1f}"
    learned = record["val_map"] >= record["fc1_map"]
    if "fc2_accuracy" not in record:
        return Convergence(learned, classifier)
    after = record.get("val_map_after", record["val_map"])
    spoiled = learned and after < record["fc1_map"] - COST
    if spoiled:
        learned, classifier = False, f"mAP {after:.1f} of {record['fc1_map']:.1f} after reactivation"
    head = f"FC2 {record['fc2_accuracy']:.0f} % of {record['softmax_accuracy']:.0f} %"
    followed = record["fc2_accuracy"] >= record["softmax_accuracy"] - MARGIN
    if learned and followed:
        return Convergence(True, f"{classifier}, {head}")
    return Convergence(False, ", ".join([classifier] * (not learned) + [head] * (not followed)), spoiled)


def one_class_features(pooled: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pick the features of Eq. 5, ``(B, K, C)``, of every class present, as reactivation sees them.

    Returns features ``(N, C)``, a row a class present; their classes ``(N,)``; and the share of each row in
    the loss of Eq. 7, one over the number of classes of its image.
    """
    image, target = labels.nonzero(as_tuple=True)
    return pooled[image, target], target, 1 / labels.sum(1).float()[image]


def fit_softmax(
    features: Tensor, targets: Tensor, share: Tensor, *, classes: int, weight_decay: float = 1e-4,
    iterations: int = 300,
) -> Tensor:  # fmt: skip
    """Return weights ``(K, C)`` of a softmax layer fitted to `one_class_features` with L-BFGS."""
    length = features.norm(dim=1).mean().clamp_min(1e-12)  # unit length conditions the problem
    x = (features / length).detach()
    weight = torch.zeros(classes, features.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([weight], max_iter=iterations, history_size=20, line_search_fn="strong_wolfe",
                               tolerance_grad=1e-7, tolerance_change=1e-9)  # fmt: skip
    total = share.sum()

    def closure() -> Tensor:
        solver.zero_grad()
        terms = F.cross_entropy(x @ weight.T, targets, reduction="none")
        decay = 0.5 * weight_decay * (weight / length).square().sum()
        loss = (terms * share).sum() / total + decay
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    return (weight / length).detach()


def head_numbers(features: Tensor, targets: Tensor, share: Tensor, fc2: Tensor) -> dict[str, float]:
    """Return ``sce`` in nats and ``accuracy`` in percent of weights ``(K, C)`` on one-class features."""
    logits = features @ fc2.T  # (N, K)
    terms = F.cross_entropy(logits, targets, reduction="none")
    return {
        "sce": float((terms * share).sum() / share.sum()),
        "accuracy": 100 * float((logits.argmax(1) == targets).float().mean()),
    }
