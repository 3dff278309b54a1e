"""Counts, IoU, the threshold sweep against a literal loop, intervals, and scores of classifiers."""

import numpy as np
import pytest
import torch

from recamlib.errors import RecamError
from recamlib.method import scores
from recamlib.method.scores import THRESHOLDS, ThresholdSweep, bootstrap_contrast, bootstrap_interval


def scene(rng, classes, shape=(23, 31), num_classes=6):
    """Maps with many values exactly on a threshold, next to one, 0 and 1; a mask with ignored pixels."""
    maps = rng.random((len(classes), *shape), dtype=np.float32)
    for m in maps:
        where, on = rng.random(shape), rng.choice(np.array(THRESHOLDS, dtype=np.float32), shape)
        above, below = np.nextafter(on, np.float32(2)), np.nextafter(on, np.float32(-1)).clip(0)
        m[:] = np.select([where < 0.2, where < 0.3, where < 0.4], [on, above, below], m)
    if len(classes) > 1:
        maps[1, :5] = maps[0, :5]  # two classes of one value: the first wins
    truth = rng.choice(np.array([0, *(np.array(classes, dtype=int) + 1), num_classes - 1, 255]), shape)
    return maps, truth.astype(np.uint8)


@pytest.mark.parametrize("thresholds", [THRESHOLDS, (0.0, 0.05, 0.21, 0.5, 0.999)], ids=["even", "chosen"])
def test_sweep_equals_a_loop_over_thresholds(thresholds):
    rng = np.random.default_rng(0)
    scenes = [(c, *scene(rng, c)) for c in ([2], [0, 3], [1, 2, 4], [], [4, 0])]
    sweep = ThresholdSweep(6, thresholds=thresholds)
    for classes, maps, truth in scenes:
        sweep.add(torch.from_numpy(maps), classes, truth)
    assert len(sweep) == len(scenes)
    expected_miou = []
    for t in thresholds:
        # the published rule: a plane of the threshold in front, then argmax
        planes = [np.concatenate([np.full((1, *m.shape[1:]), t, np.float32), m]) for _, m, _ in scenes]
        masks = [np.array([0, *(k + 1 for k in c)])[p.argmax(0)] for p, (c, _, _) in zip(planes, scenes)]
        parts = [scores.confusion(p, s[2], num_classes=6) for p, s in zip(masks, scenes, strict=True)]
        np.testing.assert_array_equal(sweep.at(t), sum(parts))
        counts = [scores.class_counts(p, s[2], num_classes=6) for p, s in zip(masks, scenes, strict=True)]
        np.testing.assert_array_equal(sweep.per_image(t), counts)
        expected_miou.append(scores.mean_iou(sum(parts)))
    np.testing.assert_allclose(sweep.miou, expected_miou, rtol=1e-12)
    assert sweep.best == thresholds[int(np.argmax(expected_miou))]


def test_sweep_stores_only_what_is_asked():
    sweep = ThresholdSweep(6, keep=(0.15,))
    maps, truth = scene(np.random.default_rng(1), [1, 2])
    sweep.add(maps, [1, 2], truth)
    assert sweep.per_image(0.15).shape == (1, 6, 3)
    with pytest.raises(RecamError, match="not stored at threshold 0.2"):
        sweep.per_image(0.2)
    with pytest.raises(RecamError, match=r"nearest one is 0\.22"):
        sweep.at(0.2151)
    with pytest.raises(RecamError, match="must ascend"):
        ThresholdSweep(3, thresholds=(0.2, 0.1))


def test_miou_agrees_with_torchmetrics():
    from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

    rng = np.random.default_rng(3)
    truth, pred = rng.integers(0, 7, (2, 40, 50))
    truth[:5] = 255
    ours = scores.confusion(pred, truth, num_classes=7)
    t, p = torch.from_numpy(truth), torch.from_numpy(pred)
    theirs = multiclass_confusion_matrix(p, t, num_classes=7, ignore_index=255)
    np.testing.assert_array_equal(ours, theirs.numpy())
    expected = multiclass_jaccard_index(p, t, num_classes=7, ignore_index=255, average="macro")
    assert scores.mean_iou(ours) == pytest.approx(expected.item(), rel=1e-6)
    matrix = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])  # a class without pixels does not count
    assert scores.mean_iou(matrix) == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert np.isnan(scores.mean_iou(0 * matrix))


def made_up_counts(images, classes, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 1000, (images, classes)) * (rng.random((images, classes)) < 0.2)
    pred = (truth * rng.uniform(0.5, 1.5, truth.shape)).astype(int)
    return np.stack([np.minimum(truth, pred) * 3 // 4, pred, truth], axis=2)


def test_interval_equals_drawing_images_one_by_one():
    counts = made_up_counts(40, 5)
    rng = np.random.default_rng(7)
    drawn = rng.integers(0, 40, (200, 40))
    expected = np.quantile([scores.mean_iou_from_counts(counts[d].sum(0)) for d in drawn], [0.025, 0.975])
    np.testing.assert_allclose(bootstrap_interval(counts, seed=7, repeats=200), expected, rtol=1e-12)
    low, high = bootstrap_interval(counts, seed=0)
    assert low < scores.mean_iou_from_counts(counts.sum(0)) < high
    narrow = bootstrap_interval(counts, seed=0, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_paired_difference_is_narrower_than_two_intervals():
    a = made_up_counts(300, 5)
    b = a.copy()
    b[:, :, 0] = b[:, :, 0] * 9 // 10
    low, high = bootstrap_contrast([a, b], (1, -1), seed=0)
    wide = bootstrap_interval(a, seed=0)
    assert 0 < low < high and high - low < wide[1] - wide[0]
    assert bootstrap_contrast([a, a], (1, -1), seed=0) == (0, 0)
    with pytest.raises(RecamError, match="same images"):
        bootstrap_contrast([a, b[:2]], (1, -1), seed=0)
    with pytest.raises(RecamError, match="at least one scored image"):
        bootstrap_interval(a[:0], seed=0)


def test_accuracy_and_average_precision():
    logits = torch.tensor([[3.0, 1.0, 0.0], [2.0, 0.0, 9.0], [0.0, 5.0, 4.0], [0.0, 1.0, 0.0]])
    labels = torch.tensor([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    assert scores.accuracy(logits, labels) == pytest.approx(2 / 3)  # the last image has no class
    # class 0: ranks 1 and 2 right, then two tied at 3-4 with one right: (1 + 1 + 3/4) / 3; class 1: rank 1
    assert scores.mean_average_precision(logits, labels) == pytest.approx(((1 + 1 + 3 / 4) / 3 + 1) / 2)
    assert scores.mean_average_precision(logits[:, :1], labels[:, :1]) == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert np.isnan(scores.mean_average_precision(logits, labels * 0))
