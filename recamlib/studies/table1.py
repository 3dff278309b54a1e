"""Table 1 and Figure 6a: rows by weight option, and the rules by which their claims are judged."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from recamlib.report import claims
from recamlib.report.claims import joint_verdict, seed_interval, sentence, signed, verdict
from recamlib.stages.maps import OPTIONS, WeightOption

# weight option to the row of Table 1 that reads the reactivated maps with it
ROWS: dict[WeightOption, str] = dict(
    zip(OPTIONS, ("recam_w", "recam_w_prime", "recam_w_plus_w_prime", "recam_w_times_w_prime"))
)
# weight options of our own to the end of their rows' names; those of the base need no FC2
CONTROLS: dict[WeightOption, str] = {
    "relu(w)": "relu_w", "w*w": "w_times_w", "w*random": "w_times_random",
    "relu(w)*relu(w')": "relu_w_times_relu_w_prime",
}  # fmt: skip
BASE_ROWS: dict[WeightOption, str] = {o: f"bce_{row} (ours)" for o, row in CONTROLS.items() if "w'" not in o}
OUR_ROWS: dict[WeightOption, str] = {o: f"recam_{row} (ours)" for o, row in CONTROLS.items()}

# A row of ReCAM, and the same weights, or weights as strong, before reactivation.
PAIRS = (
    ("recam_w", "bce_only"), ("recam_relu_w (ours)", "bce_relu_w (ours)"),
    ("recam_w_times_w (ours)", "bce_w_times_w (ours)"), ("recam_w_prime", "bce_only"),
    ("recam_w_plus_w_prime", "bce_only"), ("recam_w_times_w_prime", "bce_w_times_random (ours)"),
    ("recam_w_times_w_prime", "bce_relu_w (ours)"), ("recam_w_times_w_prime", "bce_w_times_w (ours)"),
    ("recam_relu_w_times_relu_w_prime (ours)", "bce_relu_w (ours)"),
)  # fmt: skip


def option_of(dataset: str) -> WeightOption:
    """Return the weight option that the paper reports on a data set: ``"w"`` on COCO, else ``"w*w'"``."""
    return "w" if dataset == "coco14" else "w*w'"


def any_option_beats_cam(rows: Mapping[str, Any]) -> dict[str, Any]:
    judged = {name: rows[name] for name in ROWS.values()}
    rule = "every reactivated row has an interval above BCE only"
    return {"prose.any_option_beats_cam": claims.all_rows_hold(judged, rule)}


def reactivation_or_weights(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Judge, paired by seed: is the gain of ``w*w'`` reactivation, or how weights are combined?"""
    parts, answers = [], []
    for name, other in PAIRS:
        change, *span = seed_interval(np.subtract(rows[name]["per_seed"], rows[other]["per_seed"]))
        parts.append(f"{name} less {other} {signed(change, *span)}")
        if name == ROWS["w*w'"] and other != "bce_only":
            answers.append(verdict(span, +1))
    rule = "w*w' lies above relu(w), w*w and w*random of weights that were not reactivated"
    judged = [rows[name] for pair in PAIRS for name in pair]
    answer = joint_verdict(answers)
    return {"ours.gain_is_reactivation": sentence(answer, "; ".join(parts), rows=judged, rule=rule)}


def lambda_sweep(curve: Mapping[str, Any], *, margin: float = 2.0) -> dict[str, Any]:
    """Judge ``lambda_insensitive``: are rows keyed by lambda equivalent within `margin` points?

    It does not hold if an interval lies wholly outside the margin: a merely wide one is no evidence.
    """
    rule = f"every interval of the difference to lambda 1, paired by seed, lies within {margin:g} points"
    text = ", ".join(f"lambda {name}: {row['mean']:.1f}" for name, row in curve.items())
    reference = curve.get("1.0")
    if len(curve) < 2:
        answer, text = "not run", text or "not swept"
    elif reference is None or len(curve) < 3 or reference["seeds"] < 2:
        answer = "cannot tell"
    else:
        differences = [np.subtract(row["per_seed"], reference["per_seed"]) for row in curve.values()]
        spans = [seed_interval(values)[1:] for values in differences if values.any()]  # not lambda 1 itself
        within = all(-margin <= low and high <= margin for low, high in spans)
        outside = any(low > margin or high < -margin for low, high in spans)
        answer = "does not hold" if outside else "holds" if within else "cannot tell"
    return {"prose.lambda_insensitive": sentence(answer, text, rows=curve.values(), rule=rule)}


def single_label_share(labels: np.ndarray, *, dataset: str) -> dict[str, Any]:
    """Judge ``single_label_share_coco`` on the labels ``(N, K)`` of training images of COCO 2014."""
    value, margin = claims.paper_values()["prose.single_label_share_coco"], 0.03
    rule = f"on COCO 2014, the 95 % interval lies within {100 * margin:.0f} points of the paper's {value:.0%}"
    alone = int((labels.sum(1) == 1).sum())
    low, high = stats.binomtest(alone, len(labels)).proportion_ci(method="wilson")
    answer = "cannot tell"
    if value - margin <= low and high <= value + margin:
        answer = "holds"
    elif high < value - margin or low > value + margin:
        answer = "does not hold"
    text = f"{alone / len(labels):.1%} of {len(labels):,} training images on {dataset}"
    if dataset == "coco14":
        text += f" [{low:.1%}, {high:.1%}]"
    answer = answer if dataset == "coco14" else "not run"
    return {"prose.single_label_share_coco": sentence(answer, text, rule=rule)}
