"""Coats: colours and patterns that the five animals share in part, so that no coat gives a class away."""

from dataclasses import dataclass

import numpy as np

from recamlib.data.hoofed.drawing import Frame, Part
from recamlib.data.hoofed.draws import Draws, cells, noise, smoothstep

COLOURS = {
    "bay": (118, 72, 42),
    "chestnut": (150, 86, 46),
    "dark": (74, 52, 40),
    "black": (40, 37, 38),
    "white": (226, 222, 212),
    "cream": (212, 190, 152),
    "grey": (142, 140, 138),
    "dun": (176, 144, 100),
}

_DEEP = {"bay": 3, "chestnut": 2, "dark": 2, "black": 2, "grey": 1}
_LIGHT = {"white": 3, "cream": 2, "dun": 1}
_ANY = {"bay": 3, "chestnut": 3, "dark": 2, "black": 2, "white": 2, "cream": 1, "grey": 2, "dun": 2}

#: For each animal: how often which pattern, and the colours of ground and marks.
PATTERNS: dict[str, dict[str, float]] = {
    "horse": {"solid": 55, "patches": 20, "dapple": 10, "roan": 8, "stripes": 7},
    "cow": {"solid": 42, "patches": 42, "roan": 10, "curls": 6},
    "sheep": {"wool": 70, "solid": 18, "patches": 12},
    "zebra": {"stripes": 100},
    "giraffe": {"cells": 88, "roan": 12},
}
GROUNDS = {
    "horse": _ANY,
    "cow": _ANY,
    "sheep": {"white": 5, "cream": 3, "grey": 1, "black": 1, "dark": 1},
    "zebra": {"white": 4, "cream": 2, "dun": 1, "grey": 2},
    "giraffe": {"cream": 4, "dun": 2, "white": 1},
}
MARKS = {
    "horse": {"white": 3, "cream": 1, "dark": 1},
    "cow": {"white": 4, "black": 2, "dark": 1},
    "sheep": {"black": 2, "dark": 2, "white": 1},
    "zebra": {"black": 5, "dark": 3, "bay": 1, "grey": 1},
    "giraffe": {"bay": 3, "chestnut": 3, "dark": 2, "dun": 1},
}


def colour(draws: Draws, name: str, spread: float = 0.1) -> np.ndarray:
    """Return a named colour, varied a little, shape ``(3,)``, float32 in [0, 1]."""
    gain = draws.about(1.0, spread)
    return np.array([min(1.0, c / 255 * gain * draws.about(1.0, 0.04)) for c in COLOURS[name]], np.float32)


@dataclass
class Coat:
    """Colours of one animal and its pattern laid over the window it stands in.

    Attributes
    ----------
    ground, marks, points
        Colours of the coat, its pattern, and muzzle and lower legs, shape ``(3,)``.
    pattern
        Name of the pattern.
    strength
        How much the marks differ from the ground, 0 to 1.
    """

    ground: np.ndarray
    marks: np.ndarray
    points: np.ndarray
    pattern: str
    strength: float
    frequency: float
    fade: float
    table: np.ndarray
    jitter: np.ndarray

    @classmethod
    def draw(cls, draws: Draws, kind: str) -> "Coat":
        """Draw a coat for one kind of animal."""
        pattern = draws.weighted(PATTERNS[kind])
        ground_name = draws.weighted(GROUNDS[kind])
        ground = colour(draws, ground_name)
        options = {name: w for name, w in MARKS[kind].items() if name != ground_name}
        marks = colour(draws, draws.weighted(options))
        strength = draws.uniform(0.75, 1.0)
        if pattern in ("stripes", "cells") and draws.chance(0.3):
            strength = draws.uniform(0.3, 0.65)  # faded, as in dust or bad light
        if pattern == "stripes" and kind == "horse":
            marks, strength = ground * 0.5, draws.uniform(0.2, 0.45)  # a primitive dun
        points = colour(draws, draws.weighted(_DEEP)) if draws.chance(0.55) else ground * 0.92
        if kind == "sheep" and draws.chance(0.3):
            points = ground
        return cls(
            ground=ground,
            marks=marks,
            points=points,
            pattern=pattern,
            strength=strength,
            frequency=draws.about(1.0, 0.35),
            fade=draws.uniform(0.2, 0.6) if draws.chance(0.25) else 0.0,
            table=draws.table(16, 16),
            jitter=draws.table(2, 8, 8) * 0.8 + 0.1,
        )

    @property
    def woolly(self) -> bool:
        """Whether the outline is that of wool."""
        return self.pattern == "wool"

    def lay(
        self, frame: Frame, window: tuple[slice, slice], origin: tuple[float, float], scale: float
    ) -> None:
        """Compute the pattern over a window of the frame, in units of the animal's height.

        Parameters
        ----------
        frame, window
            Where the animal stands.
        origin
            Its middle on the ground, pixels.
        scale
            Signed length of the unit in pixels, negative if the animal looks left.
        """
        self._rows, self._cols = window
        x = (frame.xs[:, self._cols] - origin[0]) / scale  # (1, w)
        y = (origin[1] - frame.ys[self._rows]) / abs(scale)  # (h, 1)
        self._x = x
        self._bumps = noise(self.table, x * 16, y * 16) - 0.5  # (h, w), wool and hair
        self._slow = noise(self.table[::-1], x * 3.2 * self.frequency + 5, y * 3.2 * self.frequency + 5)
        self._scale = abs(scale)
        if self.pattern == "patches":
            weight = smoothstep((self._slow - 0.5) * 9)
        elif self.pattern == "cells":
            border = cells(self.jitter, x * 7 * self.frequency, y * 6 * self.frequency)
            weight = smoothstep(border * 7 - 0.7)
        elif self.pattern == "dapple":
            weight = 0.3 * smoothstep(noise(self.table, x * 11, y * 11) * 3 - 1.2)
        elif self.pattern in ("roan", "curls"):
            weight = 0.35 * noise(self.table, x * 20, y * 20)
        else:
            weight = np.zeros_like(self._slow)
        self._weight = weight * self.strength
        grain = {"wool": 0.34, "curls": 0.22}.get(self.pattern, 0.06)
        self._grain = 1 + grain * self._bumps + 0.1 * (self._slow - 0.5)

    def _cut(self, field: np.ndarray, part: Part) -> np.ndarray:
        rows = slice(part.rows.start - self._rows.start, part.rows.stop - self._rows.start)
        cols = slice(part.cols.start - self._cols.start, part.cols.stop - self._cols.start)
        return field[rows, cols]

    def roughen(self, part: Part | None, amount: float) -> None:
        """Move the outline of a shape in and out by `amount` of the animal's height."""
        if part is not None:
            part.distance = part.distance + self._cut(self._bumps, part) * (2 * amount * self._scale)

    def on(self, part: Part | None) -> np.ndarray | None:
        """Return the colour of the coat at every pixel of a shape, shape ``(h, w, 3)``."""
        if part is None:
            return None
        weight = self._cut(self._weight, part)
        if self.pattern == "stripes":
            phase = part.along * (8.5 * self.frequency / self._scale) + 1.6 * self._cut(self._slow, part)
            wave = np.abs(phase - np.floor(phase) - 0.5) * 2  # 0 to 1 and back
            weight = smoothstep(wave * 4 - 1.5) * self.strength
            if self.fade:  # stripes end towards the hind legs
                x = self._x[:, part.cols.start - self._cols.start : part.cols.stop - self._cols.start]
                weight = weight * np.clip(0.6 + x / self.fade, 0.1, 1)
        mixed = self.ground + weight[:, :, None] * (self.marks - self.ground)
        return mixed * self._cut(self._grain, part)[:, :, None]
