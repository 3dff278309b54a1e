"""Animals on four legs: one body plan, measures of each kind, coats and parts that kinds share."""

import math
from typing import NamedTuple

import numpy as np

from recamlib.data.hoofed.drawing import Frame, Point, Shape, line, noise, pick, smoothstep, wave

TONES = {
    "bay": (118, 72, 42), "chestnut": (150, 86, 46), "dark": (74, 52, 40), "black": (40, 37, 38),
    "white": (226, 222, 212), "cream": (212, 190, 152), "grey": (142, 140, 138), "dun": (176, 144, 100),
    "orange": (206, 126, 52), "pink": (214, 158, 146), "horn": (204, 194, 163),
}  # fmt: skip

_ANY = "bay bay chestnut chestnut dark black white cream grey dun"


class Kind(NamedTuple):
    """Measures in units of the height at the withers, coats, parts; a word that comes twice is likelier."""

    leg: float  # ground to belly
    barrel: float  # radius of the trunk
    half: float  # of the length of the trunk
    slope: float  # how much higher its front is
    neck: float
    carriage: tuple[float, float]  # angle of the neck in degrees when the head is up
    head: float
    girth: float  # radius of the head
    limb: float  # radius of a leg
    stature: float  # against a horse
    patterns: str
    grounds: str
    marks: str
    parts: str  # names in `PARTS`; one in brackets is there every second time


# The five share colours and patterns, so that no coat alone gives a class away.
HOOFED_KINDS = {
    "horse": Kind(0.52, 0.205, 0.32, 0, 0.42, (32, 58), 0.29, 0.085, 0.050, 1.0,
        "solid solid solid solid solid roan", "bay bay chestnut chestnut dark black grey",
        "white cream dark", "mane ears hair"),
    "cow": Kind(0.42, 0.235, 0.37, 0, 0.26, (2, 32), 0.26, 0.100, 0.058, 0.92,
        "patches patches patches patches patches solid", "black black bay dark",
        "white white white cream", "wide horns udder tuft"),
    "sheep": Kind(0.34, 0.270, 0.29, 0, 0.24, (20, 48), 0.23, 0.090, 0.044, 0.72,
        "wool wool wool wool wool solid", "white white white white cream cream grey black",
        "black dark", "wide (curl) stub"),
    "zebra": Kind(0.49, 0.210, 0.31, 0, 0.37, (32, 55), 0.28, 0.088, 0.047, 0.95,
        "stripes", "white white cream dun grey", "black black dark bay", "crest ears tuft"),
    "giraffe": Kind(0.60, 0.180, 0.24, 0.13, 0.95, (56, 76), 0.23, 0.064, 0.038, 1.1,
        "cells cells cells roan", "cream cream dun white", "bay chestnut dark dun", "knobs wide tuft"),
}  # fmt: skip

# What the small backbone learns to see first.
OTHER_KINDS = {
    "pig": Kind(0.26, 0.30, 0.42, 0, 0.10, (-10, 10), 0.28, 0.120, 0.055, 0.60,
        "solid solid patches", "pink pink pink black dark", "black dark pink", "ears snout"),
    "dog": Kind(0.50, 0.17, 0.34, 0, 0.22, (35, 60), 0.24, 0.090, 0.045, 0.60,
        "solid patches roan", _ANY, "white black dark", "(ears) wide plume"),
    "cat": Kind(0.46, 0.18, 0.36, 0, 0.12, (30, 60), 0.15, 0.110, 0.040, 0.50,
        "solid patches stripes", "orange grey black white cream", "white dark black", "ears plume"),
    "deer": Kind(0.58, 0.16, 0.28, 0, 0.34, (50, 70), 0.22, 0.070, 0.032, 0.90,
        "solid spots", "chestnut dun bay", "cream white", "(antlers) wide stub"),
    "camel": Kind(0.60, 0.20, 0.30, 0, 0.55, (15, 40), 0.22, 0.075, 0.045, 1.15,
        "solid roan wool", "dun dun cream bay", "cream dark", "hump tuft ears"),
    "elephant": Kind(0.46, 0.30, 0.34, 0.04, 0.14, (10, 30), 0.26, 0.150, 0.100, 1.35,
        "solid roan", "grey grey dun", "dark grey", "trunk flaps tuft"),
    "rhino": Kind(0.32, 0.30, 0.42, 0, 0.16, (-15, 10), 0.34, 0.120, 0.085, 1.0,
        "solid roan", "grey grey dark", "dark black", "nosehorn ears tuft"),
    "bear": Kind(0.34, 0.28, 0.36, 0.03, 0.14, (10, 35), 0.24, 0.130, 0.085, 0.85,
        "solid roan curls", "dark black bay white", "dark cream", "wide"),
    "llama": Kind(0.48, 0.22, 0.26, 0, 0.52, (68, 84), 0.18, 0.075, 0.045, 0.90,
        "wool wool patches", "white cream bay black grey", "dark white", "ears stub"),
    "tiger": Kind(0.38, 0.20, 0.46, 0, 0.16, (10, 35), 0.18, 0.120, 0.055, 0.75,
        "stripes", "orange orange dun", "black dark", "wide rope"),
    "leopard": Kind(0.42, 0.17, 0.44, 0, 0.15, (15, 40), 0.16, 0.100, 0.048, 0.65,
        "spots cells", "dun orange cream", "black dark", "wide rope"),
    "goat": Kind(0.44, 0.22, 0.28, 0, 0.26, (40, 65), 0.22, 0.075, 0.038, 0.65,
        "solid patches curls", "white grey black bay dun", "white black dark", "sabres wide beard stub"),
}  # fmt: skip

# name: joint it hangs on, points from there (forwards, up), radii, tone, whether there is one on either side
PARTS = {
    "ears": ("poll", [(-0.02, 0.04), (-0.04, 0.16)], [0.04, 0.012], "coat", True),
    "wide": ("poll", [(-0.02, 0.03), (-0.16, 0.02)], [0.035, 0.03], "coat", True),
    "flaps": ("poll", [(-0.02, 0.02), (-0.14, -0.14)], [0.12, 0.13], "shade", False),
    "horns": ("poll", [(0, 0.06), (0.09, 0.11), (0.11, 0.24)], [0.03, 0.026, 0.01], "horn", True),
    "sabres": ("poll", [(0, 0.06), (-0.06, 0.2), (-0.2, 0.26)], [0.032, 0.026, 0.01], "horn", True),
    "antlers": ("poll", [(0, 0.05), (-0.08, 0.26), (0.02, 0.4), (-0.08, 0.26), (-0.2, 0.36)], [0.02] * 5,
        "horn", True),
    "curl": ("poll", [(0, 0.04), (-0.11, 0.05), (-0.13, -0.07), (-0.02, -0.1)], [0.04, 0.036, 0.03, 0.015],
        "horn", False),
    "knobs": ("poll", [(0, 0.04), (-0.02, 0.15)], [0.018, 0.026], "dark", True),
    "nosehorn": ("muzzle", [(-0.04, 0.08), (0.03, 0.26)], [0.05, 0.01], "horn", False),
    "snout": ("muzzle", [(0, 0), (0.06, 0)], [0.075, 0.08], "pink", False),
    "beard": ("muzzle", [(-0.05, -0.05), (-0.07, -0.18)], [0.03, 0.015], "points", False),
    "trunk": ("muzzle", [(-0.03, 0), (0.06, -0.25), (0.03, -0.5)], [0.08, 0.06, 0.04], "shade", False),
    "hump": ("back", [(-0.08, 0), (0, 0.18), (0.08, 0)], [0.14, 0.08, 0.14], "shade", False),
    "udder": ("back", [(-0.2, -0.5), (-0.26, -0.5)], [0.08, 0.07], "pink", False),
    "hair": ("rear", [(0, 0.1), (-0.12, -0.02), (-0.14, -0.4)], [0.04, 0.06, 0.03], "mane", False),
    "tuft": ("rear", [(0, 0.1), (-0.06, 0), (-0.09, -0.24), (-0.1, -0.36)], [0.02, 0.018, 0.018, 0.036],
        "dark", False),
    "stub": ("rear", [(-0.02, 0.1), (-0.06, -0.04)], [0.06, 0.05], "coat", False),
    "plume": ("rear", [(0, 0.08), (-0.16, 0.16), (-0.2, 0.34)], [0.04, 0.05, 0.035], "coat", False),
    "rope": ("rear", [(0, 0.06), (-0.14, -0.16), (-0.3, -0.12)], [0.03] * 3, "coat", False),
}  # fmt: skip


def tone(draws: np.random.Generator, words: str, *, but: str = "") -> tuple[str, np.ndarray]:
    """Return the name of one of the colours and the colour, varied a little, shape ``(3,)`` in [0, 1]."""
    name = pick(draws, [word for word in words.split() if word != but])
    return name, np.array(TONES[name]) / 255 * draws.uniform(0.9, 1.1) * draws.uniform(0.96, 1.04, 3)


class Animal:
    """One animal with coat and pose, drawn from a generator; `paint` puts it into a frame."""

    def __init__(self, draws: np.random.Generator, kind: Kind) -> None:
        def about(value: float, spread: float = 0.12) -> float:
            return value * draws.uniform(1 - spread, 1 + spread)

        self.draws, self.kind, self.flip = draws, kind, pick(draws, (-1, 1))
        self.pattern = pick(draws, kind.patterns.split())
        name, self.ground = tone(draws, kind.grounds)
        self.marks = tone(draws, kind.marks, but=name)[1]
        self.points = tone(draws, "bay dark black")[1] if draws.random() < 0.5 else self.ground * 0.9
        self.strength = draws.uniform(0.75, 1)
        self.table, self.frequency = draws.random((16, 16), np.float32), about(1.0, 0.3)
        self.height = kind.stature * about(1.0, 0.15)
        view = 1 - 0.4 * draws.random() * draws.random()  # shortened when it does not stand side on
        resting, grazing = draws.random() < 0.08, draws.random() < 0.25
        self.leg = about(kind.leg) * (0.15 if resting else 1)
        self.barrel, half = about(kind.barrel, 0.1), about(kind.half) * view
        trunk = self.leg + self.barrel
        self.rear, self.chest = (-half, trunk - kind.slope / 2), (half, trunk + kind.slope / 2)
        root = (half + 0.35 * self.barrel * view, self.chest[1] + 0.35 * self.barrel)
        up = math.radians(-draws.uniform(30, 50) if grazing else draws.uniform(*kind.carriage))
        down = math.radians(draws.uniform(-78, -55) if grazing else draws.uniform(-52, -14))
        neck, head = about(kind.neck), about(kind.head)
        poll = (root[0] + neck * math.cos(up) * view, max(root[1] + neck * math.sin(up), 0.2))
        muzzle = (poll[0] + head * math.cos(down), max(poll[1] + head * math.sin(down), 0.05))
        self.joints = {"rear": (-half - 0.8 * self.barrel, trunk + 0.3 * self.barrel), "root": root,
                       "poll": poll, "muzzle": muzzle, "back": (0.0, trunk + self.barrel)}  # fmt: skip
        self.top = max(poll[1], trunk + self.barrel) + 0.25

    def paint(self, frame: Frame, foot: Point, height: float, owner: int) -> None:
        """Paint the animal: its middle stands at `foot`, it is `height` high at the withers, in pixels."""
        kind, draws, barrel, joints = self.kind, self.draws, self.barrel, self.joints

        def put(points: list[Point], radii: list[float]) -> list[Shape]:
            where = [(foot[0] + self.flip * x * height, foot[1] - y * height) for x, y in points]
            return line(where, [height * r for r in radii])

        legs = []
        for far in (True, False):
            for x, y, shift in ((*self.rear, -0.04), (*self.chest, 0.03)):
                step, lift = x + draws.uniform(-0.08, 0.08) + (0.06 if far else 0), 0.03 if far else 0
                knee = ((x + step) / 2 + shift, self.leg * 0.5 + lift)
                limb = kind.limb
                legs.append(put([(x, y), knee, (step, lift + 0.03)], [1.5 * limb, 1.1 * limb, 0.9 * limb]))
        frame.paint(legs[0] + legs[1], self.ground * 0.62, owner=owner)
        poll, muzzle, low = joints["poll"], joints["muzzle"], barrel * 0.75
        bend = ((joints["root"][0] + poll[0]) / 2 - 0.04, (joints["root"][1] + poll[1]) / 2 + 0.04)
        belly = (0.0, (self.rear[1] + self.chest[1]) / 2 - 0.02)
        body = [
            *legs[2], *legs[3], *put([self.rear, belly, self.chest], [barrel * 0.96, barrel * 1.03, barrel]),
            *put([joints["root"], bend, poll], [low, (low + kind.girth) / 2, kind.girth]),
            *put([poll, muzzle], [kind.girth, kind.girth * 0.64]),
        ]  # fmt: skip
        if self.pattern == "wool":
            for i in range(12):
                x, y = (self.chest[0] + barrel * 0.6) * math.cos(i * math.pi / 6), math.sin(i * math.pi / 6)
                body += put([(x, belly[1] + barrel * y)], [0.3 * barrel])
        tones = {"points": self.points, "dark": np.array(TONES["black"]) / 255, "shade": self.ground * 0.82,
                 "mane": self.ground * draws.uniform(0.35, 0.6), "pink": np.array(TONES["pink"]) / 255,
                 "horn": np.array(TONES["horn"]) / 255}  # fmt: skip
        later = []
        for name in kind.parts.split():
            if name[0] == "(" and draws.random() < 0.5:
                continue
            if name in ("mane", "crest"):  # along the back of the neck
                edge = [(x - 0.5 * low, y + 0.35 * low) for x, y in (joints["root"], bend)]
                hair = [*edge, (poll[0] - 0.5 * kind.girth, poll[1] + 0.8 * kind.girth)]
                later.append((put(hair, [0.05, 0.07, 0.05]), tones["mane"] if name == "mane" else self.marks))
                continue
            joint, points, radii, colour, twice = PARTS[name.strip("()")]
            for shift, shade in ((0.08, 0.75), (0.0, 1.0)) if twice else ((0.0, 1.0),):
                x, y = joints[joint]
                shape = put([(x + shift + dx, y + dy) for dx, dy in points], radii)
                if colour == "coat" and not shift:
                    body += shape
                else:
                    later.append((shape, tones.get(colour, self.ground) * shade))
        frame.lay(body, self._coat(foot, height), owner=owner)
        across, down = muzzle[0] - poll[0], muzzle[1] - poll[1]
        eye, nose = ((poll[0] + t * across, poll[1] + t * down) for t in (0.28, 0.9))
        later.append((put([nose, muzzle], [kind.girth * 0.62] * 2), self.points * 0.7))
        for shape, colour in (*later, (put([eye], [0.022]), tones["dark"])):
            frame.paint(shape, colour, owner=owner)

    def _coat(self, foot: Point, height: float):
        """Return the function of a window that gives its colours: pattern, grain, and light from above."""

        def colours(xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
            x, y = (xs - foot[0]) / (height * self.flip), (foot[1] - ys) / height  # (1, w), (h, 1)
            f = self.frequency
            fine = noise(self.table, x * 16, y * 16)
            marked = self.pattern in ("patches", "stripes", "cells", "spots")
            slow = noise(self.table[::-1], x * 3.2 * f + 5, y * 3.2 * f + 5) if marked else 0
            if self.pattern == "patches":
                weight = smoothstep((slow - 0.5) * 9)
            elif self.pattern == "stripes":
                weight = smoothstep(wave(x * 7 * f + 0.8 * y + 1.4 * slow) * 4 - 1.5)
            elif self.pattern in ("cells", "spots"):
                u, v = x * 6 * f + slow, y * 6 * f + slow
                gap = np.minimum(wave(u + 0.5 * np.floor(v)), wave(v))
                weight = smoothstep(gap * 4 - 0.6 if self.pattern == "cells" else 2.2 - gap * 4)
                weight = 1 - weight if self.pattern == "spots" else weight
            else:
                weight = 0.35 * fine * (self.pattern in ("roan", "curls"))
            grain = 1 + {"wool": 0.4, "curls": 0.25}.get(self.pattern, 0.06) * (fine - 0.5)
            light = 0.82 + 0.3 * smoothstep((y - self.leg) / (2 * self.barrel))
            mixed = self.ground + np.asarray(weight * self.strength)[:, :, None] * (self.marks - self.ground)
            return mixed * (grain * light)[:, :, None]

        return colours
