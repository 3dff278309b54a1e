"""Signed distances of a few shapes, painted with soft edges into the image and exact ones into the mask."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Point = tuple[float, float]
#: Start, end, radius at either end: a thick line with round ends, all in pixels.
Segment = tuple[Point, Point, float, float]


@dataclass(slots=True)
class Part:
    """One shape in its window of the frame.

    `distance` is signed (negative inside), in pixels; `along` runs from start to end of a line, in
    pixels; `light` is a factor of brightness that makes the shape look round. All have shape ``(h, w)``.
    """

    rows: slice
    cols: slice
    distance: np.ndarray
    along: np.ndarray
    light: np.ndarray


class Frame:
    """An image being painted, back to front, and which animal each pixel shows.

    Attributes
    ----------
    pixels
        Colours in [0, 1], shape ``(H, W, 3)``, float32.
    owner
        0 scenery, otherwise the number of the animal, shape ``(H, W)``, uint8.
    xs, ys
        Pixel centres, shapes ``(1, W)`` and ``(H, 1)``, float32.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.pixels = np.zeros((height, width, 3), np.float32)
        self.owner = np.zeros((height, width), np.uint8)
        self.xs = np.arange(width, dtype=np.float32)[None, :] + 0.5
        self.ys = np.arange(height, dtype=np.float32)[:, None] + 0.5

    def window(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice] | None:
        """Return rows and columns that hold a box with one pixel to spare, or None outside the frame."""
        rows = slice(max(0, int(top) - 1), min(self.height, int(bottom) + 2))
        cols = slice(max(0, int(left) - 1), min(self.width, int(right) + 2))
        return (rows, cols) if rows.start < rows.stop and cols.start < cols.stop else None

    def lines(self, segments: Sequence[Segment], *, blend: float = 0.0) -> Part | None:
        """Return the union of thick lines, molten together over `blend` pixels.

        None means that nothing of it lies in the frame.
        """
        left = min(min(a[0] - ra, b[0] - rb) for a, b, ra, rb in segments)
        right = max(max(a[0] + ra, b[0] + rb) for a, b, ra, rb in segments)
        top = min(min(a[1] - ra, b[1] - rb) for a, b, ra, rb in segments)
        bottom = max(max(a[1] + ra, b[1] + rb) for a, b, ra, rb in segments)
        window = self.window(left, top, right, bottom)
        if window is None:
            return None
        rows, cols = window
        xs, ys = self.xs[:, cols], self.ys[rows]
        part, travelled = None, 0.0
        for a, b, ra, rb in segments:
            distance, along, light, length = _thick_line(xs, ys, a, b, ra, rb)
            along = along + travelled
            travelled += length
            if part is None:
                part = Part(rows, cols, distance, along, light)
            elif blend > 0:
                share = np.clip(0.5 + (part.distance - distance) * (0.5 / blend), 0, 1)
                part.distance = (
                    part.distance + (distance - part.distance) * share - blend * share * (1 - share)
                )
                part.light = part.light + (light - part.light) * share
                part.along = np.where(share > 0.5, along, part.along)
            else:
                closer = distance < part.distance
                part.distance = np.where(closer, distance, part.distance)
                part.light = np.where(closer, light, part.light)
                part.along = np.where(closer, along, part.along)
        return part

    def path(self, points: Sequence[Point], radii: Sequence[float]) -> Part | None:
        """Return a thick line through some points with a radius at each."""
        pairs = zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
        return self.lines(list(pairs))

    def blob(self, centre: Point, rx: float, ry: float) -> Part | None:
        """Return an ellipse with upright axes; the distance is exact on the border only."""
        window = self.window(centre[0] - rx, centre[1] - ry, centre[0] + rx, centre[1] + ry)
        if window is None:
            return None
        rows, cols = window
        dx, dy = (self.xs[:, cols] - centre[0]) / rx, (self.ys[rows] - centre[1]) / ry
        reach = np.sqrt(dx * dx + dy * dy)  # (h, w), 1 on the border
        distance = (reach - 1) * min(rx, ry)
        light = 1 - 0.16 * np.clip(dy, -1, 1) - 0.1 * np.minimum(reach * reach, 1)
        return Part(rows, cols, distance, reach, light)

    def polygon(self, points: Sequence[Point]) -> Part | None:
        """Return a convex polygon, corners in either order."""
        xs, ys = [p[0] for p in points], [p[1] for p in points]
        window = self.window(min(xs), min(ys), max(xs), max(ys))
        if window is None:
            return None
        rows, cols = window
        middle = (sum(xs) / len(xs), sum(ys) / len(ys))
        distance = None
        for a, b in zip(points, [*points[1:], points[0]], strict=True):
            nx, ny = b[1] - a[1], a[0] - b[0]
            length = math.sqrt(nx * nx + ny * ny) or 1.0
            sign = -1 if (middle[0] - a[0]) * nx + (middle[1] - a[1]) * ny > 0 else 1
            side = ((self.xs[:, cols] - a[0]) * nx + (self.ys[rows] - a[1]) * ny) * (sign / length)
            distance = side if distance is None else np.maximum(distance, side)
        flat = np.ones_like(distance)
        return Part(rows, cols, distance, flat, flat)

    def paint(self, part: Part | None, colour: np.ndarray, *, owner: int = 0, shade: float = 1.0) -> None:
        """Lay a shape over what is there.

        Parameters
        ----------
        part
            A shape, or None for one outside the frame.
        colour
            One colour, shape ``(3,)``, or one a pixel, shape ``(h, w, 3)``.
        owner
            Number of the animal it belongs to, 0 for scenery.
        shade
            Factor of brightness.
        """
        if part is None:
            return
        cover = np.clip(0.5 - part.distance, 0, 1)[:, :, None]  # soft edge, one pixel wide
        region = self.pixels[part.rows, part.cols]
        region += cover * (colour * (part.light * shade)[:, :, None] - region)
        # A pixel belongs to the shape that covers its centre: the mask has no soft edge.
        self.owner[part.rows, part.cols][part.distance <= 0] = owner


def _thick_line(
    xs: np.ndarray, ys: np.ndarray, a: Point, b: Point, ra: float, rb: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return signed distance, position along the line, light, shape ``(h, w)``, and the line's length."""
    bx, by = b[0] - a[0], b[1] - a[1]
    square = max(bx * bx + by * by, 1e-6)
    px, py = xs - a[0], ys - a[1]
    t = np.clip((px * bx + py * by) * (1 / square), 0, 1)  # (h, w)
    dx, dy = px - t * bx, py - t * by
    reach = np.sqrt(dx * dx + dy * dy)
    radius = np.maximum(ra + (rb - ra) * t, 0.3)
    light = 1 - 0.18 * np.clip(dy / radius, -1, 1) - 0.12 * np.minimum(reach / radius, 1)
    length = math.sqrt(square)
    return reach - radius, t * length, light, length
