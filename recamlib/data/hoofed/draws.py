"""Random numbers and noise whose bytes are the same on every machine and with every numpy.

Only the raw stream of a bit generator, which numpy promises to keep, and operations that IEEE 754 rounds
exactly (no sine, power or sum over an array) are used, so a drawn scene can be checked by its hash.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class Draws:
    """A stream of random numbers chosen by some integers."""

    def __init__(self, *key: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(key))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high)."""
        return low + (high - low) * ((self._bits.random_raw() >> 11) * 2.0**-53)

    def integer(self, count: int) -> int:
        """Return an integer in 0 .. count - 1."""
        return int(self.uniform() * count)

    def chance(self, probability: float) -> bool:
        """Return True with some probability."""
        return self.uniform() < probability

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options, all equally likely."""
        return options[self.integer(len(options))]

    def weighted(self, options: dict[T, float]) -> T:
        """Return one of the keys with probability in proportion to its value."""
        point = self.uniform() * sum(options.values())
        for option, weight in options.items():
            point -= weight
            if point < 0:
                return option
        return option

    def shuffled(self, options: Sequence[T]) -> list[T]:
        """Return the options in random order."""
        left = list(options)
        return [left.pop(self.integer(len(left))) for _ in range(len(left))]

    def about(self, value: float, spread: float = 0.12) -> float:
        """Return a number within a share `spread` of a value."""
        return value * self.uniform(1 - spread, 1 + spread)

    def low(self, power: int) -> float:
        """Return a number in [0, 1) that is near 0 more often, the larger the power."""
        value = point = self.uniform()
        for _ in range(power - 1):
            value *= point
        return value

    def table(self, *shape: int) -> np.ndarray:
        """Return an array of numbers in [0, 1), float32."""
        raw = self._bits.random_raw(math.prod(shape))
        return ((raw >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)).reshape(shape)


def cosine(degrees: float) -> float:
    """Return the cosine, rounded so that the last bit of a maths library does not matter."""
    return round(math.cos(math.radians(degrees)), 6)


def sine(degrees: float) -> float:
    """Return the sine, rounded as `cosine` is."""
    return round(math.sin(math.radians(degrees)), 6)


def smoothstep(x: np.ndarray) -> np.ndarray:
    """Return 0 below 0, 1 above 1 and a smooth rise between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _cell(x: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    whole = np.floor(x)
    part = x - whole
    low = whole.astype(np.int32) % n
    return low, (low + 1) % n, part * part * (3 - 2 * part)


def noise(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return smooth noise in [0, 1]: the table's values interpolated, repeated beyond its edges.

    Parameters
    ----------
    table
        Values at integer positions, shape ``(n, m)``.
    x, y
        Positions, shapes ``(1, w)`` and ``(h, 1)``: the grid is a product, which makes this cheap.

    Returns
    -------
    Shape ``(h, w)``, float32.
    """
    left, right, across = _cell(x[0], table.shape[1])
    top, bottom, down = _cell(y[:, 0], table.shape[0])
    columns = table[:, left] + (table[:, right] - table[:, left]) * across  # (n, w)
    return columns[top] + (columns[bottom] - columns[top]) * down[:, None]  # (h, w)


def cells(jitter: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return how far a point is from the border of its cell in a net of irregular cells.

    Parameters
    ----------
    jitter
        Where in its unit square each cell's centre lies, shape ``(2, n, n)``.
    x, y
        Positions, shapes ``(1, w)`` and ``(h, 1)``.

    Returns
    -------
    Distance to the second nearest centre less that to the nearest, shape ``(h, w)``, 0 on the border.
    """
    n = jitter.shape[1]
    column, row = np.floor(x).astype(np.int32), np.floor(y).astype(np.int32)
    first = np.full((y.shape[0], x.shape[1]), 9, np.float32)
    second = first.copy()
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            where = ((row + down) % n, (column + across) % n)
            dx = x - (column + across) - jitter[0][where]
            dy = y - (row + down) - jitter[1][where]
            distance = dx * dx + dy * dy  # (h, w)
            second = np.minimum(second, np.maximum(first, distance))
            first = np.minimum(first, distance)
    return np.sqrt(second) - np.sqrt(first)
