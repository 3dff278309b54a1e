"""Stages of refinement: confident labels, boundary network, AdvCAM, walk; masks, costs, bad input."""

import numpy as np
import pytest
import torch
from chain import advcams, boundary, cams, classifier, reactivated, walked

import recamlib as rc
from recamlib.data.images import labels_from_png
from recamlib.engine.device import per_image
from recamlib.errors import DataError, SettingsError
from recamlib.stages import refine


@pytest.mark.parametrize("maps", [cams, advcams])  # its power is the walk's alone
def test_labels_keep_what_both_thresholds_agree_on(maps):
    stage = rc.ConfidentLabels(cams=maps(), crf=False, foreground=0.6, background=0.2)
    names = stage.cams.dataset.images("train_aug").ids
    stored = stage.items([("train_aug", name) for name in names])
    for item, (name, maps, present) in zip(stored, stage.cams.maps("train_aug"), strict=True):
        found, peak = stage.read(item), maps.numpy().max(0)
        names = np.asarray(present)[maps.numpy().argmax(0)] + 1
        expected = np.where(peak > 0.6, names, np.where(peak > 0.2, 255, 0))
        assert np.array_equal(found, expected), name
        assert item["kept"] == pytest.approx((expected != 255).mean())
    for kind in (rc.ConfidentLabels, rc.TrainBoundary):
        with pytest.raises(SettingsError, match="foreground"):
            kind(foreground=0.1, background=0.35)


def test_training_the_boundary_is_repeatable_and_stores_the_branch_alone():
    stage = boundary(epochs=2)
    result = stage.result
    assert result["images"] == 10 and len(result["history"]["loss"]) == 2
    path = stage.folder / result["weights"]["file"]
    assert path.stat().st_size < 200_000  # the branch; the backbone alone is larger
    path.unlink()
    assert boundary(epochs=2).result["weights"] == result["weights"]
    assert not (stage.folder / "checkpoint").exists() and boundary(limit=4).result["images"] == 4


def test_the_walk_is_the_function_of_its_upstream():
    stage = walked()
    for name, item in stage.run("train"):
        stored = next(iter(stage.cams.items([("train", name)])))
        wall = next(iter(stage.boundaries.items([("train", name)])))["boundary"]
        wall = torch.from_numpy(np.array(wall)).float()
        expected = rc.walk.random_walk(stage.cams.merge(stored, stride=4), wall, steps=16)
        expected = expected / expected.max()
        assert np.abs(np.array(item["maps"], dtype=np.float32) - expected.numpy()).max() < 2e-3
        full = stage.merge(item)
        assert full.shape[1:] == tuple(item["size"]) and full.max() == pytest.approx(1)


def test_the_time_of_a_pipeline_adds_up(monkeypatch):
    stage = walked()
    cost = rc.pipeline_cost(stage, split="train")
    assert list(cost["parts"]) == [
        "train classifier", "extract maps", "confident labels", "train boundary", "boundary maps",
        "random walk", "masks",
    ]  # fmt: skip
    assert cost["seconds"] == pytest.approx(sum(cost["parts"].values()))
    assert cost["parts"]["train classifier"] == classifier().result["cost"]["seconds"]
    walks = [item["cost"]["seconds"] for _, item in stage.run("train")]
    assert cost["parts"]["random walk"] == pytest.approx(sum(walks))
    half = rc.pipeline_cost(stage, split="train", limit=5)["parts"]["random walk"]
    assert half == pytest.approx(2 * sum(i["cost"]["seconds"] for _, i in stage.run("train", limit=5)))
    monkeypatch.setattr(refine, "per_image", lambda cost, n: per_image({**cost, "device": "another"}, n))
    with pytest.warns(UserWarning, match="different devices .*another"):
        rc.pipeline_cost(walked(steps=3), split="train")


def test_table_two_has_its_eight_cells_and_times():
    recam = rc.ExtractCams(model=reactivated(), scales=(1.0,), weights="w*w'")
    cams = {"cam": [rc.ExtractCams(model=classifier(), scales=(1.0,))], "recam": [recam]}
    cams["recam_w_prime"] = [rc.ExtractCams(model=reactivated(), scales=(1.0,), weights="w'")]
    settings = {
        "AdvCams": {"steps": 1}, "Walk": {"steps": 4},
        "TrainBoundary": {"epochs": 1, "batch_size": 4, "crop": 64, "radius": 5, "crf": False},
    }  # fmt: skip
    rows = rc.table2.systems(cams, settings, advcam_images=6)
    part = rc.table2.part_of
    scores = {cell: [rc.Score(of=m, limit=part(cell, 6)) for m in row] for cell, row in rows.items()}
    table = rc.score_table(scores, baseline={cell: cell.partner for cell in rows})
    assert len(table) == 12 and "IRN, ReCAM, w'" in {cell.title for cell in table}
    for method, settings in (("advcam_irn", (1.5, 0.15)), ("irn", (1.0, 0.10))):
        (stage,) = rows[rc.table2.cell(method, "cam")]
        assert (stage.power, stage.boundary.labels.background) == settings
    assert all(row["images"] == (6 if "advcam" in cell.method else 10) for cell, row in table.items())
    assert all(("difference" in row) == (cell.kind != "cam") for cell, row in table.items())
    times = rc.table2.unit_times(rows, split="train", advcam_images=6)
    assert times[rc.table2.cell("none", "cam")]["mean"] == pytest.approx(1)
    assert times[rc.table2.cell("irn", "cam")]["mean"] > 1

    stored = {cell.row: table[cell] for cell in rows} | {cell.time_row: times[cell] for cell in rows}
    frame = rc.table2.frame({"parameters": {"dataset": "hoofed"}, "rows": stored})
    assert list(frame.index) == list(rc.cells.METHODS.values()) and frame.loc["IRN", "ReCAM paper"] == 70.9
    seeded = rc.table2.systems({"cam": [rc.ExtractCams(model=classifier(seed=3))]}, {}, methods=["irn"])
    assert [stage.boundary.seed for (stage,) in seeded.values()] == [3]
    # with some of its rows alone
    first = {cell: row[0] for cell, row in scores.items() if cell.method == "none"}
    claims = rc.table2.recam_against_advcam({cell: times[cell] for cell in first}, rows)
    assert claims["prose.recam_vs_advcam_speed"]["verdict"] == "not run"
    assert rc.table2.single_and_multi_label(first)["prose.single_and_multi_label"]["verdict"] != "holds"
    with pytest.raises(SettingsError, match="none"):
        rc.table2.unit_times({cell: rows[cell] for cell in rows if cell.method == "irn"}, split="train")


def test_pseudo_masks_use_the_fixed_threshold_and_refuse_background_alone():
    masks = rc.PseudoMasks(maps=cams())
    stored, shares = masks.training_set()
    assert len(stored) == 10
    for (name, maps, present), png in zip(masks.maps.maps("train_aug"), stored.values()):
        peak, names = maps.numpy().max(0), np.asarray(present)[maps.numpy().argmax(0)] + 1
        expected = np.where(peak > np.float32(0.55), names, 0)
        assert np.array_equal(labels_from_png(png), expected), name
    assert shares == masks.balance() and sum(shares.values()) == pytest.approx(1)
    with pytest.raises(DataError, match="10 pseudo masks hold background alone"):
        rc.PseudoMasks(maps=cams(), threshold=0.99999999).training_set()
