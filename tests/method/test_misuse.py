"""What is easily mixed up is refused with the way out, instead of a plausible number."""

import numpy as np
import pytest
import torch

from recamlib.errors import DataError, SettingsError
from recamlib.method import losses, maps, scores
from recamlib.method.advcam import advcam_gain
from recamlib.method.boundary import boundary_loss, confident_labels
from recamlib.method.crf import crf_labels, crf_probabilities
from recamlib.method.saliency import edam_merge, eps_loss

G = torch.Generator().manual_seed(0)
LOGITS, LABELS = torch.randn(2, 3, generator=G), torch.tensor([[1, 0, 1], [0, 1, 0]])
SCORES, SALIENCY = torch.randn(2, 4, 5, 6, generator=G), torch.rand(2, 20, 24, generator=G)
MAPS, SALIENT = np.random.default_rng(0).random((2, 4, 5)), np.random.default_rng(1).random((4, 5))
NAN = float("nan")
LABEL_GRID = torch.zeros(1, 4, 7, dtype=torch.int64)
FEATURES, WEIGHT = torch.rand(1, 2, 3, 2, 2, generator=G), torch.rand(4, 3, generator=G)
SIGNS = torch.tensor([[1.0, -1.0, 0.0, 0.0]])
TRUTH = np.zeros((4, 5), np.uint8)
CELLS = torch.randn(2, 8, 5, 7, generator=G)
COUNTS = np.ones((6, 3, 3), np.int64)


def reactivate(labels, classes=3):
    return losses.reactivation_loss(torch.rand(2, classes, 3), labels, classifier=torch.nn.Identity())


def pixels(masks, at="logits"):
    losses.segmentation_loss(torch.zeros(2, 3, 4, 4), masks, at=at)


def sweep(planes=MAPS, classes=(0, 1), truth=TRUTH):
    scores.ThresholdSweep(3).add(planes, classes, truth)


@pytest.mark.parametrize("call, message", [
    # features and maps
    (lambda: maps.class_features(CELLS, torch.rand(2, 3, 7, 5)), r"maps \(2, 3, 7, 5\); expected"),
    (lambda: maps.class_activation_maps(CELLS, torch.rand(8, 3)), r"weight \(8, 3\)"),
    (lambda: maps.combine_weights(torch.rand(3, 8), torch.rand(1, 8), "w+w'"), r"\(3, 8\), fc2 \(1, 8\)"),
    (lambda: maps.merge_scales([torch.rand(1, 2, 2), torch.rand(2, 2, 2)], (8, 8)), "each scale of one"),
    # labels
    (lambda: losses.bce_loss(LOGITS, LABELS * 255), "labels hold 255, .* 0 and 1"),
    (lambda: losses.sce_loss(LOGITS, LABELS - 1), "labels hold -1"),
    (lambda: reactivate(torch.tensor([[0, 2, 0], [1, 1, 1]])), "labels hold 2, .*one_hot"),
    (lambda: reactivate(torch.zeros(2, 3)), "no image of this batch has a class"),
    (lambda: losses.bce_loss(LOGITS, LABELS[:, :2]), r"logits \(2, 3\), labels \(2, 2\)"),
    (lambda: reactivate(torch.ones(2, 5)), r"class features \(2, 3, 3\), labels \(2, 5\)"),
    # one class
    (lambda: reactivate(torch.ones(2, 1), classes=1), "one class.* teaches nothing.*BCE and CAM alone"),
    (lambda: losses.sce_loss(torch.zeros(2, 1), torch.ones(2, 1)), "softmax over one class"),
    # saliency
    (lambda: eps_loss(SCORES, SALIENCY * 255, LABELS), "saliency: .* 0 to 1: divide .* by 255"),
    (lambda: eps_loss(SCORES, SALIENCY[:1], LABELS), r"saliency \(1, 20, 24\)"),
    (lambda: edam_merge(MAPS, SALIENT.T), r"maps \(2, 4, 5\), saliency \(5, 4\)"),
    (lambda: eps_loss(SCORES, SALIENCY, LABELS + 1), "labels hold 2, expected multi-hot"),
    (lambda: edam_merge(MAPS, (SALIENT * 255).astype(np.uint8)), "divide grey values by 255"),
    (lambda: edam_merge(MAPS * NAN, SALIENT), "maps: values from nan"),
    (lambda: edam_merge(MAPS * 3, SALIENT), "expected 0 to 1: merge_scales"),
    # scores of classifiers
    (lambda: scores.mean_average_precision(LOGITS * NAN, LABELS), "NaN or infinite: .*diverged"),
    (lambda: scores.mean_average_precision(LOGITS, LABELS[:1]), r"scores \(2, 3\), labels \(1, 3\)"),
    (lambda: scores.mean_average_precision(LOGITS, 2 * LABELS), "expected multi-hot"),
    (lambda: scores.accuracy(LOGITS, LABELS.argmax(1)), r"labels \(2,\)"),
    # masks and maps
    (lambda: scores.confusion(MAPS[0], TRUTH, num_classes=2), "prediction: float64"),
    (lambda: scores.confusion(TRUTH, TRUTH.T, num_classes=2), "resize one"),
    (lambda: scores.confusion(TRUTH + 9, TRUTH, num_classes=2), "prediction: the value 9 came"),
    (lambda: scores.masked_argmax(MAPS[0], 0.5), r"maps \(4, 5\); expected maps \(classes, height"),
    (lambda: scores.masked_argmax(MAPS * NAN, 0.5), "NaN or infinite"),
    (lambda: sweep(planes=MAPS.swapaxes(1, 2)), r"maps \(2, 5, 4\)"),
    (lambda: sweep(planes=MAPS - 1), "below 0 or not finite"),
    (lambda: sweep(planes=MAPS[:1]), r"classes \(2,\)"),
    (lambda: sweep(classes=(0, 2)), "classes: the value 2 came, expected 0 to 1"),
    (lambda: sweep(classes=(1, 1)), "name one twice: .*multi-hot"),
    (lambda: sweep(truth=TRUTH.astype(int) - 1), "the mask: the value -1"),
    (lambda: scores.bootstrap_contrast([COUNTS, COUNTS], [1], seed=0), "2 samples came with 1 signs"),
    (lambda: scores.bootstrap_interval(COUNTS[..., 0], seed=0), r"shapes \(6, 3\)"),
    # boundaries
    (lambda: boundary_loss(torch.full((1, 4, 7), 3.0), LABEL_GRID, radius=2), "pass probabilities"),
    (lambda: boundary_loss(torch.rand(1, 4, 7), LABEL_GRID - 1, radius=2), "labels: the value -1"),
    (lambda: boundary_loss(torch.rand(1, 4, 7), LABEL_GRID[..., 1:]), r"labels \(1, 4, 6\)"),
    (lambda: boundary_loss(torch.rand(1, 4, 7), LABEL_GRID.float()), "labels: torch.float32"),
    (lambda: boundary_loss(torch.rand(1, 4, 7), LABEL_GRID), "4 x 7 cells is smaller .*, 10 x 19"),
    (lambda: confident_labels(TRUTH, TRUTH.T), r"\(4, 5\).*\(5, 4\)"),
    (lambda: confident_labels(TRUTH, TRUTH + 255), "the lenient mask: the value 255 .* 0 to 254"),
    # masks to learn from
    (lambda: pixels(torch.full((2, 4, 4), 3)), "the value 3 came, expected 0 to 2 or 255"),
    (lambda: pixels(torch.zeros(2, 4, 4)), "torch.float32 came, expected class numbers"),
    (lambda: pixels(torch.zeros(2, 1, 4, 4).long()), r"masks \(2, 1, 4, 4\)"),
    (lambda: pixels(torch.zeros(1, 4, 4).long()), r"logits \(2, 3, 4, 4\), masks \(1, 4, 4\)"),
    # networks' outputs
    (lambda: losses.multiscale_loss(SCORES, TRUTH), "no list of logits"),
    (lambda: advcam_gain(FEATURES[0], WEIGHT, SIGNS, None, mu=7), r"features \(2, 3"),
    (lambda: advcam_gain(FEATURES, WEIGHT, SIGNS, torch.ones(2, 2, 2), mu=7), r"start \(2, 2, 2\)"),
])  # fmt: skip
def test_mixed_up_data_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()


@pytest.mark.parametrize("call, message", [
    (lambda: maps.class_features(CELLS, torch.rand(2, 3, 5, 7), gap="pixel"), "did you mean 'pixels'"),
    (lambda: maps.merge_scales([torch.rand(1, 2, 2)], (8, 8), stride=0), "all must be 1 or more"),
    (lambda: advcam_gain(FEATURES, WEIGHT, SIGNS, None, mu=7, score="linaer"), "did you mean 'linear'"),
    (lambda: scores.bootstrap_interval(COUNTS, seed=0, level=95), "level 95"),
    (lambda: pixels(torch.zeros(2, 4, 4).long(), at="logit"), "did you mean 'logits'"),
    (lambda: scores.masked_argmax(MAPS, 35), "threshold is 35, expected a number from 0 to 1"),
    (lambda: scores.ThresholdSweep(3, thresholds=(15, 35)), "must be from 0 to 1"),
    (lambda: eps_loss(SCORES, SALIENCY, LABELS, share=50), "share 50: both are shares"),
    (lambda: edam_merge(MAPS, SALIENT, theta=20), "theta is 20"),
    (lambda: scores.bootstrap_interval(COUNTS, seed=0, repeats=0), "repeats is 0"),
])  # fmt: skip
def test_words_and_ranges_of_settings_are_checked(call, message):
    with pytest.raises(SettingsError, match=message):
        call()


def test_half_precision_from_a_network_is_taken():
    planes, salient = torch.from_numpy(MAPS).bfloat16(), torch.from_numpy(SALIENT).bfloat16()
    np.testing.assert_array_equal(edam_merge(planes, salient), edam_merge(planes.float(), salient.float()))
    one, other = scores.ThresholdSweep(3), scores.ThresholdSweep(3)
    one.add(planes, [0, 1], TRUTH)
    other.add(planes.float(), torch.tensor([0, 1]), torch.from_numpy(TRUTH))
    np.testing.assert_array_equal(one.miou, other.miou)
    assert eps_loss(SCORES.bfloat16(), SALIENCY, LABELS).isfinite()
    pytest.importorskip("pydensecrf")
    image = torch.randint(0, 256, (3, 4, 5), generator=G, dtype=torch.uint8)
    shares = torch.from_numpy(np.stack([MAPS[0], 1 - MAPS[0]])).bfloat16()
    np.testing.assert_array_equal(crf_probabilities(image, shares), crf_probabilities(image, shares.float()))
    with pytest.raises(DataError, match="labels: float32 came"):
        crf_labels(image, shares[0], num_labels=2)
