"""Stages of segmentation: pseudo masks in, scores out; the upper bound apart from everything else."""

import typing

import numpy as np
import pytest
from chain import DATA, kinds, segmenter

import recamlib as rc
from recamlib.engine.fit import TrainingError
from recamlib.errors import DataError, SettingsError
from recamlib.method.scores import confusion, mean_iou
from recamlib.stages.base import Stage


def upper_bound(**more):
    settings = {"steps": 3, "batch_size": 4, "crop": 64, "lr": 0.01}
    return rc.TrainUpperBound(dataset=DATA, **(settings | more))


def test_training_on_pseudo_masks_never_opens_a_mask(empty, no_masks, capsys):
    result = segmenter().result
    assert result["images"] == 10 and result["history"]["steps"] == 3
    assert sum(result["balance"].values()) == pytest.approx(1)
    assert "10 pseudo masks to learn from: background" in capsys.readouterr().out
    with pytest.raises(pytest.fail.Exception):
        _ = rc.SegmentationScore(of=segmenter()).result
    with pytest.raises(pytest.fail.Exception):
        _ = upper_bound().result


def test_the_upper_bound_reads_true_masks_and_nothing_else_can_take_it():
    stage = upper_bound()
    assert stage.result["supervision"] == "true masks"
    assert rc.SegmentationScore(of=stage).label == "single-scale, no CRF, TRUE MASKS"
    fields = [(kind.__name__, f.annotation) for kind in kinds(Stage) for f in kind.model_fields.values()]
    takers = {name for name, held in fields if rc.TrainUpperBound in (held, *typing.get_args(held))}
    assert takers == {"SegmentationScore"}
    with pytest.raises(SettingsError):
        rc.TrainSegmenter(masks=stage)


@pytest.mark.parametrize("arch", ["deeplabv2_small", "deeplabv3plus_small", "upernet_small"])
def test_every_small_network_trains_and_is_scored(arch):
    stage = segmenter(arch=arch, optimizer="adamw" if arch == "upernet_small" else "sgd", jitter=True)
    score = rc.SegmentationScore(of=stage)
    assert score.result["images"] == 6
    truth, total = stage.dataset.masks("val"), np.zeros((6, 6), dtype=int)
    for name, mask in score.predictions():
        total += confusion(mask, truth.mask(name), num_classes=6)
    assert score.miou == pytest.approx(100 * mean_iou(total))
    low, high = score.interval()
    assert low <= score.miou <= high and len(score.per_class()) == 6


def test_kinds_of_evaluation_are_numbers_apart():
    pytest.importorskip("pydensecrf.densecrf")
    stage = segmenter()
    single, multi, refined = (
        rc.SegmentationScore(of=stage, limit=2, **more)
        for more in ({}, {"scales": (0.5, 1.0), "mirror": True, "window": 48}, {"crf": True})
    )
    assert len({score.uid for score in (single, multi, refined)}) == 3
    assert [s.label for s in (single, multi, refined)] == [
        "single-scale, no CRF", "2 scales, mirrored, no CRF", "single-scale, CRF",
    ]  # fmt: skip
    assert all(score.counts.shape == (2, 6, 3) for score in (single, multi, refined))
    assert single.interval_of_difference(single) == (0, 0)


def test_what_cannot_be_learned_from_stops_with_one_line():
    masks = rc.PseudoMasks(maps=segmenter().masks.maps, threshold=0.99999999)
    for given, error, message in (
        ({"masks": masks}, DataError, "10 pseudo masks hold background alone"),
        ({"lr": 1e30, "steps": 20}, TrainingError, r"step \d+ \(samples hoofed_train_"),
        ({"arch": "deeplabv2_smal"}, SettingsError, "deeplabv2_smal'.*deeplabv2_small"),
        ({"arch": "deeplabv3plus_small", "fixed_norm": True}, SettingsError, "fixed_norm"),
    ):
        with pytest.raises(error, match=message):
            _ = segmenter(**given).result
