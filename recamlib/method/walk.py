"""The random walk of IRN: maps spread over the image along pairs of cells that no boundary separates."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from numbers import Integral
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.errors import DataError, SettingsError, check_choice, check_shapes, check_shares

Offset = tuple[int, int]
Sources = Literal["inside", "all"]

ONE_THREAD = 2**24  # multiplications of a product on a CPU, below which one thread does them


def pair_offsets(radius: float) -> list[Offset]:
    """Return displacements ``(dy, dx)`` of the pairs of cells nearer than `radius`, one of two opposite ones.

    In order of ``dy``, then ``dx``. Source: the authors' misc/indexing.py (ReCAM and IRN).

    >>> pair_offsets(2)
    [(0, 1), (1, -1), (1, 0), (1, 1)]
    """
    _check_radius(radius)
    side = math.ceil(radius)  # of a grid in which every pair fits
    return _offsets_within(radius, side, side)


def _check_radius(radius: float) -> None:
    if not 2 <= radius < math.inf:
        raise SettingsError(f"radius is {radius!r}: pairs need a radius of at least 2 cells")


def straight_path(dy: int, dx: int) -> list[Offset]:
    """Return the cells nearer than 1 cell to the line from ``(0, 0)`` to ``(dy, dx)``, both ends included.

    >>> straight_path(2, 2)
    [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)]
    """
    box = [(y, x) for y in range(min(dy, 0), max(dy, 0) + 1) for x in range(min(dx, 0), max(dx, 0) + 1)]
    return [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]


def _offsets_within(radius: float, height: int, width: int) -> list[Offset]:
    """Return the `pair_offsets` that fit into a grid, without listing those that do not."""
    reach = math.ceil(radius) - 1
    rows, columns = range(min(reach + 1, height)), range(-min(reach, width - 1), min(reach, width - 1) + 1)
    return [(y, x) for y in rows for x in columns if y * y + x * x < radius**2 and (y > 0 or x > 0)]


@lru_cache
def _maxima(radius: float, height: int, width: int) -> list[tuple[Offset, list[tuple[Offset, Offset]]]]:
    """For each displacement, shorter ones and where in its box to put them: together they cover its path.

    A maximum over a union is the maximum of the maxima, so about two operations do for a path of 20 cells.
    """
    row = 4 * width  # longer than any box: cell (y, x) of a box is bit y * row + x
    known: dict[Offset, int] = {(0, 0): 1}
    plan = []
    for dy, dx in sorted(_offsets_within(radius, height, width), key=lambda d: (d[0] ** 2 + d[1] ** 2, d)):
        path = sum(1 << (y * row + x - min(dx, 0)) for y, x in straight_path(dy, dx))
        placed = [
            (mask << (y * row + x), part, (y, x))
            for part, mask in known.items()
            for y in range(dy - part[0] + 1)
            for x in range(abs(dx) - abs(part[1]) + 1)
        ]
        placed = [p for p in placed if p[0] & ~path == 0]
        left, parts = path, []
        while left:
            mask, part, place = max(placed, key=lambda p: (p[0] & left).bit_count())
            left &= ~mask
            parts.append((part, place))
        known[dy, dx] = path
        plan.append(((dy, dx), parts))
    return plan


def _highest_on_paths(boundary: Tensor, radius: float) -> dict[Offset, Tensor]:
    """Return the highest boundary on the path of every pair inside the image, ``(..., h - dy, w - |dx|)``."""
    (height, width), side = boundary.shape[-2:], math.ceil(radius)
    highest = {(0, 0): boundary}
    for (dy, dx), parts in _maxima(radius, min(height, side), min(width, side)):  # one plan for large images
        rows, columns = height - dy, width - abs(dx)
        first, *others = [highest[p][..., y : y + rows, x : x + columns] for p, (y, x) in parts]
        for view in others:
            first = torch.maximum(first, view)
        highest[dy, dx] = first
    del highest[0, 0]
    return highest


def pair_affinities(boundary: Tensor, *, radius: float, sources: Sources) -> Tensor:
    """Return how freely one gets from each cell to its neighbours: 1 minus the highest boundary on the way.

    Shape ``(P, h', w')`` or ``(B, P, h', w')`` with the pairs in the order of `pair_offsets`, ``h', w'`` the
    rows and columns of `sources`. `boundary` is the probability of a class boundary in each cell, ``(h, w)``
    or ``(B, h, w)``. Differentiable: the highest cell of a path gets the gradient.

    Pairs start from `sources`. ``"inside"``: cells whose every pair ends in the image, as in training: rows
    ``[0, h - r)`` and columns ``[r, w - r)`` with ``r = ceil(radius) - 1``. ``"all"``: every cell, as in the
    walk; a pair that leaves the image has affinity 0. Source: the authors' misc/indexing.py (ReCAM and IRN).

    A wall in the middle of a line of three: the pairs to the right, at distances 1 and 2.

    >>> wall = torch.tensor([[0.0, 0.75, 0.0]])
    >>> pair_affinities(wall, radius=3, sources="all")[:2, 0]
    tensor([[0.2500, 0.2500, 0.0000],
            [0.2500, 0.0000, 0.0000]])
    """
    check_choice("sources", sources, get_args(Sources))
    check_shapes(boundary=(boundary, "h, w" if boundary.ndim < 3 else "images, h, w"))
    offsets, reach = pair_offsets(radius), math.ceil(radius) - 1
    height, width = boundary.shape[-2:]
    if sources == "inside" and (height <= reach or width <= 2 * reach):
        window = f"the window of radius {radius:g}, {reach + 1} x {2 * reach + 1}"
        raise DataError(f"a boundary of {height} x {width} cells is smaller than {window}")
    highest = _highest_on_paths(boundary, radius)
    if sources == "inside":  # a box starts at its left corner
        rows, starts = slice(height - reach), {d: reach - max(-d[1], 0) for d in offsets}
        planes = [1 - highest[d][..., rows, starts[d] : starts[d] + width - 2 * reach] for d in offsets]
    else:  # some may be longer than the image
        none = torch.zeros_like(boundary)
        planes = [_padded(1 - highest[d], *d) if d in highest else none for d in offsets]
    return torch.stack(planes, -3)


def _padded(plane: Tensor, dy: int, dx: int) -> Tensor:
    """Return a plane of pairs with a zero for every source whose pair leaves the image."""
    return F.pad(plane, (max(-dx, 0), max(dx, 0), 0, dy))


def random_walk(
    maps: Tensor, boundary: Tensor, *, radius: float = 5, beta: float = 10.0, steps: int = 256
) -> Tensor:
    """Spread the maps of one image by a random walk that class boundaries hold up: ``(K, h, w)``, not scaled.

    Of maps ``(K, h, w)`` and the probability of a class boundary in each cell, ``(h, w)``. A step is shorter
    than `radius` cells, see `pair_offsets`. The larger `beta`, the power of the affinities, the more a weak
    boundary holds up. `steps` is the paper's t; 0 gives the start, ``maps * (1 - boundary)``. No gradients.

    Source: Eq. (11) and the authors' misc/indexing.py. Each cell becomes the mean of its neighbours, weighted
    by ``affinity ** beta``, and of itself, weighted by 1. See `random_walks` for how it is computed.

    Two open cells and one behind a wall, one step: the first two share, nothing passes the wall.

    >>> maps, wall = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    >>> random_walk(maps, wall, steps=1)
    tensor([[[0.5000, 0.5000, 0.0000, 0.0000]]])
    """
    return random_walks([maps], [boundary], radius=radius, beta=beta, steps=steps)[0]


@torch.no_grad()
def random_walks(
    maps: Sequence[Tensor], boundaries: Sequence[Tensor], *, radius: float = 5, beta: float = 10.0,
    steps: int = 256,
) -> list[Tensor]:  # fmt: skip
    """Return the `random_walk` of each of many images of any sizes; the number of classes may differ.

    On a GPU, which small products would leave idle, all images are joined into one matrix.

    Source: Eq. (11). T is sparse (69 entries a column at radius 5) and similar to a symmetric matrix with
    eigenvalues in [-1, 1], on which ``x ** steps`` is its Chebyshev series cut where the rest is too small to
    matter: some 80 products for 256 steps. Computed in float64, because T's largest eigenvalue is 1 and there
    the series adds up rounding. Within 1e-5 of the largest result.
    """
    if len(maps) != len(boundaries):
        raise DataError(f"{len(maps)} images have maps, but {len(boundaries)} have a boundary")
    _check_radius(radius)
    if not 0 < beta < math.inf:
        raise SettingsError(f"beta is {beta!r}: the power of the affinities must be above 0 and finite")
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 0:
        raise SettingsError(f"steps is {steps!r}: it must be a whole number, 0 or more")
    for image, pair in enumerate(zip(maps, boundaries)):
        try:
            _check(*pair)
        except DataError as error:
            raise DataError(f"image {image}: {error}") from None
    walked = [m * (1 - b).to(m.dtype) for m, b in zip(maps, boundaries)]  # all there is without a neighbour
    full = [i for i, m in enumerate(maps) if len(m) > 0 and m[0].numel() > 1]
    for images in [full] if full and maps[full[0]].is_cuda else [[i] for i in full]:
        parts = ([tensors[i] for i in images] for tensors in (maps, boundaries))
        for image, end in zip(images, _walk(*parts, radius=radius, beta=beta, steps=steps)):
            walked[image] = end
    return walked


def check_boundary(boundary: Tensor) -> None:
    """Raise a DataError unless all of a boundary is probabilities."""
    check_shares("the boundary", boundary, hint="pass probabilities, not logits")


def _check(maps: Tensor, boundary: Tensor) -> None:
    check_shapes(maps=(maps, "classes, h, w"), boundary=(boundary, "h, w"))
    if not (maps.is_floating_point() and boundary.is_floating_point()):
        raise DataError(f"maps are {maps.dtype} and the boundary {boundary.dtype}: pass floats")
    if not maps.isfinite().all():
        raise DataError("a map has values that are NaN or infinite: were the weights of the network finite?")
    check_boundary(boundary)


def _transitions(boundary: Tensor, radius: float, beta: float) -> tuple[Tensor, Tensor]:
    """Weights of every cell's neighbours and itself, and where they are; both ``(h*w, 2 * P + 1)``."""
    highest, cells, width = _highest_on_paths(boundary, radius), boundary.numel(), boundary.shape[1]
    planes = [_padded(1 - plane, *offset) for offset, plane in sorted(highest.items())]
    pairs = torch.stack([torch.zeros_like(boundary), *planes])[1:].pow_(beta).flatten(1)  # (P, h*w)
    back = torch.zeros_like(pairs)
    steps = [dy * width + dx for dy, dx in sorted(highest)]
    for step, forth, there in zip(steps, pairs, back):
        there[step:] = forth[:-step]
    weights = torch.cat([back.flip(0), torch.ones_like(pairs[:1]), pairs])  # (2P + 1, h*w)
    weights = weights.mT.to(torch.float64, memory_format=torch.contiguous_format)
    steps = torch.tensor([-s for s in steps[::-1]] + [0] + steps, dtype=torch.int32, device=pairs.device)
    places = torch.arange(cells, dtype=torch.int32, device=pairs.device)[:, None] + steps
    return weights, places.clamp_(0, cells - 1)


def _walk(
    maps: Sequence[Tensor], boundaries: Sequence[Tensor], *, radius: float, beta: float, steps: int
) -> list[Tensor]:
    """Walk some images in one block-diagonal matrix."""
    starts: list[Tensor] = []
    weights, places, lengths, cut = [], [], [], 1e-6
    for m, boundary in zip(maps, boundaries):
        weight, place = _transitions(boundary.float(), radius, beta)
        sums = weight.sum(1, keepdim=True)  # (h*w, 1)
        start = (m * (1 - boundary)).double().flatten(1).mT  # (h*w, K)
        # The mean weighted by these sums outlasts every step, so no result has a lower maximum.
        lowest = (sums * start.abs()).sum(0) / sums.sum() / start.abs().amax(0)
        cut = min([cut, *(1e-6 * lowest[start.any(0)]).tolist()])
        places.append(place.add_(sum(len(s) for s in starts)).flatten())
        weights.append(weight.div_(sums).flatten())
        lengths.append(torch.full_like(place[:, 0], place.shape[1]))
        starts.append(start)
    classes = max(len(m) for m in maps)
    start = torch.cat([F.pad(s, (0, classes - s.shape[1])) for s in starts])  # (cells, K)
    weights, places = (p[0] if len(p) == 1 else torch.cat(p) for p in (weights, places))
    ends = F.pad(torch.cat(lengths).cumsum(0, dtype=torch.int32), (1, 0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # "in beta state"
        matrix = torch.sparse_csr_tensor(ends, places, weights, size=(len(start),) * 2)
    with _few_threads(len(weights) * classes if start.device.type == "cpu" else ONE_THREAD):
        walked = _matrix_power(matrix, start, _power_terms(steps, max(cut, 1e-15)))
    parts = walked.split([len(s) for s in starts])
    return [part[:, : len(m)].mT.reshape(m.shape).to(m.dtype) for m, part in zip(maps, parts)]


@contextmanager
def _few_threads(products: int) -> Iterator[None]:
    """Let torch use one thread for a small matrix: on a busy machine several wait for each other for long."""
    threads = torch.get_num_threads()
    if products < ONE_THREAD:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _matrix_power(matrix: Tensor, start: Tensor, terms: Sequence[float]) -> Tensor:
    """Return the sum, weighted by `terms`, of Chebyshev polynomials of a matrix times ``(cells, K)``."""
    # A product with one vector takes half the time, but sparse ones on the CPU need MKL.
    if alone := start.shape[1] == 1 and (start.is_cuda or torch.backends.mkl.is_available()):
        start = start[:, 0].contiguous()  # (cells,)
    times = torch.addmv if alone else torch.addmm
    before, now = start, matrix @ start
    end = terms[0] * start
    for number, term in enumerate(terms[1:], start=1):
        if number > 1:
            before, now = now, times(before, matrix, now, beta=-1, alpha=2)
        if term:
            end.add_(now, alpha=term)
    return end[:, None] if alone else end


def _power_terms(steps: int, cut: float) -> list[float]:
    """Coefficients of ``x ** steps`` in Chebyshev polynomials, without a tail of sum `cut` or less.

    Term k is the chance that heads and tails of `steps` tossed coins differ by k. They sum to 1.
    """
    longest = math.ceil(math.sqrt(2 * steps * math.log(4 / cut)))  # Hoeffding: leaves out cut / 2 at most
    ways = math.lgamma(steps + 1) - steps * math.log(2)
    terms = []
    for k in range(min(steps, longest) + 1):
        chance = ways - math.lgamma((steps - k) / 2 + 1) - math.lgamma((steps + k) / 2 + 1)
        terms.append((2 if k else 1) * math.exp(chance) if (steps - k) % 2 == 0 else 0.0)
    rest = cut / 2
    while terms[-1] <= rest:
        rest -= terms.pop()
    return terms
