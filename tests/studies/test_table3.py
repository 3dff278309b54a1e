"""Table 3 put together: cells named as the paper's, comparisons, shares of the upper bound, figures."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import recamlib as rc
from recamlib.errors import SettingsError
from recamlib.files import read_yaml
from tests.stages import chain

pytestmark = pytest.mark.usefixtures("results")
CAM, RECAM = (rc.table2.cell("none", kind) for kind in ("cam", "recam"))


def maps(seed=0):
    base = chain.classifier(seed=seed)
    recam = chain.cams(chain.reactivated(base=base), scales=(1.0,), weights="w*w'")
    return {CAM: [chain.cams(base, scales=(1.0,))], RECAM: [recam]}


def test_recipes_are_those_of_the_paper_unless_overridden():
    rows = rc.table3.networks(maps(), {"deeplabv2": {}, "upernet_swin": {}}, {"TrainSegmenter": {"steps": 7}})
    kinds = ("deeplabv2_cam_val", "deeplabv2_recam_val", "upernet_cam_val", "upernet_recam_val")
    assert [cell.row for cell in rows] == [f"none.{kind}" for kind in kinds]
    first, *_, last = (row[0] for row in rows.values())
    found = (first.lr, first.weight_decay, first.batch_size, first.crop, first.steps)
    assert found == (2.5e-4, 5e-4, 10, 321, 7)
    assert (last.optimizer, last.lr, last.power, last.jitter, last.crop) == ("adamw", 6e-5, 1.0, True, 512)
    assert (last.scale, last.short_side) == ((0.5, 2.0), 512)  # 2048 x 512 with ratio 0.5 to 2
    assert {claim.id for claim in rc.claims.all_claims()} >= {cell.claim_id("hoofed") for cell in rows}
    with pytest.raises(SettingsError, match="deeplabv2"):
        rc.table3.networks(maps(), {"deeplab2": {}}, {})
    for profile, notebook in itertools.product(("voc12", "coco14"), ("04", "05")):  # one pass and the CRF
        parameters = read_yaml(rc.paths.ROOT / "notebooks" / "profiles" / f"{profile}.yml")
        score = rc.SegmentationScore(**parameters[notebook]["settings"]["SegmentationScore"])
        assert (score.scales, score.mirror, score.crf) == ((1.0,), False, True)


def test_a_network_has_its_recipe_then_its_own_settings_then_those_of_all():
    archs, data = {"deeplabv2": {"lr": 0.5}, "upernet_swin": {}}, rc.DataSettings()
    bounds = rc.table3.upper_bounds(data, archs, {}, seeds=[3, 5])
    assert {cell.row: [(s.lr, s.seed) for s in row] for cell, row in bounds.items()} == {
        "upper_bound.deeplabv2": [(0.5, 3), (0.5, 5)], "upper_bound.upernet": [(6e-5, 3), (6e-5, 5)],
    }  # fmt: skip
    rows = rc.table3.networks(maps(seed=7), archs, {"TrainSegmenter": {"lr": 0.25}})
    assert {(row[0].lr, row[0].seed) for row in rows.values()} == {(0.25, 7)}
    coco = rc.DataSettings(name="coco14", fingerprint="x")
    assert [rc.table3.recipe(arch, coco, {}, {})["steps"] for arch in archs] == [100_000, 80_000]
    assert rc.table3.recipe("upernet_swin", coco, {"steps": 5}, {})["steps"] == 5
    assert rc.table3.recipe_frame(data, archs, {})["optimizer"].tolist() == ["sgd", "adamw"]
    source = maps() | {replace(cell, method="advcam"): stages for cell, stages in maps().items()}
    settings = {"TrainSegmenter": {"limit": 5}}
    rows = rc.table3.networks(source, {"deeplabv2_small": {}}, settings, advcam_images=3)
    assert {cell.method: row[0].limit for cell, row in rows.items()} == {"none": 5, "advcam": 3}


def test_the_table_compares_recam_with_cam_and_both_with_the_upper_bound():
    settings, archs = {"TrainSegmenter": {"steps": 2, "batch_size": 4, "crop": 64}}, {"deeplabv2_small": {}}
    source = maps()
    data = source[CAM][0].dataset
    rows = rc.table3.networks(source, archs, settings)
    rows |= rc.table3.upper_bounds(data, archs, settings, seeds=[0])
    scores = {name: [rc.SegmentationScore(of=net) for net in row] for name, row in rows.items()}
    table = rc.table3.table(scores)
    places = [rc.table3.cell("none", kind, "deeplabv2") for kind in ("cam", "recam")]
    cam, recam = (table[place] for place in places)
    assert "difference" not in cam and recam["difference"] == pytest.approx(recam["mean"] - cam["mean"])
    assert rc.claims.row_verdict(recam, +1) == "not converged"  # two steps learn nothing
    assert recam["convergence"].startswith("upper bound ")
    poor = recam | {"mean": recam["floor"], "difference_interval": [1.0, 2.0], "converged": True}
    assert 0 < recam["floor"] < 50 and rc.claims.row_verdict(poor, +1) == "cannot tell"
    bound = table[rc.table3.bound("deeplabv2")]
    assert recam["share_of_upper_bound"] == pytest.approx(100 * recam["mean"] / bound["mean"])
    assert bound["evaluation"].endswith("TRUE MASKS")
    frame = rc.table3.frame({"parameters": {"dataset": "hoofed"}, "rows": rc.cells.rows_of(table)})
    assert frame.loc[("DeepLabV2", "no refinement"), "ReCAM paper"] == 59.0
    shares = rc.table3.balance_frame({CAM: cam["balance"]})
    assert shares.loc["no refinement, CAM"].sum() == pytest.approx(100)
    assert shares.loc["no refinement, CAM", "ignored"] == 0
    cost = rc.table3.cost_frame(table).loc["DeepLabV2, TRUE MASKS"]
    assert 0 < cost["waiting for data, %"] < 100 and cost["peak memory, MiB"] > 0 and cost["trained on"] == 10
    kinds = rc.table3.evaluations({"CAM": scores[places[0]][0]}, limit=2)
    assert list(kinds.index)[:2] == ["single-scale, no CRF", "6 scales, mirrored, no CRF"]
    pictures = rc.prediction_examples(*(scores[place][0] for place in places), count=2)
    kinds = ("CAM pseudo mask", "CAM network", "ReCAM pseudo mask", "ReCAM network")
    assert [*map(tuple, pictures)] == [("caption", "image", *kinds, "truth")] * 2


class Scored:
    """A score with made-up counts: one class beside background, so many of ten pixels right in each image."""

    def __init__(self, *right):
        hit = np.array(right)[:, None]
        self.counts = np.concatenate([np.full_like(hit, 10)] * 3 + [hit, hit * 0 + 10, hit * 0 + 10], 1)
        self.counts = self.counts.reshape(-1, 2, 3)

    @property
    def miou(self):
        return 100 * rc.scores.mean_iou_from_counts(self.counts.sum(0)).item()


def test_the_margin_of_the_stronger_network_is_judged_by_a_paired_interval():
    def judge(upernet, deeplab, bounds=(9, 5)):
        found = {("recam", "upernet"): upernet, ("cam", "upernet"): (4, 4, 4),
                 ("recam", "deeplabv2"): deeplab, ("cam", "deeplabv2"): (4, 4, 4)}  # fmt: skip
        scores = {rc.table3.cell("none", *place): [Scored(*right)] for place, right in found.items()}
        networks = ("upernet", "deeplabv2")
        scores |= {rc.table3.bound(name): [Scored(top)] for name, top in zip(networks, bounds)}
        return rc.table3.margin_of_the_stronger(scores)["prose.larger_margin_on_stronger"]

    assert judge((8, 8, 8), (5, 5, 5))["verdict"] == "holds"
    assert judge((5, 5, 5), (8, 8, 8))["verdict"] == "does not hold"
    assert judge((2, 5, 9), (6, 4, 6))["verdict"] == "cannot tell"
    assert judge((8, 8, 8), (5, 5, 5), bounds=(5, 9))["verdict"] == "cannot tell"  # not the stronger
    assert judge((8, 8, 8), (5, 5, 5))["evidence"].startswith("none +")
    none = rc.table3.margin_of_the_stronger({rc.table3.cell("none", "cam", "deeplabv2"): [Scored(4)]})
    assert none["prose.larger_margin_on_stronger"]["verdict"] == "not run"
