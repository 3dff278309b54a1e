"""Table 4: which system is what, what stands for which row of the paper, frames, figures and verdicts."""

import itertools
from dataclasses import replace

import pytest

import recamlib as rc
from recamlib.method.scores import confusion, mean_iou
from recamlib.report.claims import load_paper
from recamlib.studies import table4 as guidance
from tests import made_up
from tests.stages import chain

pytestmark = pytest.mark.usefixtures("results")
SETTINGS = {
    "ExtractCams": {"scales": (1.0,)}, "SaliencyMerge": {"theta": 0.3}, "Walk": {"steps": 16},
    "TrainBoundary": {"epochs": 1, "batch_size": 4, "crop": 64, "radius": 5},
    "TrainSegmenter": {"steps": 2, "crop": 64},
}  # fmt: skip


def cams(**more):
    how = guidance.how_read(weights="w*w'", **more)
    cam, eps = chain.classifier(), chain.classifier(saliency={})
    recam, recam_e = (chain.reactivated(base=base) for base in (cam, eps))
    models = {"cam": cam, "eps": eps, "recam": recam, "recam_e": recam_e}
    return {kind: [rc.make(rc.ExtractCams, SETTINGS, model=m, **how[kind])] for kind, m in models.items()}


def systems(*, irn=True, **more):
    return guidance.systems(cams(**more), rc.Saliency(), SETTINGS, irn=irn)


def result(segmented=True):
    """A made-up result of notebook 05: every system one point above its partner."""
    means = {"cam": 40.5, "recam": 41.5, "eps": 41.5, "recam_e": 42.5, "edam": 41.5, "recam_m": 42.5}
    kinds = {kind: made_up.row(mean, difference=kind != "cam") for kind, mean in means.items()}
    rows = {f"{method}.{kind}": found for method in ("none", "irn") for kind, found in kinds.items()}
    if segmented:
        rows |= {guidance.cell("irn", k, "deeplabv2").row: r | {"floor": 15.0} for k, r in kinds.items()}
    return made_up.result("05_table4_saliency", rows)


def test_the_six_systems_are_built_as_the_paper_says():
    rows = systems()
    assert {cell.row for cell in rows} == {f"{m}.{k}" for m in ("none", "irn") for k in guidance.SYSTEMS}
    first = {cell.row: stages[0] for cell, stages in rows.items()}
    assert first["none.eps"].model.saliency and not first["none.cam"].model.saliency
    assert first["none.recam_e"].model.base == first["none.eps"].model
    assert first["none.recam_e"].reading == first["none.eps"].reading == "softmax"
    assert first["none.edam"].cams == first["none.cam"] and first["none.recam_m"].cams == first["none.recam"]
    assert first["irn.recam_m"].cams == first["irn.recam"]  # the merge comes last
    assert first["irn.eps"].boundary.cams == first["irn.eps"].cams == first["none.eps"]
    assert first["irn.edam"].theta == 0.3
    plain = systems(irn=False, reading="relu")
    assert {cell.method for cell in plain} == {"none"}
    assert plain[guidance.cell("none", "recam_e")][0].weights == "w*w'"
    assert plain[guidance.cell("none", "eps")][0].weights == "w"


def test_cam_and_recam_share_their_cache_with_table_two():
    two = {kind: cams()[kind] for kind in ("cam", "recam")}
    other, rows = rc.table2.systems(two, SETTINGS), systems()
    for method, kind in itertools.product(("none", "irn"), two):
        assert other[rc.table2.cell(method, kind)] == rows[guidance.cell(method, kind)]


def test_a_network_learns_from_its_system_and_is_compared_with_its_partner():
    rows = systems(irn=False)
    nets = guidance.segmenters(rows, ["cam", "edam", "recam_m"], "deeplabv2_small", SETTINGS)
    edam = guidance.cell("none", "edam")
    bound = rc.table3.upper_bounds(rows[edam][0].dataset, {"deeplabv2_small": {}}, SETTINGS, seeds=[0])
    assert nets[replace(edam, network="deeplabv2")][0].masks.maps == rows[edam][0]
    tested = {name: [rc.SegmentationScore(of=net) for net in row] for name, row in (nets | bound).items()}
    found = rc.cells.rows_of(rc.table3.table(tested))
    cam, merge, recam_m, _ = found.values()
    assert list(found)[:3] == ["without_saliency.CAM", "with_saliency.EDAM's merge", "with_saliency.ReCAM-M"]
    assert recam_m["converged"] is False and recam_m["convergence"].startswith("upper bound")
    assert "difference" not in cam and recam_m["difference"] == pytest.approx(recam_m["mean"] - merge["mean"])
    score = rc.SegmentationScore(of=nets[guidance.cell("none", "cam", "deeplabv2")][0])
    masks = map(score.of.dataset.masks("val").mask, score.images.ids)
    nothing = sum(confusion(0 * mask, mask, num_classes=6) for mask in masks)
    assert cam["floor"] == pytest.approx(100 * mean_iou(nothing))
    row = guidance.saliency_row(rc.SaliencyScore(dataset=score.of.dataset))
    assert row["low"] <= row["mean"] <= row["high"] and 0 < row["everything"] < 100


def test_the_paper_stands_beside_what_stands_for_it_and_the_rest_is_marked_quoted():
    known = {f"{s}.{row}" for s, block in load_paper()["table4"].items() for row in block}
    for kind in set(guidance.SYSTEMS) - {"edam"}:
        assert guidance.cell("irn", kind, "deeplabv2").row in known
    for method, kind in (("none", "cam"), ("none", "recam"), ("none", "edam"), ("irn", "edam")):
        assert guidance.cell(method, kind, "deeplabv2").row not in known
    frame = guidance.frame(result())
    assert len(frame) == 10 + 9 + 1  # all of the paper's rows and the merge
    assert frame.loc["ReCAM-E", ["paper val", "val here"]].tolist() == [71.6, 42.5]
    quoted = frame[frame["from"] == "quoted from the paper"]
    assert quoted["val here"].isna().all()
    assert "EDAM" in quoted.index and "SEAM" in quoted.index and "EPS" not in quoted.index
    shown = rc.tables.shown(frame)
    assert shown.loc[["ReCAM-M", "SEAM"], "val here"].tolist() == ["42.5 [41.5, 43.5]", ""]
    empty = guidance.frame(result(segmented=False))
    assert len(empty) == 19 and not rc.tables.shown(empty)["val here"].any()


def test_the_scoreboard_matches_the_val_column_of_table_four():
    board = rc.tables.scoreboard([result()]).set_index("claim")
    for row in ("without_saliency.ReCAM", "with_saliency.ReCAM-E", "with_saliency.ReCAM-M"):
        verdicts = board.loc[[f"table4.{row}.val", f"table4.{row}.test"], "verdict"]
        assert verdicts.tolist() == ["holds", "not run"]
    assert board.loc["table4.with_saliency.EPS.val", ["verdict", "here"]].tolist() == ["reference", 41.5]
    assert board.loc["table4.with_saliency.EDAM.val", "verdict"] == "not run"
    other = result()
    del other["rows"]["with_saliency.ReCAM-E"]["difference_interval"]  # no partner: shown, not judged
    board = rc.tables.scoreboard([other]).set_index("claim")
    assert board.loc["table4.with_saliency.ReCAM-E.val", "verdict"] == "reference"
    other["parameters"]["dataset"] = "coco14"  # the table is of VOC
    board = rc.tables.scoreboard([other]).set_index("claim")
    assert set(board.filter(like="table4.", axis=0)["verdict"]) == {"not run"}


def test_verdicts_in_the_notebook_are_those_of_the_scoreboard():
    stored = result()["rows"]
    cells = [guidance.cell("irn", kind, "deeplabv2") for kind in ("cam", "recam", "eps", "recam_e")]
    table = {cell: stored[cell.row] for cell in cells}
    table[cells[3]] = table[cells[3]] | {"difference_interval": [-2.0, -1.0]}
    table[cells[1]] = table[cells[1]] | {"floor": 41.6}
    claims = rc.table4.plugged_in(table)
    assert {name: claim["verdict"] for name, claim in claims.items()} == {
        "table4.without_saliency.ReCAM.val": "cannot tell",  # a network that calls everything background
        "table4.with_saliency.ReCAM-E.val": "does not hold",
        "table4.with_saliency.ReCAM-M.val": "not run",
    }
