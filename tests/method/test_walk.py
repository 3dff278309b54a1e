"""The random walk against the published code's numbers, the dense formula, and what any walk must keep."""

import itertools
import math

import literal_walk
import pytest
import torch
from golden import golden, off
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recamlib.errors import DataError, SettingsError
from recamlib.method import walk
from recamlib.method.walk import pair_affinities, pair_offsets, random_walk, random_walks, straight_path


def scene(height: int, width: int, *, classes: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return maps and a boundary with closed and open cells in it, float64."""
    g = torch.Generator().manual_seed(seed)
    boundary = torch.rand(height, width, generator=g, dtype=torch.float64) ** 2
    boundary[torch.rand(height, width, generator=g) < 0.1] = 1
    boundary[torch.rand(height, width, generator=g) < 0.3] = 0
    return torch.rand(classes, height, width, generator=g, dtype=torch.float64), boundary


@pytest.mark.parametrize(("beta", "steps"), [(10, 256), (10, 16), (4, 256)])
def test_published_walks(beta, steps):
    z = golden("random_walk")
    maps, boundary, walked = z["maps"], z["boundary"], z[f"walk_beta{beta}_steps{steps}"]
    # their matrix is squared in float32, which is where most of the difference comes from
    ours = random_walk(maps, boundary, beta=beta, steps=steps)
    assert ours.dtype == torch.float32 and off(ours, walked) < 1e-4


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(2, 6), st.floats(0.1, 20), st.integers(0, 400),
    st.integers(0, 999),
)  # fmt: skip
@example(9, 14, 5, 10.0, 256, 0)
@example(1, 17, 5, 10.0, 7, 1)
@example(20, 4, 10, 10.0, 0, 2)
@example(1, 1, 10, 10.0, 1, 3)
@example(4, 8, 6, 1.25, 125, 1)
@settings(max_examples=40, deadline=None)
def test_any_grid_radius_beta_and_number_of_steps(height, width, radius, beta, steps, seed):
    maps, boundary = scene(height, width, classes=1 + seed % 3, seed=seed)
    options = {"radius": radius, "beta": beta, "steps": steps}
    expected = literal_walk.random_walk(maps.double(), boundary.double(), **options)
    assert off(random_walk(maps, boundary, **options), expected) < 2e-5  # 150 random cases: at most 1.007e-5


@pytest.mark.parametrize("steps", [64, 256])
def test_a_single_cell_spreads_exactly(steps):
    # the result is a thousandth of the start, so what is left out of the series must be smaller than that
    maps, open_field = torch.zeros(1, 30, 30), torch.zeros(30, 30)
    maps[0, 11, 5] = 1
    dense = literal_walk.random_walk(maps.double(), open_field.double(), steps=steps)
    assert dense.max() < 2e-3 and off(random_walk(maps, open_field, steps=steps), dense) < 1e-5


def test_a_walk_forgets_nothing_and_invents_nothing_and_nothing_walks_nowhere():
    maps, boundary = scene(13, 18, seed=3)
    sums = 1 / literal_walk.dense_transitions(boundary).diagonal()  # the self-loop is 1
    start, walked = maps * (1 - boundary), random_walk(maps, boundary)
    torch.testing.assert_close(walked.flatten(1) @ sums, start.flatten(1) @ sums, rtol=1e-6, atol=0)
    assert (walked.amax((1, 2)) <= start.amax((1, 2)) * (1 + 1e-6)).all()
    assert walked.min() >= -1e-6 * walked.max()
    boundary = torch.rand(6, 7)
    assert random_walk(torch.zeros(0, 6, 7), boundary).shape == (0, 6, 7)
    # one empty class beside a full one, and a map that the boundary covers altogether
    maps = torch.stack([torch.zeros(6, 7), torch.rand(6, 7)])
    assert torch.equal(random_walk(maps, boundary)[0], torch.zeros(6, 7))
    assert torch.equal(random_walk(maps, torch.ones(6, 7)), torch.zeros(2, 6, 7))
    assert random_walks([], []) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_results_have_the_dtype_of_the_maps_and_inputs_stay(dtype):
    maps, boundary = (x.to(dtype) for x in scene(8, 9))
    walked, before = random_walk(maps, boundary, steps=8), scene(8, 9)
    assert walked.dtype == dtype and torch.equal(maps, before[0].to(dtype))
    assert off(walked.double(), random_walk(*before, steps=8)) < (0.05 if dtype.itemsize == 2 else 1e-5)


def test_images_together_walk_as_alone():
    sizes = [(9, 12, 2), (4, 4, 0), (12, 9, 1), (1, 8, 3), (10, 10, 2), (2, 3, 2), (1, 1, 2)]
    scenes = [scene(h, w, classes=k, seed=h) for h, w, k in sizes]
    each = random_walks(*map(list, zip(*scenes)), steps=64)
    full = [i for i, (h, w, k) in enumerate(sizes) if k and h * w > 1]
    parts = ([scenes[i][part] for i in full] for part in (0, 1))
    joined = walk._walk(*parts, radius=5, beta=10, steps=64)  # as on a GPU
    for walked, number in (*zip(each, range(len(sizes)), strict=True), *zip(joined, full, strict=True)):
        maps, boundary = scenes[number]
        alone = random_walk(maps, boundary, steps=64)
        assert walked.shape == maps.shape
        torch.testing.assert_close(walked, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("change, message", [
    ({"boundary": torch.zeros(5, 4)}, r"maps \(1, 4, 5\), boundary \(5, 4\)"),
    ({"maps": torch.zeros(4, 5)}, r"maps \(4, 5\)"),
    ({"maps": torch.full((1, 4, 5), math.nan)}, "a map has values that are NaN"),
    ({"maps": torch.ones(1, 4, 5, dtype=torch.uint8)}, "torch.uint8"),
    ({"boundary": torch.full((4, 5), math.nan)}, "the boundary: values from nan"),
    *(({"boundary": torch.full((4, 5), value)}, "probabilities, not logits") for value in (1.5, -0.1)),
    ({"steps": -1}, "steps is -1"), ({"steps": 2.5}, "steps is 2.5"), ({"radius": math.nan}, "radius is nan"),
    ({"radius": 1}, "radius is 1: pairs need a radius of at least 2"), ({"beta": 0}, "beta is 0"),
    ({"beta": math.nan}, "beta is nan"),
])  # fmt: skip
def test_errors_name_what_came(change, message):
    inputs = {"maps": torch.ones(1, 4, 5), "boundary": torch.zeros(4, 5)} | change
    maps, boundary = inputs.pop("maps"), inputs.pop("boundary")
    error, place = (SettingsError, "") if inputs else (DataError, "image 1: .*")
    with pytest.raises(error, match=message):
        random_walk(maps, boundary, **inputs)
    with pytest.raises(error, match=place + message):
        random_walks([torch.ones(1, 4, 5), maps], [torch.zeros(4, 5), boundary], **inputs)


@pytest.mark.parametrize(("radius", "pairs"), [(2, 4), (5, 34), (10, 152), (2.5, 10)])
def test_pairs_are_all_near_cells_once(radius, pairs):
    offsets = pair_offsets(radius)
    assert len(offsets) == len(set(offsets)) == pairs
    reach = range(-10, 11)
    near = {(y, x) for y in reach for x in reach if 0 < y * y + x * x < radius**2}
    assert {*offsets, *((-y, -x) for y, x in offsets)} == {d for d in near if max(map(abs, d)) < radius}
    assert not set(offsets) & {(-y, -x) for y, x in offsets}


@pytest.mark.parametrize("radius", [2, 3, 4.5, 5, 10])
@pytest.mark.parametrize("size", [(23, 31), (10, 19), (3, 40), (12, 2)], ids=str)
def test_affinities_of_every_cell(radius, size):
    boundary = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    height, width = size
    affinities = pair_affinities(boundary, radius=radius, sources="all")
    for (dy, dx), plane in zip(pair_offsets(radius), affinities.unbind(1), strict=True):
        expected = torch.zeros_like(boundary)
        for y, x in itertools.product(range(height - dy), range(max(0, -dx), min(width, width - dx))):
            way = [boundary[:, y + py, x + px] for py, px in straight_path(dy, dx)]
            expected[:, y, x] = 1 - torch.stack(way).amax(0)
        assert torch.equal(plane, expected), (dy, dx)
    reach = math.ceil(radius) - 1
    if height > reach and width > 2 * reach:
        inside = pair_affinities(boundary, radius=radius, sources="inside")
        assert torch.equal(inside, affinities[..., : height - reach, reach : width - reach])
        alone = pair_affinities(boundary[0], radius=radius, sources="inside")
        torch.testing.assert_close(alone, inside[0], rtol=0, atol=0)
    else:
        with pytest.raises(DataError, match=f"{height} x {width} cells is smaller than the window"):
            pair_affinities(boundary, radius=radius, sources="inside")


@pytest.mark.parametrize("sources", ["inside", "all"])
def test_affinities_have_gradients(sources):
    boundary = torch.rand(1, 6, 8, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda b: pair_affinities(b, radius=4, sources=sources), boundary)
    with pytest.raises(SettingsError, match="unknown sources 'some': use one of inside, all"):
        pair_affinities(boundary, radius=2, sources="some")
    with pytest.raises(DataError, match=r"boundary \(4,\)"):
        pair_affinities(torch.zeros(4), radius=2, sources=sources)


@pytest.mark.parametrize(("size", "radius"), [((6, 7), 50), ((1, 9), 30), ((5, 1), 400), ((1, 1), 1e9)])
def test_no_pair_is_planned_that_does_not_fit_into_the_image(size, radius, monkeypatch):
    planned = []
    counted = lambda dy, dx: planned.append((dy, dx)) or straight_path(dy, dx)  # noqa: E731
    monkeypatch.setattr(walk, "straight_path", counted)
    walk._maxima.cache_clear()
    maps, boundary = scene(*size)
    far = random_walk(maps, boundary, radius=radius, steps=8)
    height, width = size
    inside = {(dy, dx) for dy in range(height) for dx in range(1 - width, width) if dy > 0 or dx > 0}
    assert len(planned) == len(set(planned)) and set(planned) == inside
    # a radius over the diagonal joins all cells: the walk of any larger one is the same
    whole = random_walk(maps, boundary, radius=max(2.0, math.hypot(height, width)), steps=8)
    torch.testing.assert_close(far, whole)


def test_small_products_use_one_thread_and_give_the_others_back(monkeypatch):
    maps, boundary = scene(20, 30)
    before, used, products = torch.get_num_threads(), [], walk._matrix_power
    counted = lambda *args: used.append(torch.get_num_threads()) or products(*args)  # noqa: E731
    monkeypatch.setattr(walk, "_matrix_power", counted)
    try:
        torch.set_num_threads(2)
        one = random_walk(maps, boundary)
        assert torch.get_num_threads() == 2
        monkeypatch.setattr(walk, "ONE_THREAD", 0)  # nothing is small
        torch.testing.assert_close(one, random_walk(maps, boundary), rtol=0, atol=1e-9)
    finally:
        torch.set_num_threads(before)
    assert used == [1, 2]
