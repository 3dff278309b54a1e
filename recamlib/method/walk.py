"""The random walk of IRN: maps spread over the image along pairs of cells that no boundary separates."""

import math
import warnings
from collections.abc import Iterator, Sequence
from numbers import Integral

import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.errors import DataError, SettingsError
from recamlib.method.chebyshev import matrix_powers, power_terms
from recamlib.method.pairs import pair_affinities, pair_offsets, straight_path

__all__ = [
    "pair_affinities", "pair_offsets", "random_walk", "random_walks", "straight_path", "walk_lengths",
]  # fmt: skip


def random_walk(
    maps: Tensor, boundary: Tensor, *, radius: float = 5, beta: float = 10.0, steps: int = 256
) -> Tensor:
    """Spread the maps of one image by a random walk that class boundaries hold up.

    Parameters
    ----------
    maps
        One map a class, shape ``(K, h, w)``.
    boundary
        Probability of a class boundary in each cell, shape ``(h, w)``, in [0, 1].
    radius
        Longest step, in cells, see `pair_offsets`.
    beta
        Power of the affinities: the larger, the more a weak boundary holds up. Above 0.
    steps
        Number of steps, the paper's t. 0 gives the start, ``maps * (1 - boundary)``.

    Returns
    -------
    Shape ``(K, h, w)``, not scaled, in the dtype and on the device (CPU or CUDA) of the maps.

    Raises
    ------
    DataError
        If the two sizes disagree, a value is NaN or infinite, or the boundary leaves [0, 1].
    SettingsError
        If radius, beta or steps are out of range.

    Notes
    -----
    Source: Eq. (11) and the authors' misc/indexing.py. Each cell becomes the mean of its neighbours, weighted
    by ``affinity ** beta``, and of itself, weighted by 1; in the code, a row vector times the matrix whose
    columns sum to 1. No gradients. See `random_walks` for how it is computed.

    Examples
    --------
    Two open cells and one behind a wall, one step: the first two share, nothing passes the wall.

    >>> maps, wall = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    >>> random_walk(maps, wall, steps=1)
    tensor([[[0.5000, 0.5000, 0.0000, 0.0000]]])
    """
    return random_walks([maps], [boundary], radius=radius, beta=beta, steps=steps)[0]


@torch.no_grad()
def random_walks(
    maps: Sequence[Tensor],
    boundaries: Sequence[Tensor],
    *,
    radius: float = 5,
    beta: float = 10.0,
    steps: int = 256,
    cells_per_product: int | None = None,
) -> list[Tensor]:
    """Random walks of many images of any sizes, the same as `random_walk` of each.

    Parameters
    ----------
    maps, boundaries
        One ``(K, h, w)`` and one ``(h, w)`` tensor an image; K may differ.
    radius, beta, steps
        As in `random_walk`.
    cells_per_product
        Images are joined into one matrix up to about this many cells. None: one image at a time on a CPU,
        whose caches it fits, and 2 ** 18 cells on a GPU, which small products would leave idle.

    Returns
    -------
    One ``(K, h, w)`` tensor an image.

    Raises
    ------
    DataError, SettingsError
        As `random_walk`, and if there are not as many maps as boundaries.

    Notes
    -----
    Source: Eq. (11). T is sparse (69 entries a column at radius 5) and similar to a symmetric matrix with
    eigenvalues in [-1, 1], on which ``x ** steps`` is its Chebyshev series cut where the rest is too small to
    matter: some 80 products for 256 steps. Computed in float64, because T's largest eigenvalue is 1 and there
    the series adds up rounding. Within 1e-5 of the largest result.
    """
    if len(maps) != len(boundaries):
        raise DataError(f"{len(maps)} images have maps, but {len(boundaries)} have a boundary")
    _check_settings(radius, beta, steps)
    for image, (m, b) in enumerate(zip(maps, boundaries)):
        _check(m, b, f"image {image}: " if len(maps) > 1 else "")
    walked = [m.clone() for m in maps]  # without classes or cells they stay as they are
    full = [i for i, m in enumerate(maps) if m.numel()]
    limit = cells_per_product or (2**18 if full and maps[full[0]].is_cuda else 1)
    for group in _groups([boundaries[i].numel() for i in full], limit):
        images = [full[g] for g in group]
        parts = ([tensors[i] for i in images] for tensors in (maps, boundaries))
        for image, end in zip(images, _walk(*parts, radius=radius, beta=beta, steps=[steps])[0]):
            walked[image] = end
    return walked


@torch.no_grad()
def walk_lengths(
    maps: Tensor, boundary: Tensor, *, steps: Sequence[int], radius: float = 5, beta: float = 10.0
) -> list[Tensor]:
    """Random walks of one image for several numbers of steps, at the price of the longest.

    The products with the matrix are the same for all of them; only the weights of their sum differ.
    Parameters and errors are those of `random_walk`.

    Returns
    -------
    One ``(K, h, w)`` tensor for each number of steps, in their order.

    Examples
    --------
    >>> maps, wall = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), torch.tensor([[0.0, 0.0, 1.0, 0.0]])
    >>> [round(walked[0, 0, 0].item(), 3) for walked in walk_lengths(maps, wall, steps=(0, 1, 256))]
    [1.0, 0.5, 0.5]
    """
    _check(maps, boundary, "")
    for number in steps:
        _check_settings(radius, beta, number)
    if not maps.numel():
        return [maps.clone() for _ in steps]
    walked = _walk([maps], [boundary], radius=radius, beta=beta, steps=steps)
    return [parts[0] for parts in walked]


def _check_settings(radius: float, beta: float, steps: int) -> None:
    """Raise if a setting is out of range."""
    if not 0 < beta < math.inf:
        raise SettingsError(f"beta is {beta!r}: the power of the affinities must be above 0 and finite")
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 0:
        raise SettingsError(f"steps is {steps!r}: it must be a whole number, 0 or more")
    pair_offsets(radius)


def _check(maps: Tensor, boundary: Tensor, image: str) -> None:
    """Raise if the maps and the boundary of an image do not fit each other or hold impossible values."""
    if maps.ndim != 3 or boundary.ndim != 2 or maps.shape[1:] != boundary.shape:
        raise DataError(
            f"{image}maps have shape {tuple(maps.shape)} and the boundary {tuple(boundary.shape)}; "
            "they must be (classes, h, w) and (h, w)"
        )
    if not (maps.is_floating_point() and boundary.is_floating_point()):
        raise DataError(f"{image}maps are {maps.dtype} and the boundary {boundary.dtype}: pass floats")
    if not maps.isfinite().all():
        raise DataError(f"{image}a map has values that are NaN or infinite")
    if not ((boundary >= 0) & (boundary <= 1)).all():  # NaN is neither
        raise DataError(f"{image}the boundary is NaN or outside [0, 1]: pass probabilities, not logits")


def _groups(cells: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Yield the numbers of images that share a matrix: in order, `limit` cells together or one image."""
    group: list[int] = []
    for image, count in enumerate(cells):
        if group and sum(cells[i] for i in group) + count > limit:
            yield group
            group = []
        group.append(image)
    if group:
        yield group


def _transitions(boundary: Tensor, radius: float, beta: float) -> tuple[Tensor, Tensor]:
    """Weights of every cell's neighbours and itself, and where they are; both ``(h*w, 2 * P + 1)``.

    A neighbour outside the image has weight 0 and some place inside.
    """
    offsets, cells, width = pair_offsets(radius), boundary.numel(), boundary.shape[1]
    pairs = pair_affinities(boundary, radius=radius, sources="all").pow_(beta).flatten(1)  # (P, h*w)
    back = torch.zeros_like(pairs)
    steps = [dy * width + dx for dy, dx in offsets]
    for step, forth, there in zip(steps, pairs, back):
        if 0 < step < cells:  # otherwise no such pair is inside
            there[step:] = forth[:-step]
    weights = torch.cat([back.flip(0), torch.ones_like(pairs[:1]), pairs])  # (2P + 1, h*w)
    weights = weights.mT.to(torch.float64, memory_format=torch.contiguous_format)
    steps = torch.tensor([-s for s in steps[::-1]] + [0] + steps, dtype=torch.int32, device=pairs.device)
    places = torch.arange(cells, dtype=torch.int32, device=pairs.device)[:, None] + steps
    return weights, places.clamp_(0, cells - 1)


def _walk(
    maps: Sequence[Tensor], boundaries: Sequence[Tensor], *, radius: float, beta: float, steps: Sequence[int]
) -> list[list[Tensor]]:
    """Walk some images in one block-diagonal matrix; for every number of steps, one tensor an image."""
    weights, places, starts, cut = [], [], [], 1e-6
    for m, boundary in zip(maps, boundaries):
        weight, place = _transitions(boundary.float(), radius, beta)
        sums = weight.sum(1, keepdim=True)  # (h*w, 1)
        start = (m * (1 - boundary)).double().flatten(1).mT  # (h*w, K)
        # The mean weighted by these sums outlasts every step, so no result has a lower maximum.
        lowest = (sums * start.abs()).sum(0) / sums.sum() / start.abs().amax(0)
        cut = min([cut, *(1e-6 * lowest[start.any(0)]).tolist()])
        places.append(place.add_(sum(len(s) for s in starts)))
        weights.append(weight.div_(sums))
        starts.append(start)
    classes, counts = max(len(m) for m in maps), [len(s) for s in starts]
    start = torch.cat([F.pad(s, (0, classes - s.shape[1])) for s in starts])  # (cells, K)
    weights, places = (p[0] if len(p) == 1 else torch.cat(p) for p in (weights, places))
    ends = torch.arange(len(weights) + 1, dtype=torch.int32, device=weights.device) * weights.shape[1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse")  # "in beta state"
        matrix = torch.sparse_csr_tensor(ends, places.flatten(), weights.flatten(), size=(len(start),) * 2)
    walked = matrix_powers(matrix, start, [power_terms(number, max(cut, 1e-15)) for number in steps])
    return [
        [part[:, : len(m)].mT.reshape(m.shape).to(m.dtype) for m, part in zip(maps, one.split(counts))]
        for one in walked
    ]
