"""The rules by which a claim of the paper is judged on measured numbers, one function per kind of claim."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import stats

from recamlib.method.losses import bce_gradient, sce_gradient
from recamlib.method.scores import bootstrap_contrast
from recamlib.report.claims import paper_value, row_verdict, seed_interval, sentence, verdict

REACTIVATED = ("recam_w", "recam_w_prime", "recam_w_plus_w_prime", "recam_w_times_w_prime")


def table1(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Judge ``any_option_beats_cam``: holds if all four differences lie above zero, fails if any is below."""
    spans = {name: tuple(rows[name]["difference_interval"]) for name in REACTIVATED}
    answers = [verdict(span, +1) for span in spans.values()]
    answer = "does not hold" if "does not hold" in answers else "cannot tell"
    if set(answers) == {"holds"}:
        answer = "holds"
    text = "; ".join(
        f"{name} {rows[name]['difference']:+.1f} [{a:+.1f}, {b:+.1f}]" for name, (a, b) in spans.items()
    )
    rule = "every reactivated row has an interval above BCE only"
    return {"prose.any_option_beats_cam": sentence(answer, text, rule=rule)}


def lambda_sweep(curve: Mapping[str, Any], *, margin: float = 2.0) -> dict[str, Any]:
    """Judge ``lambda_insensitive``, rows keyed by lambda: are the values equivalent within `margin` points?

    Holds if every interval of the difference to lambda 1, paired by seed, lies within the margin; does not
    hold if one lies wholly outside it; else it cannot be told: a merely wide interval is no evidence.
    """
    rule = f"every interval of the difference to lambda 1, paired by seed, lies within {margin:g} points"
    text = ", ".join(f"lambda {name}: {row['mean']:.1f}" for name, row in curve.items())
    reference = curve.get("1.0")
    if len(curve) < 2:
        return {"prose.lambda_insensitive": sentence("not run", text or "not swept", rule=rule)}
    if reference is None or len(curve) < 3 or reference["seeds"] < 2:
        return {"prose.lambda_insensitive": sentence("cannot tell", text, rule=rule)}
    answer = "holds"
    for row in curve.values():
        difference = np.subtract(row["per_seed"], reference["per_seed"])
        if not difference.any():
            continue  # lambda 1 itself
        _, low, high = seed_interval(difference)
        if low > margin or high < -margin:
            answer = "does not hold"
            break
        if low < -margin or high > margin:
            answer = "cannot tell"
    return {"prose.lambda_insensitive": sentence(answer, text, rule=rule)}


def gradient_cases(cases: Mapping[str, tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Return the four gradient magnitudes of Section 4.2 (Eq. 12 at K = 2) for each case ``(z_p, z_q)``.

    Examples
    --------
    >>> {name: round(value, 3) for name, value in gradient_cases({"c1": (10.0, 10.0)})["c1"].items()}
    {'BCE p': 0.0, 'BCE q': 0.5, 'SCE p': 0.5, 'SCE q': 0.5}
    """
    labels = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    table = {}
    for name, logits in cases.items():
        z = torch.tensor([logits], dtype=torch.float64)
        terms = torch.cat([bce_gradient(z, labels)[0], sce_gradient(z, labels)[0]]).abs().tolist()
        table[name] = dict(zip(("BCE p", "BCE q", "SCE p", "SCE q"), terms))
    return table


def toy_gradients(cases: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Judge ``gradients_c1`` and ``gradients_c2``: each of the four magnitudes within 0.05 of the paper's."""
    found = gradient_cases(cases)
    paper = {
        "c1": {"BCE p": 0.0, "BCE q": 0.5, "SCE p": 0.5, "SCE q": 0.5},
        "c2": {"BCE p": 0.5, "BCE q": 0.0, "SCE p": 0.5, "SCE q": 0.5},
    }
    claims = {}
    for name, expected in paper.items():
        holds = all(abs(found[name][term] - value) < 0.05 for term, value in expected.items())
        text = ", ".join(f"{term} {value:.3f}" for term, value in found[name].items())
        rule = "the four magnitudes of Eq. 12 at K = 2 lie within 0.05 of the paper's"
        claims[f"prose.gradients_{name}"] = sentence("holds" if holds else "does not hold", text, rule=rule)
    return claims


def toy_study(
    accuracy: Mapping[str, Sequence[float]], miou: Mapping[str, Mapping[str, Sequence[float]]]
) -> dict:
    """Judge Figure 1's claims on one group of classes from per-seed numbers in percent.

    Parameters
    ----------
    accuracy
        ``{"bce": [...], "sce": [...]}`` on single-label val images, one number per seed.
    miou
        Split to the same, for the maps.
    """
    delta, low, high = seed_interval([s - b for s, b in zip(accuracy["sce"], accuracy["bce"])])
    rule = "SCE minus BCE over seeds lies above zero"
    text = f"accuracy of SCE minus BCE {delta:+.1f} [{low:+.1f}, {high:+.1f}]"
    claims = {"prose.five_hoofed_bce_weaker": sentence(verdict((low, high), +1), text, rule=rule)}
    parts, answers = [], []
    for split, values in miou.items():
        delta, low, high = seed_interval([s - b for s, b in zip(values["sce"], values["bce"])])
        parts.append(f"{split} {delta:+.1f} [{low:+.1f}, {high:+.1f}]")
        answers.append(verdict((low, high), +1))
    answer = answers[0] if len(set(answers)) == 1 else "cannot tell"
    text = "mIoU of SCE's maps minus BCE's: " + ", ".join(parts)
    claims["prose.sce_cam_higher_miou"] = sentence(answer, text, rule=rule + " on train and on val")
    return claims


def single_label_share(labels: np.ndarray, *, dataset: str) -> dict[str, Any]:
    """Judge ``single_label_share_coco`` on the labels ``(N, K)`` of training images, and only on COCO 2014.

    It holds if the 95 % interval (Wilson's) lies within 3 points of the paper's share, does not if the two do
    not meet.
    """
    value, margin = paper_value("prose.single_label_share_coco"), 0.03
    alone = int((labels.sum(1) == 1).sum())
    text = f"{alone / len(labels):.1%} of {len(labels):,} training images on {dataset}"
    if dataset != "coco14":
        return {"prose.single_label_share_coco": sentence("not run", text, rule="needs COCO 2014")}
    low, high = stats.binomtest(alone, len(labels)).proportion_ci(method="wilson")
    answer = "cannot tell"
    if value - margin <= low and high <= value + margin:
        answer = "holds"
    elif high < value - margin or low > value + margin:
        answer = "does not hold"
    text += f" [{low:.1%}, {high:.1%}]"
    rule = f"the 95 % interval lies within {100 * margin:.0f} points of the paper's {value:.0%}"
    return {"prose.single_label_share_coco": sentence(answer, text, rule=rule)}


def recam_against_advcam(times: Mapping[str, Any], *, climb_steps: int) -> dict[str, Any]:
    """Judge ``recam_vs_advcam_speed`` and ``recam_extra_hours_voc`` on the time column of Table 2.

    The first is a ratio of times on one device and holds if it reaches half of the paper's; with fewer
    than the published 27 steps of climbing, or without AdvCAM, it is not judged. The second is a time in
    hours on the paper's hardware: what was measured here is given beside "cannot tell".
    """
    recam, paper = times["none.recam_ut"]["mean"], paper_value("prose.recam_vs_advcam_speed")
    cost = times["none.recam_ut"]["seconds"] - times["none.cam_ut"]["seconds"]
    answer, text = "not run", f"ReCAM takes {recam:.1f} ut, AdvCAM was not run"
    if "advcam.cam_ut" in times:
        climbed = times["advcam.cam_ut"]["mean"]
        answer = "holds" if climbed / recam >= paper / 2 else "does not hold"
        answer = answer if climb_steps >= 27 else "cannot tell"
        text = (
            f"ReCAM takes {recam:.1f} ut, AdvCAM {climbed:.1f} with {climb_steps} steps: "
            f"{climbed / recam:.1f} times as long, both as implemented here"
        )
    return {
        "prose.recam_vs_advcam_speed": sentence(
            answer, text,
            rule=f"with 27 steps or more, AdvCAM takes at least half of the paper's {paper:g} times as long",
        ),
        "prose.recam_extra_hours_voc": sentence(
            "cannot tell", f"{cost / 3600:.3f} hours more than CAM here",
            rule="needs the paper's data and device",
        ),
    }


def single_and_multi_label(scores: Mapping[str, Any]) -> dict[str, Any]:
    """Judge Figure 6b on scores of the first seed, keyed as the rows of Table 2.

    Parameters
    ----------
    scores
        ``"none.cam_miou"``, ``"none.recam_miou"``, ``"irn.cam_miou"`` and ``"irn.recam_miou"`` to a `Score`.

    Returns
    -------
    One sentence: holds if all four differences lie above zero, fails if any lies below; without IRN's two it
    cannot hold.
    """
    parts, answers = [], []
    for method in [name for name in ("none", "irn") if f"{name}.recam_miou" in scores]:
        cam, recam = scores[f"{method}.cam_miou"], scores[f"{method}.recam_miou"]
        for name, among in recam.groups().items():
            low, high = recam.interval_of_difference(cam, among=among)
            change = recam.by_label_count()[name] - cam.by_label_count()[name]
            parts.append(f"{name}, {method}: {change:+.1f} [{low:+.1f}, {high:+.1f}]")
            answers.append(verdict((low, high), +1))
    answer = "does not hold" if "does not hold" in answers else "cannot tell"
    if set(answers) == {"holds"} and len(answers) == 4:
        answer = "holds"
    rule = "ReCAM minus CAM lies above zero for both kinds of images, before and after IRN (one seed, images)"
    return {"prose.single_and_multi_label": sentence(answer, "; ".join(parts), rule=rule)}


def margin_of_the_stronger(scores: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Judge ``larger_margin_on_stronger`` on scores of Table 3, one per seed, keyed as its columns are.

    Holds if ReCAM's margin over CAM on UPerNet, less that on DeepLabV2, both without refinement, lies above
    zero; where both upper bounds are there and UPerNet's is not the higher, it is not the stronger network
    and nothing can be told. The other refinements are shown, not judged.
    """
    rule = (
        "margin on UPerNet less margin on DeepLabV2, no refinement, lies above zero; UPerNet is the stronger"
    )
    parts, answer = [], "not run"
    for method in dict.fromkeys(name.split(".")[0] for name in scores):
        names = [
            f"{method}.{net}_{kind}_val" for net in ("upernet", "deeplabv2") for kind in ("recam", "cam")
        ]
        if not all(name in scores for name in names):
            continue
        signs = (1, -1, -1, 1)
        four = [scores[name] for name in names]
        growth = np.asarray(signs) @ np.array([[s.miou for s in row] for row in four])  # (seeds,)
        mean, low, high = seed_interval(growth)
        if len(growth) == 1:
            low, high = (
                100 * end for end in bootstrap_contrast([row[0].counts for row in four], signs, seed=0)
            )
        parts.append(f"{method} {mean:+.1f} [{low:+.1f}, {high:+.1f}]")
        if method == "none":
            answer = verdict((low, high), +1)
    bounds = [np.mean([s.miou for s in scores.get(f"upper_bound.{n}", ())]) for n in ("upernet", "deeplabv2")
              if f"upper_bound.{n}" in scores]  # fmt: skip
    if len(bounds) == 2:
        parts.append(f"upper bounds {bounds[0]:.1f} and {bounds[1]:.1f}")
        if bounds[0] <= bounds[1] and answer != "not run":
            answer = "cannot tell"
    return {"prose.larger_margin_on_stronger": sentence(answer, "; ".join(parts) or "one network", rule=rule)}


def plugged_in(rows: Mapping[str, Any]) -> dict[str, Any]:
    """Judge Table 4: ReCAM against IRN, ReCAM-E against EPS, ReCAM-M against EDAM's merge of CAM.

    Each by the rule of the scoreboard, from rows of networks on val; a row that is not there has not run.
    """
    claims = {}
    for side, name in (("without", "ReCAM"), ("with", "ReCAM-E"), ("with", "ReCAM-M")):
        row, rule = rows.get(f"{side}_saliency.{name}"), "DeepLabV2's difference on val lies above zero"
        answer, text = "not run", "no network of it and of its baseline was trained"
        if row and "difference_interval" in row:
            low, high = row["difference_interval"]
            answer = row_verdict(row, +1)
            text = f"{row['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
            if row["mean"] <= row["floor"]:
                text += f"; at {row['mean']:.1f} no better than all background, {row['floor']:.1f}"
        claims[f"table4.{side}_saliency.{name}.val"] = sentence(answer, text, rule=rule)
    return claims
