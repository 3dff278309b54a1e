"""Pairs of neighbouring cells, the straight paths between them, and the boundaries on those paths."""

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from recamlib.errors import DataError, SettingsError

Offset = tuple[int, int]


def pair_offsets(radius: float) -> list[Offset]:
    """Displacements ``(dy, dx)`` between the two cells of a pair, one of each pair of opposite ones.

    Parameters
    ----------
    radius
        In cells; pairs are nearer to each other than this. At least 2.

    Returns
    -------
    In order of ``dy``, then ``dx``: 34 at radius 5, 152 at radius 10.

    Raises
    ------
    SettingsError
        If the radius is below 2, which leaves no pairs or no walk worth the name.

    Notes
    -----
    Source: the authors' misc/indexing.py (ReCAM and IRN).

    Examples
    --------
    >>> pair_offsets(2)
    [(0, 1), (1, -1), (1, 0), (1, 1)]
    """
    if not 2 <= radius < math.inf:
        raise SettingsError(f"radius is {radius!r}: pairs need a radius of at least 2 cells")
    reach = math.ceil(radius) - 1
    near = [(y, x) for y in range(reach + 1) for x in range(-reach, reach + 1) if y * y + x * x < radius**2]
    return [(y, x) for y, x in near if y > 0 or x > 0]


def straight_path(dy: int, dx: int) -> list[Offset]:
    """Cells on the straight way from ``(0, 0)`` to ``(dy, dx)``, both ends included.

    Parameters
    ----------
    dy, dx
        Displacement in cells, not both 0.

    Returns
    -------
    The cells of the bounding box that are nearer than 1 cell to the line.

    Notes
    -----
    Source: the authors' misc/indexing.py (ReCAM and IRN).

    Examples
    --------
    >>> straight_path(2, 2)
    [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (2, 2)]
    """
    box = [(y, x) for y in range(min(dy, 0), max(dy, 0) + 1) for x in range(min(dx, 0), max(dx, 0) + 1)]
    return [(y, x) for y, x in box if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]


@lru_cache
def _maxima(radius: float) -> list[tuple[Offset, list[tuple[Offset, Offset]]]]:
    """For each displacement, shorter ones and where in its box to put them: together they cover its path.

    A maximum over a union is the maximum of the maxima, so about two operations a displacement do for a path
    of up to 20 cells. Boxes are told by their upper left corner; ``(0, 0)`` is the single cell.
    """
    row = 4 * math.ceil(radius)  # longer than any box: cell (y, x) of a box is bit y * row + x
    known: dict[Offset, int] = {(0, 0): 1}
    plan = []
    for dy, dx in sorted(pair_offsets(radius), key=lambda d: (d[0] ** 2 + d[1] ** 2, d)):
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
    """Highest boundary on the path of every pair inside the image: offset to ``(..., h - dy, w - |dx|)``."""
    height, width = boundary.shape[-2:]
    found = {(0, 0): boundary}
    for (dy, dx), parts in _maxima(radius):
        rows, columns = height - dy, width - abs(dx)
        if rows > 0 and columns > 0:
            views = [found[p][..., y : y + rows, x : x + columns] for p, (y, x) in parts]
            highest = views[0]
            for view in views[1:]:
                highest = torch.maximum(highest, view)
            found[dy, dx] = highest
    del found[0, 0]
    return found


def pair_affinities(boundary: Tensor, *, radius: float, sources: Literal["inside", "all"]) -> Tensor:
    """How freely one gets from each cell to its neighbours: 1 minus the highest boundary on the way.

    Parameters
    ----------
    boundary
        Probability of a class boundary in each cell, shape ``(h, w)`` or ``(B, h, w)``.
    radius
        In cells, see `pair_offsets`.
    sources
        Cells that pairs start from. ``"inside"``: those whose every pair ends in the image, as in training:
        rows ``[0, h - r)`` and columns ``[r, w - r)`` with ``r = ceil(radius) - 1``. ``"all"``: every cell,
        as in the walk; a pair that leaves the image has affinity 0.

    Returns
    -------
    Shape ``(P, h', w')`` or ``(B, P, h', w')`` with the pairs in the order of `pair_offsets` and ``h', w'``
    the rows and columns of `sources`. Differentiable: the highest cell of a path gets the gradient.

    Raises
    ------
    DataError
        If the boundary has another number of axes, or no cell has its whole window inside the image.
    SettingsError
        If the radius is below 2 or `sources` is unknown.

    Notes
    -----
    Source: the authors' misc/indexing.py (ReCAM and IRN). They put a rim of boundary 1 around the image and
    read pairs by tables of indices; here views of the boundary are compared, the paths' common parts once.

    Examples
    --------
    A wall in the middle of a line of three: the pairs to the right, at distances 1 and 2.

    >>> wall = torch.tensor([[0.0, 0.75, 0.0]])
    >>> pair_affinities(wall, radius=3, sources="all")[:2, 0]
    tensor([[0.2500, 0.2500, 0.0000],
            [0.2500, 0.0000, 0.0000]])
    """
    if sources not in ("inside", "all"):
        raise SettingsError(f'sources is {sources!r}: use "inside" or "all"')
    if boundary.ndim not in (2, 3):
        raise DataError(f"boundary has shape {tuple(boundary.shape)}; it must be (h, w) or (images, h, w)")
    offsets, reach = pair_offsets(radius), math.ceil(radius) - 1
    height, width = boundary.shape[-2:]
    if sources == "inside" and (height <= reach or width <= 2 * reach):
        raise DataError(
            f"a boundary of {height} x {width} cells is smaller than the window of radius {radius:g}: "
            f"it takes at least {reach + 1} x {2 * reach + 1}"
        )
    highest = _highest_on_paths(boundary, radius)
    planes = []
    for dy, dx in offsets:
        if (dy, dx) not in highest:  # longer than the image
            planes.append(torch.zeros_like(boundary))
            continue
        plane, left, right = 1 - highest[dy, dx], max(-dx, 0), max(dx, 0)  # boxes start `left` of sources
        if sources == "inside":
            planes.append(plane[..., : height - reach, reach - left : width - reach - left])
        else:
            planes.append(F.pad(plane, (left, right, 0, dy)))
    return torch.stack(planes, -3)
