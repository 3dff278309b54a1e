"""The stored smoke runs show something learned: by half the margins that the profile quick is chosen by."""

import json

import numpy as np
import pytest

from tests.replay import BASELINES


def rows(notebook):
    (path,) = BASELINES.glob(f"{notebook}_*_smoke.json")
    return json.loads(path.read_text())["rows"]


def above_floor(row):
    return np.mean(row["per_seed"]) - row["floor"]


def test_classifiers_and_their_maps_have_learned():
    found = rows("02")
    assert np.mean(found["bce_only"]["precision"]) >= 65  # quick 90; ranking by chance has 35 to 40
    for name in ("bce_only", "recam_w", "recam_w_prime", "recam_w_times_w_prime"):
        assert above_floor(found[name]) >= 5


def test_fc2_tells_the_classes_of_an_image_apart():
    assert min(rows("02")["recam_w_prime"]["fc2_accuracy"]) >= 85  # a softmax fitted to convergence has 99


@pytest.mark.parametrize("network", ["deeplabv2", "deeplabv3plus", "upernet"])
def test_networks_on_true_masks_are_above_the_floor(network):
    assert above_floor(rows("04")[f"upper_bound.{network}"]) >= 12.5


@pytest.mark.parametrize("notebook", ["01", "02", "03", "04", "05"])
def test_every_row_comes_from_a_converged_training_and_is_above_the_floor(notebook):
    for name, row in rows(notebook).items():
        assert row.get("converged") is not False, name
        assert "floor" not in row or above_floor(row) >= 5, name
