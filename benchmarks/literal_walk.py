"""Equation (11) written down as it stands: the dense transition matrix, multiplied with itself."""

import torch
from torch import Tensor


def dense_transitions(boundary: Tensor, *, radius: int = 5, beta: float = 10.0) -> Tensor:
    """Return T, ``(h*w, h*w)``: affinities to the power of beta, each column divided by its sum."""
    height, width = boundary.shape
    cells = height * width
    affinity = torch.eye(cells, dtype=boundary.dtype)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for dy in range(radius):
        for dx in range(1 - radius, radius):
            if dy * dy + dx * dx >= radius * radius or (dy == 0 and dx <= 0):
                continue
            inside = (rows + dy < height) & (columns + dx >= 0) & (columns + dx < width)
            y, x = rows[inside], columns[inside]  # (pairs,)
            highest = torch.zeros(len(y), dtype=boundary.dtype)
            for py in range(dy + 1):
                for px in range(min(dx, 0), max(dx, 0) + 1):
                    aside = abs(dy * px - dx * py) / (dy * dy + dx * dx) ** 0.5  # cells from the line
                    if aside < 1:
                        highest = torch.maximum(highest, boundary[y + py, x + px])
            here, there = y * width + x, (y + dy) * width + x + dx
            affinity[here, there] = affinity[there, here] = (1 - highest) ** beta
    return affinity / affinity.sum(0, keepdim=True)


def random_walk(
    maps: Tensor, boundary: Tensor, *, radius: int = 5, beta: float = 10.0, steps: int = 256
) -> Tensor:
    """Walk maps ``(K, h, w)``; 256 steps are eight squarings of the dense matrix, as published."""
    power = torch.linalg.matrix_power(dense_transitions(boundary, radius=radius, beta=beta), steps)
    return ((maps * (1 - boundary)).flatten(1) @ power).reshape(maps.shape)
