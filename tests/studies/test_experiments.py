"""Planned experiments: what a level changes, what is paired, and the rule they are read by."""

import numpy as np
import pytest

import recamlib as rc
from recamlib.book.profiles import list_profiles, profile_parameters
from recamlib.errors import SettingsError
from recamlib.report import plots_beyond
from recamlib.studies import beyond, reading
from recamlib.studies.experiments import Level, load_plans, parse_plans, read_plans, run

CENTRE = {
    "data": {"train_count": 10, "val_count": 6, "size": 48},
    "classifier": {"epochs": 1, "batch_size": 4, "crop": 32, "lr": 0.05, "fc_lr_factor": 1.0},
    "reactivation": {"epochs": 1, "batch_size": 4},
    "maps": {"scales": [1.0], "weights": "w*w'"},
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("RECAM_WORKERS", "0")


def parse(content, **more):
    return parse_plans(content, centre=CENTRE, **({"seeds": [0]} | more))


def test_a_level_changes_one_thing_and_keeps_the_key_of_the_rest():
    plan = parse({"p": {"factors": {
        "gradient": {"detached": {"reactivation.detach_maps": True}},
        "images": {"several": {"data.train_labels": "multi"}},
        "lambda": {"0": {"reactivation.sce_weight": 0.0}},
    }}})["p"]  # fmt: skip
    centre, detached, several, control = (plan.stages(level, 0) for level in plan.levels)
    assert detached[0].model.uid == centre[0].model.uid  # the same classifier, read back
    assert detached[1].model.detach_maps and detached[1].model.uid != centre[1].model.uid
    counts = [len(maps.dataset.images("train_aug")) for maps in (centre[0], several[0])]
    assert 0 < counts[1] < counts[0] == 10
    assert (several[0].dataset.images("train_aug").label_matrix().sum(1) > 1).all()
    assert several[0].images("train").ids == centre[0].images("train").ids  # scored on the same
    assert control[1].weights == "w" and centre[1].weights == "w*w'"


def test_the_centre_of_a_notebook_is_the_stage_of_another():
    own = rc.TrainClassifier(dataset=rc.DataSettings(train_count=10, val_count=6, size=48), seed=1,
                             **CENTRE["classifier"])  # fmt: skip
    plan = parse({"p": {}})["p"]
    assert plan.stages(plan.levels[0], 1)[0].model.uid == own.uid
    whole = dict(rc.DataSettings(train_count=10, val_count=6, size=48))  # as the notebook hands them over
    again = parse_plans({"p": {}}, centre=CENTRE | {"data": whole}, seeds=[1])["p"]
    assert again.stages(again.levels[0], 1)[0].model.uid == own.uid


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"factor": {}}, "no key 'factor' .did you mean 'factors'"),
        ({"factors": {"a": {"b": {"reactivation.momentun": 1}}}}, "did you mean 'momentum'"),
        ({"factors": {"a": {"b": {"momentum": 0.9}}}}, "write part.setting"),
        ({"factors": {"a": {"b": {"reactivation.momentum": 2}}}}, "less than 1"),
    ],
)
def test_a_plan_with_a_mistake_fails_before_it_runs(entry, message):
    with pytest.raises(SettingsError, match=message):
        parse({"p": entry})


def test_files_of_plans(tmp_path):
    with pytest.raises(SettingsError, match="no plan 'smok' .did you mean 'smoke'"):
        load_plans("smok", centre=CENTRE, seeds=[0])
    (tmp_path / "a.yml").write_text("p: [1]")
    with pytest.raises(SettingsError, match="every plan is a mapping"):
        read_plans(tmp_path / "a.yml")
    for profile in list_profiles():
        asked = profile_parameters(profile, "06_beyond")
        plans = load_plans(asked.get("plans", "smoke"), centre=CENTRE, seeds=[0])
        wanted = {*asked.get("sections", ["transformers", "momentum", "gradient", "sign"])}
        assert wanted - {"walk", "classifier", "methods"} <= {*plans}, profile


def test_responses_are_what_the_scores_say(results):
    plan = parse({"p": {"factors": {"maps": {"w": {"maps.weights": "w"}}}}}, seeds=[0, 1], limit=6)["p"]
    responses = run(plan)
    assert [(r["level"], r["seed"]) for r in responses] == [
        ("centre", 0), ("centre", 1), ("maps w", 0), ("maps w", 1),
    ]  # fmt: skip
    cam, recam = plan.scores(plan.levels[1], 1)
    assert responses[3]["cross"]["miou"] == pytest.approx(recam.miou - cam.miou)
    assert responses[3]["fixed"]["miou"] == pytest.approx(recam.fixed - cam.fixed)
    assert responses[3]["counts"]["cross"][0].shape == (6, 6, 3)
    frame = reading.table(responses)
    assert frame.loc["maps w", "difference"] == pytest.approx(
        np.mean([r["cross"]["miou"] for r in responses[2:]])
    )
    assert rc.tables.shown(reading.shown(frame)).shape[0] == 2
    assert reading.rows("sign", frame)["sign: maps w"]["mean"] == frame.loc["maps w", "difference"]
    _fig, axes = plots_beyond.plt.subplots(1, 2)
    plots_beyond.forest(frame, axes=axes)
    points = beyond.precision_points([plan])
    assert [p["seed"] for p in points] == [0, 1]  # the level that only reads otherwise adds none
    assert all(low <= p["map"] <= high for p in points for low, high in [p["map_interval"]])


def made(name, factor, values, gain):
    """Responses of a level: differences per seed, and counts of 40 images that gain or lose."""
    rng = np.random.default_rng(0)
    before = np.stack([np.array([[50, 60, 70], [20, 40, 30]])] * 40) + rng.integers(0, 3, (40, 2, 3)) * 0
    after = before.copy()
    after[:, 1, 0] += gain
    counts = {"cross": [after, before], "fixed": [after, before]}
    cell = {"false_positives": 0.0, "false_negatives": 0.0}
    return [
        {"level": name, "factor": factor, "seed": i, "cam": 30.0, "recam": 30.0 + v, "counts": counts,
         "cross": {"miou": v, **cell}, "fixed": {"miou": v, **cell}} for i, v in enumerate(values)
    ]  # fmt: skip


def test_the_rule_needs_both_kinds_of_levels_and_both_intervals():
    centre = made("centre", "centre", [5.0, 5.2, 4.9], 5)
    lower = made("rate low", "rate", [-4.0, -4.1, -3.8], -5)
    same = made("crop 9", "crop", [5.1, 5.0, 5.2], 5)
    frame = reading.table([*centre, *lower, *same])
    assert list(frame["sign"]) == ["raises", "lowers", "raises"]
    assert reading.deciding(frame) == ["rate"] and {*reading.moving(frame)} == {"rate low"}
    assert reading.answer(frame)["verdict"] == "holds"
    assert reading.answer(frame.drop(index="rate low"))["verdict"] == "does not hold"
    images = reading.table([*centre, *made("rate low", "rate", [-4.0, -4.1, -3.8], 0)])
    assert images.loc["rate low", "sign"] == "cannot tell"  # the images do not show what the seeds show
    noisy = reading.table([*made("centre", "centre", [5.0, -4.0, 9.0], 5), *lower])
    assert noisy.loc["centre", "sign"] == "cannot tell"
    assert reading.answer(noisy)["verdict"] == "cannot tell"
    alone = reading.table([*made("centre", "centre", [5.0], 5), *made("a b", "a", [-5.0], -5)])
    assert {*alone["sign"]} == {"cannot tell"} and reading.changed(alone)["verdict"] == "cannot tell"


def test_ranks_over_classifiers_not_over_seeds():
    points = [
        {"classifier": f"c{i}", "seed": s, "map": 10.0 * i, "cam": 3.0 * i + s, "recam": -2.0 * i}
        for i in range(6) for s in (0, 1)
    ]  # fmt: skip
    value, p = beyond.rank_correlation(points, "cam")
    assert value == pytest.approx(1) and p == pytest.approx(2 / 720)
    assert beyond.rank_correlation(points, "recam")[0] == pytest.approx(-1)
    assert beyond.better_map(points)["verdict"] == "holds"
    assert beyond.better_map(points[:6])["verdict"] == "cannot tell"
    fallen = [point | {"cam": -point["cam"]} for point in points]
    assert beyond.better_map(fallen)["verdict"] == "does not hold"
    _fig, axes = plots_beyond.plt.subplots(1, 2)
    plots_beyond.precision_scatter(points, axes=axes)
    given = {"backbone": "b", "profile": "mini", "dataset": "voc12"}
    stored = {"notebook": "02_x", "parameters": given, "images": {"train": 9}, "rows": {
        "bce_only": {"per_seed": [1.0, 2.0], "average_precision": [50.0, 60.0]},
        "recam_w_times_w_prime": {"per_seed": [3.0, 4.0]},
    }}  # fmt: skip
    without = {**stored, "rows": {"bce_only": {"per_seed": [1.0]}}}
    other = {**stored, "parameters": given | {"dataset": "hoofed"}}  # its mAP is that of other classes
    more = {**stored, "images": {"train": 8}}
    assert {p["classifier"][-8:] for p in beyond.stored_points([stored, more], dataset="voc12")} == {
        "9 images", "8 images",
    }  # fmt: skip
    found = beyond.stored_points([stored, without, other], dataset="voc12")
    assert [(p["map"], p["cam"], p["recam"]) for p in found] == [(50.0, 1.0, 3.0), (60.0, 2.0, 4.0)]


def test_answers_about_methods_and_walks():
    rows = {"cam": {"mean": 30.0}, "gradcam": {"difference": 0.0, "difference_interval": [0.0, 0.0]}}
    assert beyond.best_method(rows)["verdict"] == "holds"
    rows["layercam"] = {"difference": 1.0, "difference_interval": [-1.0, 3.0]}
    assert beyond.best_method(rows)["verdict"] == "cannot tell"
    rows["scorecam"] = {"difference": 2.0, "difference_interval": [1.0, 3.0]}
    assert beyond.best_method(rows)["verdict"] == "does not hold"
    half = {"difference": 1.0, "interval": [0.5, 2.0]}
    walked = {"chosen": [4.0, 16, 0.3], "train": half, "val": half}
    assert beyond.tuned_walk(walked)["verdict"] == "holds"
    assert Level("a", "b", {}).title == "a b"


def test_a_classifier_that_two_plans_share_is_one_point(results):
    plans = parse({"p": {}, "q": {}}, limit=6)
    points = beyond.precision_points(plans.values())
    assert [(p["classifier"], p["seed"]) for p in points] == [("resnet_small, p: centre", 0)]
    later = parse({"q": {"seeds": [1]}}, limit=6)["q"]  # another seed of it goes by the same name
    points = beyond.precision_points([plans["p"], later])
    assert [(p["classifier"], p["seed"]) for p in points] == [
        ("resnet_small, p: centre", 0), ("resnet_small, p: centre", 1),
    ]  # fmt: skip
