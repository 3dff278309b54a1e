"""Thick lines and ellipses painted at three times the size: soft edges in the image, an exact mask."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

Point = tuple[float, float]
Shape = tuple  # a drawing function of OpenCV and what it is called with between the image and the colour
SAMPLES = 3  # per pixel and axis: a pixel's colour is their mean, its owner that of the middle one
_SHIFT = 4  # OpenCV is given sixteenths of a sample


class Frame:
    """An image being painted, back to front, and which object each sample shows."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        # red, green, blue and owner: 0 scenery, otherwise the number of the object
        self.samples = np.zeros((SAMPLES * height, SAMPLES * width, 4), np.uint8)

    def paint(self, shapes: Sequence[Shape], tone: np.ndarray, *, owner: int = 0) -> None:
        """Lay shapes of one colour ``(3,)``, in [0, 1], over what is there."""
        _fill(self.samples, shapes, [*(int(255 * min(t, 1)) for t in tone.tolist()), owner])

    def lay(self, shapes: Sequence[Shape], coat: Callable[..., np.ndarray], *, owner: int) -> None:
        """Lay shapes over what is there, coloured by ``coat(xs (1, w), ys (h, 1)) -> (h, w, 3)``."""
        inside = np.zeros(self.samples.shape[:2], np.uint8)
        _fill(inside, shapes, 1)
        left, top, wide, tall = cv2.boundingRect(inside)
        if not wide:
            return  # nothing of it lies in the frame
        rows = slice(top // SAMPLES, (top + tall - 1) // SAMPLES + 1)
        cols = slice(left // SAMPLES, (left + wide - 1) // SAMPLES + 1)
        xs = np.arange(cols.start, cols.stop, dtype=np.float32)[None] + 0.5
        ys = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5
        self.fill(rows, cols, coat(xs, ys), owner=owner, inside=inside)

    def fill(
        self, rows: slice, cols: slice, colours: np.ndarray, *, owner: int = 0,
        inside: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        """Colour a window of pixels ``(h, w, 3)``, in [0, 1], or only its samples `inside` ``(3H, 3W)``."""
        whole = np.full((*colours.shape[:2], 4), owner, np.uint8)
        np.clip(colours * 255, 0, 255, out=whole[:, :, :3], casting="unsafe")
        cut = tuple(slice(SAMPLES * s.start, SAMPLES * s.stop) for s in (rows, cols))
        size = whole.shape[1] * SAMPLES, whole.shape[0] * SAMPLES
        fine = cv2.resize(whole, size, interpolation=cv2.INTER_LINEAR)
        target = self.samples[cut]
        target[:] = fine if inside is None else cv2.copyTo(fine, inside[cut], target.copy())

    def image(self) -> np.ndarray:
        """Return the mean of every pixel's samples, shape ``(H, W, 3)``, uint8."""
        return cv2.resize(self.samples, (self.width, self.height), interpolation=cv2.INTER_AREA)[:, :, :3]

    def owners(self) -> np.ndarray:
        """Return the owner of every pixel's middle sample, shape ``(H, W)``, uint8."""
        return self.samples[SAMPLES // 2 :: SAMPLES, SAMPLES // 2 :: SAMPLES, 3]


def line(points: Sequence[Point], radii: Sequence[float]) -> list[Shape]:
    """Return a thick line with round ends through some points, with a radius at each, in pixels."""
    shapes: list[Shape] = [
        (cv2.circle, _fixed(x, y), max(_length(r), 8)) for (x, y), r in zip(points, radii, strict=True)
    ]
    for (x, y), (u, v), r, s in zip(points, points[1:], radii, radii[1:]):
        length = math.hypot(u - x, v - y)
        if length > abs(r - s):  # else one round end lies within the other
            lean = (r - s) / length
            across, dx, dy = math.sqrt(1 - lean * lean), (u - x) / length, (v - y) / length
            one, other = ((lean * dx - across * dy * k, lean * dy + across * dx * k) for k in (1, -1))
            ends = ((x, y, r, one), (u, v, s, one), (u, v, s, other), (x, y, r, other))
            shapes += polygon([(x + r * a, y + r * b) for x, y, r, (a, b) in ends])
    return shapes


def blob(x: float, y: float, rx: float, ry: float) -> list[Shape]:
    """Return an upright ellipse, in pixels."""
    return [(cv2.ellipse, _fixed(x, y), (_length(rx), _length(ry)), 0, 0, 360)]


def polygon(corners: Sequence[Point]) -> list[Shape]:
    """Return a convex polygon, in pixels."""
    return [(cv2.fillConvexPoly, np.array([_fixed(*corner) for corner in corners], np.int32))]


def _fixed(x: float, y: float) -> tuple[int, int]:
    return _length(x) - 8, _length(y) - 8  # the middle of a sample has whole coordinates


def _length(x: float) -> int:
    return int(x * (SAMPLES << _SHIFT) + 0.5)


def _fill(target: np.ndarray, shapes: Sequence[Shape], value: int | list[int]) -> None:
    for draw, *where in shapes:
        thickness = () if draw is cv2.fillConvexPoly else (cv2.FILLED,)
        draw(target, *where, value, *thickness, cv2.LINE_8, _SHIFT)


def pick(draws: np.random.Generator, options: Sequence) -> Any:
    """Return one of the options, all equally likely."""
    return options[draws.integers(len(options))]


def smoothstep(x: np.ndarray) -> np.ndarray:
    """Return 0 below 0, 1 above 1 and a smooth rise between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def wave(x: np.ndarray) -> np.ndarray:
    """Return a wave of period 1 that rises from 0 to 1 and falls back."""
    return np.abs(x - np.floor(x) - 0.5) * 2


def noise(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a table's values, repeated beyond its edges, interpolated at `x` ``(1, w)``, `y` ``(h, 1)``."""
    left, right, across = _cell(x[0], table.shape[1])
    top, bottom, down = _cell(y[:, 0], table.shape[0])
    columns = table[:, left] + (table[:, right] - table[:, left]) * across  # (n, w)
    return columns[top] + (columns[bottom] - columns[top]) * down[:, None]  # (h, w)


def _cell(x: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    whole = np.floor(x)
    low = whole.astype(np.int32) % n
    return low, (low + 1) % n, smoothstep(x - whole)
