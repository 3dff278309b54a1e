"""How claims are said to readers: the paper's sentences, its differences, and what notebook 06 asks."""

import functools

from recamlib.report.claims import TABLE4, load_paper
from recamlib.studies.table1 import ROWS
from recamlib.studies.table2 import TITLES
from recamlib.studies.table3 import NETWORKS

LOSSES = {"sce_only": "SCE alone", "sce_single_only": "SCE alone, one-class images"}
SAYS = {
    "any_option_beats_cam": "every way of reading ReCAM's maps beats BCE alone",
    "lambda_insensitive": "lambda, the weight of the softmax loss, matters little",
    "single_and_multi_label": "ReCAM helps images of one class and of several, before and after IRN",
    "recam_vs_advcam_speed": "AdvCAM takes {value:g} times as long as ReCAM",
    "recam_extra_hours_voc": "ReCAM adds {value:g} hours to CAM on VOC",
    "sce_cam_higher_miou": "maps of a model trained with SCE have a higher mIoU than those of BCE",
    "five_hoofed_bce_weaker": "SCE classifies the hoofed animals better than BCE",
    "gradients_c1": "sure of a right and a wrong class, BCE corrects the wrong one alone, SCE both",
    "gradients_c2": "sure of neither, BCE corrects the right one alone, SCE both",
    "larger_margin_on_stronger": "ReCAM's margin is larger on the stronger network, UPerNet-Swin",
    "single_label_share_coco": "about {value:.0%} of COCO's training images show one class alone",
}
"""The paper's sentences, by their names in claims.yml; numbers are put in from there."""

BEYOND = {
    "sign": "a factor decides whether reactivation raises or lowers the mIoU",
    "momentum": "the momentum of the optimizer moves what reactivation gains",
    "gradient": "the gradient through the maps, or the form of the pooling, moves what it gains",
    "classifier": "classifiers with a higher mAP have better CAMs",
    "transformers": "reactivation raises the mIoU on every backbone, transformers among them",
    "methods": "no other CAM method gives better maps than CAM",
    "walk": "the random walk gains by settings chosen on train",
}


_paper = functools.cache(load_paper)  # a page asks for it a hundred times


def in_words(claim: str) -> str:
    """Return a claim made in a sentence as a sentence, with its place in the paper.

    Examples
    --------
    >>> in_words("prose.recam_vs_advcam_speed")
    'AdvCAM takes 160 times as long as ReCAM (Section 5.2)'
    """
    name = claim.removeprefix("prose.")
    entry = _paper()["prose"][name]
    return f"{SAYS[name].format(**entry)} ({entry['where'].split(':')[0].split(',')[0]})"


def named(evidence: str) -> str:
    """Return evidence with the weight options of Table 1 as formulas write them."""
    rows = _paper()["table1"]["rows"]
    for name in sorted(ROWS.values(), key=len, reverse=True):
        evidence = evidence.replace(name, rows[name]["weights"])
    return evidence


def cell_title(claim: str) -> str:
    """Return in words what the difference of a number of a table to its baseline is.

    Examples
    --------
    >>> cell_title("table1.recam_w_prime.voc12"), cell_title("table2.irn.recam_miou.voc12")
    ("ReCAM read with w'", 'ReCAM over CAM, IRN')
    >>> cell_title("table3.irn.upernet_recam_val.voc12"), cell_title("table4.with_saliency.ReCAM-E.val")
    ('ReCAM over CAM, IRN, UPerNet', 'ReCAM-E over EPS')
    """
    table, row, *rest = claim.split(".")
    if table == "table1":
        weights = _paper()["table1"]["rows"][row].get("weights")
        return f"ReCAM read with {weights}" if weights else LOSSES[row]
    if table == "table4":
        return f"{rest[0]} over {TABLE4[rest[0]]}"
    network = f", {NETWORKS[rest[0].split('_')[0]]}" if table == "table3" else ""
    return f"ReCAM over CAM, {TITLES[row]}{network}"
