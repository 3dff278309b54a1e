"""Where the animals stand: skies, hills, ground, and things that are not animals."""

from dataclasses import dataclass

import numpy as np

from recamlib.data.hoofed.drawing import Frame
from recamlib.data.hoofed.draws import Draws, noise, smoothstep

Colour = tuple[float, float, float]


def _tone(red: int, green: int, blue: int) -> np.ndarray:
    return np.array([red, green, blue], np.float32) / np.float32(255)


@dataclass(frozen=True)
class Place:
    """Colours of a kind of place: sky above and at the horizon, hills, ground in two tones, leaves."""

    sky: tuple[np.ndarray, np.ndarray]
    hills: np.ndarray
    ground: tuple[np.ndarray, np.ndarray]
    leaves: np.ndarray
    planks: bool = False


PLACES = {
    "meadow": Place(
        (_tone(96, 152, 214), _tone(190, 214, 232)),
        _tone(88, 122, 92),
        (_tone(92, 138, 62), _tone(142, 164, 84)),
        _tone(52, 92, 44),
    ),
    "savanna": Place(
        (_tone(120, 168, 214), _tone(226, 216, 190)),
        _tone(150, 138, 110),
        (_tone(188, 160, 96), _tone(150, 120, 70)),
        _tone(104, 112, 58),
    ),
    "snow": Place(
        (_tone(150, 172, 200), _tone(214, 222, 230)),
        _tone(160, 172, 186),
        (_tone(232, 236, 242), _tone(196, 208, 224)),
        _tone(58, 78, 70),
    ),
    "dusk": Place(
        (_tone(92, 84, 130), _tone(240, 168, 112)),
        _tone(92, 70, 84),
        (_tone(110, 90, 62), _tone(84, 72, 56)),
        _tone(54, 56, 44),
    ),
    "desert": Place(
        (_tone(140, 176, 210), _tone(232, 220, 196)),
        _tone(196, 154, 112),
        (_tone(214, 180, 132), _tone(186, 146, 100)),
        _tone(120, 124, 76),
    ),
    "mist": Place(
        (_tone(188, 194, 198), _tone(208, 210, 210)),
        _tone(176, 182, 182),
        (_tone(136, 146, 118), _tone(160, 164, 140)),
        _tone(112, 124, 108),
    ),
    "barn": Place(
        (_tone(104, 76, 54), _tone(124, 92, 66)),
        _tone(84, 62, 46),
        (_tone(186, 154, 92), _tone(142, 112, 66)),
        _tone(150, 124, 70),
        True,
    ),
    "stable": Place(
        (_tone(150, 146, 140), _tone(172, 168, 160)),
        _tone(120, 116, 112),
        (_tone(140, 130, 118), _tone(112, 104, 96)),
        _tone(150, 140, 90),
        True,
    ),
}


class Scenery:
    """A place with its light and the things in it, drawn from a stream."""

    def __init__(self, draws: Draws) -> None:
        self.place = PLACES[draws.pick(tuple(PLACES))]
        self.draws = draws
        self.horizon = draws.uniform(0.26, 0.5)  # share of the height
        self.night = not self.place.planks and draws.chance(0.12)
        self.gain = draws.uniform(0.85, 1.12)
        self.tables = draws.table(3, 16, 16)

    def behind(self, frame: Frame) -> None:
        """Paint sky, hills and ground."""
        height, width = frame.height, frame.width
        x, y = frame.xs / width, frame.ys / height
        top, low = self.place.sky
        share = np.clip(y / self.horizon, 0, 1)[:, :, None]
        sky = top + share * (low - top)  # (H, 1, 3)
        if self.place.planks:
            wave = x * self.draws.uniform(8, 14)
            gap = smoothstep((np.abs(wave - np.floor(wave) - 0.5) * 2 - 0.86) * 9)[:, :, None]
            sky = sky * (1 - 0.45 * gap) * (0.86 + 0.28 * noise(self.tables[0], x * 12, y * 2)[:, :, None])
        else:
            clouds = smoothstep(noise(self.tables[0], x * 4, y * 9) * 2.2 - self.draws.uniform(0.9, 1.6))
            sky = sky + 0.5 * clouds[:, :, None] * (np.float32(0.95) - sky)
            for layer in (0.10, 0.05):
                line = self.horizon - layer * 2 * noise(
                    self.tables[1], x * (3 + 40 * layer), y[:1] * 0 + layer * 40
                )
                edge = np.clip((y - line) * height + 0.5, 0, 1)[:, :, None]
                sky = sky + edge * (self.place.hills * (1.25 - 2.5 * layer) - sky)
        first, second = self.place.ground
        depth = np.clip((y - self.horizon) / (1 - self.horizon), 0, 1)
        rough = (
            noise(self.tables[2], x * 9, y * 22) * 0.55 + noise(self.tables[0], x * 31, y * 47) * 0.45
        )  # (H, W)
        ground = first + (rough * (0.5 + 0.5 * depth))[:, :, None] * (second - first)
        ground = ground * (1.05 - 0.2 * depth)[:, :, None]
        edge = np.clip((y - self.horizon) * height + 0.5, 0, 1)[:, :, None]
        frame.pixels[:] = sky + edge * (ground - sky)

    def thing(self, frame: Frame, x: float, foot: float, size: float) -> None:
        """Paint one thing that is no animal with its foot at a point; size in pixels."""
        kinds = (
            ("barrel", "bale", "post")
            if self.place.planks
            else ("tree", "rock", "bush", "barrel", "fence", "bale")
        )
        kind = self.draws.pick(kinds)
        getattr(self, f"_{kind}")(frame, x, foot, size)

    def finish(self, frame: Frame) -> np.ndarray:
        """Return the image after exposure, night and grain, shape ``(H, W, 3)``, uint8."""
        pixels = frame.pixels * self.gain
        if self.night:
            pixels = pixels * _tone(108, 122, 174) + _tone(6, 8, 16)
        grain = self.draws.table(frame.height, frame.width)[:, :, None] - 0.5
        pixels = pixels + 0.05 * grain
        return (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)

    def _tree(self, frame: Frame, x: float, foot: float, size: float) -> None:
        draws = self.draws
        tall = size * draws.uniform(1.3, 2.0)
        bark = _tone(92, 70, 52) * draws.about(1.0, 0.2)
        frame.paint(frame.path([(x, foot), (x, foot - tall)], [0.09 * size, 0.05 * size]), bark)
        flat = draws.chance(0.4)  # an acacia
        for _ in range(4):
            centre = (x + size * draws.uniform(-0.4, 0.4), foot - tall + size * draws.uniform(-0.2, 0.15))
            radius = size * draws.uniform(0.28, 0.42)
            leaves = self.place.leaves * draws.about(1.0, 0.2)
            frame.paint(
                frame.blob(centre, radius * (1.5 if flat else 1), radius * (0.45 if flat else 0.9)), leaves
            )

    def _bush(self, frame: Frame, x: float, foot: float, size: float) -> None:
        for _ in range(5):
            centre = (x + size * self.draws.uniform(-0.45, 0.45), foot - size * self.draws.uniform(0.08, 0.3))
            radius = size * self.draws.uniform(0.16, 0.26)
            frame.paint(frame.blob(centre, radius, radius), self.place.leaves * self.draws.about(1.1, 0.25))

    def _rock(self, frame: Frame, x: float, foot: float, size: float) -> None:
        tone = _tone(134, 130, 126) * self.draws.about(1.0, 0.25)
        for _ in range(3):
            centre = (x + size * self.draws.uniform(-0.3, 0.3), foot - size * self.draws.uniform(0.05, 0.2))
            frame.paint(
                frame.blob(
                    centre, size * self.draws.uniform(0.2, 0.4), size * self.draws.uniform(0.14, 0.24)
                ),
                tone,
            )

    def _barrel(self, frame: Frame, x: float, foot: float, size: float) -> None:
        """A drum with rings, to which stripes alone must not be evidence for a zebra."""
        draws = self.draws
        tone = draws.pick((_tone(60, 98, 150), _tone(170, 70, 52), _tone(214, 212, 204), _tone(74, 74, 78)))
        ring = draws.pick((_tone(232, 228, 220), _tone(44, 42, 44)))
        half, tall = 0.2 * size, 0.6 * size
        box = [(x - half, foot), (x + half, foot), (x + half, foot - tall), (x - half, foot - tall)]
        part = frame.polygon(box)
        if part is None:
            return
        wave = (foot - frame.ys[part.rows]) / tall * draws.uniform(2.5, 5)  # (h, 1)
        stripe = (np.abs(wave - np.floor(wave) - 0.5) < 0.2)[:, :, None]
        round_ = 1 - 0.35 * np.abs(frame.xs[:, part.cols] - x)[:, :, None] / half
        frame.paint(part, np.where(stripe, ring, tone) * round_)

    def _bale(self, frame: Frame, x: float, foot: float, size: float) -> None:
        radius = 0.3 * size
        straw = _tone(206, 172, 98) * self.draws.about(1.0, 0.12)
        frame.paint(frame.blob((x, foot - radius), radius, radius), straw)
        frame.paint(frame.blob((x, foot - radius), radius * 0.55, radius * 0.55), straw * 0.85)

    def _post(self, frame: Frame, x: float, foot: float, size: float) -> None:
        wood = _tone(110, 84, 60) * self.draws.about(1.0, 0.2)
        frame.paint(frame.path([(x, foot), (x, foot - 1.2 * size)], [0.05 * size] * 2), wood)

    def _fence(self, frame: Frame, x: float, foot: float, size: float) -> None:
        draws = self.draws
        wood = draws.pick((_tone(132, 104, 76), _tone(216, 212, 204))) * draws.about(1.0, 0.15)
        left, right = x - size * draws.uniform(0.6, 1.2), x + size * draws.uniform(0.6, 1.2)
        for level in (0.28, 0.5):
            ends = [(left, foot - level * size), (right, foot - level * size)]
            frame.paint(frame.path(ends, [0.03 * size] * 2), wood)
        count = 4
        for i in range(count):
            at = left + (right - left) * (i + 0.5) / count
            frame.paint(frame.path([(at, foot), (at, foot - 0.62 * size)], [0.04 * size] * 2), wood)
