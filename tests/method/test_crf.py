"""Dense CRF against mean field written out, on damaged input, and in several processes."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.special import softmax

from recamlib.errors import DataError, RecamError, SettingsError
from recamlib.method import crf
from recamlib.method.crf import MissingCrfError, crf_labels, crf_many, crf_probabilities
from recamlib.paths import ROOT

installed = importlib.util.find_spec("pydensecrf")
compiled = pytest.mark.skipif(not installed, reason="pydensecrf2 could not be compiled here")


def of(image, labels, num_labels=2):
    return {"image": image, "labels": labels, "num_labels": num_labels}


def scene(height=40, width=60, *, seed=0):
    """Return a picture of two areas, their labels, and labels that are wrong in many pixels."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((height, width), np.int64)
    truth[height // 4 : height // 4 * 3, width // 3 :] = 1
    image = np.where(truth, 170, 60)[None] + rng.integers(-8, 9, (3, height, width))
    noisy = np.where(rng.random(truth.shape) < 0.15, 1 - truth, truth)
    return torch.from_numpy(image.astype(np.uint8)), truth, noisy


def written_out(image, unary, settings):
    """Mean field with every pair of pixels in a matrix; the package approximates these sums."""
    height, width = image.shape[1:]
    y, x = np.mgrid[:height, :width]
    places = np.stack([x, y]).reshape(2, -1).astype(float)
    colours = image.reshape(3, -1).astype(float) / settings.bilateral_srgb
    kernels = []
    for weight, f in (
        (settings.spatial_weight, places / settings.spatial_sxy),
        (settings.bilateral_weight, np.concatenate([places / settings.bilateral_sxy, colours])),
    ):
        kernel = np.exp(-((f[:, :, None] - f[:, None]) ** 2).sum(0) / 2)
        scale = 1 / np.sqrt(kernel.sum(1))
        kernels.append(weight * scale[:, None] * kernel * scale)
    q = softmax(-unary, axis=0)
    for _ in range(settings.steps):
        q = softmax(sum((q @ kernel for kernel in kernels), -unary), axis=0)
    return q


@compiled
@pytest.mark.parametrize("settings", [crf.IRN_LABELS, crf.SEGMENTATION], ids=["irn", "segmentation"])
def test_probabilities_are_those_of_the_written_out_mean_field(settings):
    image, _, noisy = scene(16, 18)
    p = np.stack([0.6 - 0.2 * noisy, 0.3 + 0.2 * noisy, 0.1 + 0 * noisy]).astype(np.float32)
    ours = crf_probabilities(image, p, settings=settings)
    expected = written_out(image.numpy(), -np.log(p.reshape(3, -1)), settings).reshape(3, 16, 18)
    assert ours.dtype == np.float32 and np.abs(ours.sum(0) - 1).max() < 1e-5 and np.abs(ours - p).max() > 0.3
    assert np.abs(ours - expected).mean() < 0.001


@compiled
def test_the_presets_are_the_published_settings():
    from pydensecrf.densecrf import DenseCRF2D
    from pydensecrf.utils import unary_from_labels, unary_from_softmax

    image, _, noisy = scene()
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    p = np.random.default_rng(1).dirichlet(np.ones(4), (40, 60)).transpose(2, 0, 1).astype(np.float32)
    literal = []
    for unary, gaussian, bilateral in (
        (unary_from_labels(noisy, 3, 0.7, zero_unsure=False), (3, 3), (50, 5, 10)),
        (unary_from_softmax(p), (1, 3), (67, 3, 4)),
    ):
        model = DenseCRF2D(60, 40, len(unary))
        model.setUnaryEnergy(np.ascontiguousarray(unary))
        model.addPairwiseGaussian(sxy=gaussian[0], compat=gaussian[1])
        model.addPairwiseBilateral(sxy=bilateral[0], srgb=bilateral[1], rgbim=pixels, compat=bilateral[2])
        literal.append(np.array(model.inference(10)).reshape(-1, 40, 60))
    np.testing.assert_array_equal(crf_labels(image, noisy, num_labels=3), literal[0].argmax(0))
    np.testing.assert_allclose(crf_probabilities(image, p), literal[1], rtol=0, atol=1e-5)


@compiled
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1)])
def test_slivers(size):
    image = np.random.default_rng(0).integers(0, 256, (3, *size), np.uint8)
    assert crf_labels(image, np.zeros(size, int), num_labels=2).tolist() == np.zeros(size).tolist()
    p = crf_probabilities(image, np.full((21, *size), 1 / 21))
    assert p.shape == (21, *size) and np.abs(p - 1 / 21).max() < 1e-5  # no label before another


@pytest.mark.parametrize("change, message", [
    ({"labels": np.zeros((40, 61), int)}, r"image \(3, 40, 60\), labels \(40, 61\)"),
    ({"labels": np.full((40, 60), 255)}, "labels: the value 255 came, expected 0 to 2"),
    ({"labels": np.full((40, 60), -1)}, "labels: the value -1"),
    ({"labels": np.zeros((40, 60))}, "labels: float64 came"), ({"num_labels": 257}, "num_labels is 257"),
    ({"image": np.zeros((40, 60, 3), np.uint8)}, r"uint8 of shape \(40, 60, 3\), expected uint8 of \(3"),
    ({"image": np.zeros((3, 40, 60))}, "the image is float64"),
    ({"probabilities": np.full((2, 40, 60), np.nan)}, "not all finite"),
    ({"probabilities": np.full((2, 40, 60), 3.0)}, "do not sum to 1"),
    ({"probabilities": np.stack([np.full((40, 60), 1.5), np.full((40, 60), -0.5)])}, "do not sum to 1"),
    ({"probabilities": np.full((2, 60, 40), 0.5)}, r"probabilities \(2, 60, 40\)"),
    ({"settings": {"bilateral_srgb": 0}}, "bilateral_srgb=0.*all have to be above 0"),
    ({"settings": {"label_confidence": 1}}, "label_confidence=1.*label_confidence below 1"),
])  # fmt: skip
def test_what_does_not_fit_is_named(change, message):
    image, _, noisy = scene()
    with pytest.raises((DataError, SettingsError), match=message):
        if "settings" in change:
            crf.CrfSettings(**vars(crf.IRN_LABELS) | change["settings"])
        elif "probabilities" in change:
            crf_probabilities(image, change["probabilities"])
        crf_labels(**{"image": image, "labels": noisy, "num_labels": 3} | change)


def test_the_first_call_says_how_to_get_the_package_and_workers_are_few_and_load_no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf.densecrf", None)
    image, _, noisy = scene()
    for call in (lambda: crf_labels(image, noisy, num_labels=2), lambda: [*crf_many(crf_labels, [])]):
        with pytest.raises(MissingCrfError, match="C\\+\\+ compiler and the Python headers .* make -B env"):
            call()
    program = "import sys, recamlib.method.crf; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
    assert crf.default_processes() >= 1
    monkeypatch.setenv("RECAM_WORKERS", "3")
    assert crf.default_processes() == 3
    monkeypatch.setenv("RECAM_WORKERS", "many")
    with pytest.raises(SettingsError, match="RECAM_WORKERS is 'many'"):
        crf.default_processes()


@compiled
def test_results_do_not_depend_on_the_number_of_processes():
    jobs = [*(of(*scene(20 + i, 30, seed=i)[::2]) for i in range(6)), of(*scene()[::2], 3)]
    expected = list(crf_many(crf_labels, jobs, processes=1))
    assert [r.shape for r in expected] == [*((20 + i, 30) for i in range(6)), (40, 60)]
    for one, many in zip(expected, crf_many(crf_labels, iter(jobs), processes=2), strict=True):
        np.testing.assert_array_equal(one, many)
    image, _, noisy = scene(8, 9)
    for processes in (1, 2):
        with pytest.raises(DataError, match="^image 1: labels: the value [78] came"):
            list(crf_many(crf_labels, [of(image, noisy), of(image, noisy + 7)], processes=processes))


def killed():
    os._exit(3)


@compiled
# joblib's own thread may meet an item that closing has just dropped
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_few_jobs_are_held_and_what_they_raise_comes_through_or_that_a_process_was_killed():
    with pytest.raises(RecamError, match="was killed .* run again with RECAM_WORKERS=1"):  # no hang
        list(crf_many(killed, [{}] * 8, processes=2))
    taken = []

    def jobs(end=1000):
        for number in range(end):
            taken.append(number)
            yield of(*scene(8, 9)[::2])
        raise DataError("an image is damaged")

    results = crf_many(crf_labels, jobs(), processes=2)
    assert [next(results).shape for _ in range(3)] == [(8, 9)] * 3
    assert len(taken) < 100  # of a thousand: how many are ahead is the machine's affair
    results.close()
    with pytest.raises(DataError, match="^an image is damaged$"):
        list(crf_many(crf_labels, jobs(1), processes=2))


