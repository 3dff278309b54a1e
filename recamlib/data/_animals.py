"""Five animals on one body plan: barrel, neck, head, four legs, tail, and the parts that tell them apart."""

from dataclasses import dataclass

import numpy as np

from recamlib.data._coats import Coat, colour
from recamlib.data._draws import Draws, cosine, sine
from recamlib.data._shapes import Frame, Part, Point

HORN = np.array([0.80, 0.76, 0.64], np.float32)
PINK = np.array([0.82, 0.60, 0.56], np.float32)
WHITE = np.array([0.88, 0.86, 0.82], np.float32)
BLACK = np.array([0.07, 0.06, 0.06], np.float32)


@dataclass(frozen=True)
class Plan:
    """Measures of a kind of animal, in units of its height at the withers; angles in degrees above level."""

    leg: float  # ground to belly
    barrel: tuple[float, float]  # radius behind and in front
    half: float  # half the distance of the barrel's ends
    slope: float  # how much higher the front is
    neck: float
    neck_radii: tuple[float, float]
    carriage: tuple[float, float]  # angle of the neck when the head is up
    head: float
    head_radii: tuple[float, float]
    leg_radii: tuple[float, float]
    stature: float  # height against that of a horse
    reach: float  # total height with the head up


PLANS = {
    "horse": Plan(
        0.52,
        (0.20, 0.21),
        0.32,
        0.0,
        0.43,
        (0.17, 0.09),
        (32, 58),
        0.29,
        (0.092, 0.056),
        (0.058, 0.032),
        1.0,
        1.45,
    ),
    "cow": Plan(
        0.42,
        (0.23, 0.24),
        0.37,
        0.0,
        0.27,
        (0.17, 0.12),
        (2, 32),
        0.26,
        (0.104, 0.072),
        (0.062, 0.042),
        0.92,
        1.25,
    ),
    "sheep": Plan(
        0.34,
        (0.26, 0.27),
        0.29,
        0.0,
        0.25,
        (0.16, 0.11),
        (20, 48),
        0.23,
        (0.095, 0.058),
        (0.05, 0.034),
        0.72,
        1.35,
    ),
    "zebra": Plan(
        0.49,
        (0.21, 0.21),
        0.31,
        0.0,
        0.38,
        (0.17, 0.10),
        (32, 55),
        0.28,
        (0.094, 0.062),
        (0.055, 0.032),
        0.95,
        1.4,
    ),
    "giraffe": Plan(
        0.60,
        (0.16, 0.20),
        0.24,
        0.13,
        0.98,
        (0.13, 0.06),
        (56, 76),
        0.23,
        (0.066, 0.04),
        (0.045, 0.027),
        1.1,
        2.2,
    ),
}


class Animal:
    """One animal with its coat, measures and pose, drawn from a stream; `paint` puts it into a frame."""

    def __init__(self, draws: Draws, kind: str) -> None:
        plan = PLANS[kind]
        self.kind, self.plan, self.draws = kind, plan, draws
        self.coat = Coat.draw(draws, kind)
        self.flip = draws.pick((-1, 1))
        self.view = 1 - 0.42 * draws.uniform() ** 2  # shortened when it does not stand side on
        self.resting = draws.chance(0.1)
        self.grazing = not self.resting and draws.chance(0.3)
        self.leg = draws.about(plan.leg) * (0.12 if self.resting else 1)
        self.half = draws.about(plan.half) * self.view
        self.stout = draws.about(1.0, 0.1)
        self.neck = draws.about(plan.neck) * (draws.uniform(0.6, 0.8) if draws.chance(0.15) else 1)
        self.head = draws.about(plan.head) * (1 - 0.4 * draws.uniform() ** 3)
        angle = draws.uniform(*plan.carriage)
        if self.grazing:
            angle = -draws.uniform(30, 50) - (8 if kind == "giraffe" else 0)
        self.carriage = angle
        drop = draws.uniform(-78, -55) if self.grazing else draws.uniform(-52, -14)
        self.backwards = -1 if not self.grazing and draws.chance(0.12) else 1  # looks over its shoulder
        self.drop = drop
        self.height = plan.stature * draws.about(1.0, 0.15)
        self.reach = plan.reach
        self.steps = [draws.uniform(-0.09, 0.09) for _ in range(4)]

    def paint(self, frame: Frame, foot: Point, height: float, owner: int) -> None:
        """Paint the animal.

        Parameters
        ----------
        frame
            Where to.
        foot
            Its middle on the ground, pixels.
        height
            Height at the withers, pixels.
        owner
            Number for `Frame.owner`, 1 or more.
        """
        self._frame, self._foot, self._scale, self._owner = frame, foot, height, owner
        reach = (1.2 + self.neck + self.head) * height
        window = frame.window(
            foot[0] - reach, foot[1] - 3.2 * height, foot[0] + reach, foot[1] + 0.3 * height
        )
        if window is None:
            return
        self.coat.lay(frame, window, foot, height * self.flip)
        self._place()
        self._legs(far=True)
        self._tail()
        self._trunk()
        if self.kind == "cow" and not self.resting and self.draws.chance(0.5):
            self._put(frame.blob(self._at(-0.55 * self.half, self.leg + 0.02), *self._px(0.095, 0.075)), PINK)
        self._legs(far=False)
        self._mane()
        self._horns(far=True)
        self._face()
        self._horns(far=False)

    def _at(self, x: float, y: float) -> Point:
        return self._foot[0] + self.flip * x * self._scale, self._foot[1] - y * self._scale

    def _px(self, *lengths: float) -> tuple[float, ...]:
        return tuple(length * self._scale for length in lengths)

    def _line(self, points: list[Point], radii: list[float]) -> Part | None:
        return self._frame.path([self._at(*p) for p in points], self._px(*radii))

    def _put(self, part: Part | None, tone: np.ndarray | None = None, shade: float = 1.0) -> None:
        if part is not None:
            tone = self.coat.on(part) if tone is None else tone
            self._frame.paint(part, tone, owner=self._owner, shade=shade)

    def _place(self) -> None:
        """Work out where the joints are, in units of the height."""
        plan, back, front = self.plan, *self.plan.barrel
        self.rear = (-self.half, self.leg + back * self.stout - plan.slope / 2)
        self.chest = (self.half, self.leg + front * self.stout + plan.slope / 2)
        self.root = (self.half + 0.35 * front * self.view, self.chest[1] + 0.35 * front)
        cos, sin = cosine(self.carriage) * (0.6 + 0.4 * self.view), sine(self.carriage)
        self.poll = (self.root[0] + self.neck * cos, max(self.root[1] + self.neck * sin, 0.22))
        cos, sin = cosine(self.drop) * self.backwards, sine(self.drop)
        self.muzzle = (self.poll[0] + self.head * cos, max(self.poll[1] + self.head * sin, 0.05))
        bend = -0.06 * self.neck
        self.nape = ((self.root[0] + self.poll[0]) / 2 + bend, (self.root[1] + self.poll[1]) / 2 - bend)

    def _trunk(self) -> None:
        plan, stout = self.plan, self.stout
        back, front = (r * stout for r in plan.barrel)
        low, high = plan.neck_radii
        belly = (0.05 * self.half, (self.rear[1] + self.chest[1]) / 2 - 0.02)
        lines = [
            (self.rear, belly, back, (back + front) / 2 * 1.03),
            (belly, self.chest, (back + front) / 2 * 1.03, front),
            (self.root, self.nape, low, (low + high) / 2),
            (self.nape, self.poll, (low + high) / 2, high),
        ]
        part = self._frame.lines(
            [(self._at(*a), self._at(*b), *self._px(ra, rb)) for a, b, ra, rb in lines],
            blend=0.09 * self._scale,
        )
        if self.coat.woolly:
            self.coat.roughen(part, 0.05)
        self._put(part)

    def _legs(self, *, far: bool) -> None:
        thick, thin = self.plan.leg_radii
        for i, hind in enumerate((True, False)):
            step = self.steps[2 * i + far] + (0.07 if far else 0) * (1 if hind else -1)
            joint = self.rear if hind else self.chest
            x = joint[0] * (1.08 if hind else 0.98)
            shade = 0.68 if far else 0.97
            lift = 0.035 if far else 0.0
            if self.resting:
                self._put(self._line([(x, 0.12), (x + 0.26, 0.05)], [thick * 1.3, thin]), shade=shade)
                continue
            top = joint[1] - 0.06
            thigh = thick * (1.75 if hind else 1.45)
            knee = (x + step * 0.4 + (-0.05 if hind else 0.02), self.leg * 0.52 + lift)
            foot = (x + step, lift + thin)
            part = self._line([(x, top), knee, foot], [thigh, thin * 1.15, thin])
            if part is not None:
                tone = self.coat.on(part)
                if self.coat.pattern in ("wool", "cells", "solid"):
                    height = (self._foot[1] - self._frame.ys[part.rows]) / self._scale  # (h, 1)
                    share = np.clip(2.2 - height / (0.45 * self.leg), 0, 1)[:, :, None] * 0.9
                    tone = tone + share * (self.coat.points - tone)
                self._put(part, tone, shade=shade)
            self._put(
                self._line([(x + step, lift), (x + step + 0.02, lift)], [thin * 1.2] * 2), BLACK, shade=2.2
            )

    def _tail(self) -> None:
        plan, coat = self.plan, self.coat
        x, y = self.rear[0] - 0.9 * plan.barrel[0] * self.stout, self.rear[1] + 0.45 * plan.barrel[0]
        swing = self.draws.uniform(-0.06, 0.1)
        if self.kind == "sheep":
            long = 0.12 if self.draws.chance(0.6) else 0.3
            self._put(self._line([(x, y), (x - 0.05, y - long)], [0.06, 0.05]))
        elif self.kind == "horse":
            dark = coat.ground * 0.45 if self.draws.chance(0.7) else coat.ground * 1.1
            end = max(0.1, y - self.draws.uniform(0.35, 0.6))
            middle = (x - 0.08 - swing, (y + end) / 2 + 0.1)
            self._put(
                self._line([(x + 0.03, y), middle, (x - 0.09 - swing, end)], [0.035, 0.055, 0.03]), dark
            )
        else:
            end = max(0.12, y - self.draws.uniform(0.32, 0.48))
            self._put(
                self._line(
                    [(x + 0.03, y), (x - 0.04, y - 0.1), (x - 0.04 - swing, end)], [0.025, 0.018, 0.016]
                )
            )
            tuft = self._line([(x - 0.04 - swing, end + 0.02), (x - 0.05 - swing, end - 0.1)], [0.03, 0.02])
            self._put(tuft, BLACK if self.kind != "cow" else coat.points)

    def _mane(self) -> None:
        """Paint hair along the crest of the neck; the crest lies on the side away from the throat."""
        high = self.plan.neck_radii
        dx, dy = self.poll[0] - self.root[0], self.poll[1] - self.root[1]
        length = max((dx * dx + dy * dy) ** 0.5, 1e-3)
        nx, ny = -dy / length, dx / length
        crest = [
            (p[0] + nx * r, p[1] + ny * r)
            for p, r in ((self.root, high[0] * 0.9), (self.nape, sum(high) / 2 * 0.95), (self.poll, high[1]))
        ]
        if self.kind == "horse" and not self.draws.chance(0.15):
            dark = self.coat.ground * 0.45 if self.draws.chance(0.7) else WHITE * 0.95
            width = self.draws.uniform(0.03, 0.06)
            fall = [(x - nx * 0.03, y - ny * 0.03) for x, y in crest]
            self._put(self._line(fall, [width, width * 1.2, width]), dark)
        elif self.kind == "zebra":
            self._put(self._line(crest, [0.02, 0.045, 0.045]))  # short, upright, striped as the neck
        elif self.kind == "giraffe":
            self._put(self._line(crest, [0.015, 0.025, 0.02]), self.coat.marks * 0.75)

    def _face(self) -> None:
        coat, draws = self.coat, self.draws
        thick, thin = self.plan.head_radii
        part = self._line([self.poll, self.muzzle], [thick, thin])
        bare = coat.pattern in ("wool", "solid") and self.kind == "sheep"
        self._put(part, coat.points if bare else None)
        along = (self.muzzle[0] - self.poll[0], self.muzzle[1] - self.poll[1])

        def on_face(t: float, up: float = 0.0) -> Point:
            return self.poll[0] + t * along[0], self.poll[1] + t * along[1] + up

        if coat.woolly and draws.chance(0.6):
            cap = self._frame.blob(self._at(*on_face(-0.1, 0.05)), *self._px(0.09, 0.07))
            self.coat.roughen(cap, 0.03)
            self._put(cap)
        if self.kind in ("horse", "cow") and draws.chance(0.35):
            self._put(self._line([on_face(0.1, 0.05), on_face(0.8, 0.03)], [0.02, 0.02]), WHITE)
        nose = PINK if self.kind == "cow" and draws.chance(0.5) else coat.points * 0.7
        if self.kind in ("zebra", "giraffe"):
            nose = coat.marks * 0.5
        self._put(self._line([on_face(0.88), on_face(1.04)], [thin * 1.02, thin * 0.95]), nose)
        self._put(self._frame.blob(self._at(*on_face(0.28, 0.025)), *self._px(0.022, 0.022)), BLACK)

    def _horns(self, *, far: bool) -> None:
        """Paint ear and horn of one side; the draws repeat for both sides so that they match."""
        if far:
            self._horned = self.draws.chance({"cow": 0.68, "sheep": 0.2, "giraffe": 1.0}.get(self.kind, 0.0))
            self._horn = self.draws.uniform(0.8, 1.3)
        x, y = self.poll[0] + (0.03 if far else -0.02), self.poll[1] + 0.5 * self.plan.head_radii[0]
        shade = 0.75 if far else 1.0
        back = -0.02 * self.backwards
        tone = self.coat.points if self.kind == "sheep" and self.coat.pattern in ("wool", "solid") else None
        if self.kind in ("horse", "zebra"):
            self._put(self._line([(x, y), (x + back, y + 0.13)], [0.035, 0.012]), tone, shade)
        elif self.kind == "sheep":
            side = 0.1 if far else -0.13
            self._put(self._line([(x, y), (x + side, y - 0.02)], [0.035, 0.02]), tone, shade)
        else:
            side = 0.09 if far else -0.15
            size = 0.7 if self.kind == "giraffe" else 1.0
            self._put(
                self._line([(x, y), (x + side * size, y + 0.02)], [0.03 * size, 0.035 * size]), tone, shade
            )
        if not self._horned:
            return
        k = self._horn
        if self.kind == "cow":
            tip = [(x, y + 0.03), (x + 0.09 * k * self.backwards, y + 0.06 * k), (x + 0.1 * k, y + 0.19 * k)]
            self._put(self._line(tip, [0.028, 0.024, 0.008]), HORN, shade)
        elif self.kind == "giraffe":
            knob = colour(Draws(1), "dark")
            self._put(self._line([(x, y), (x - 0.02, y + 0.1)], [0.016, 0.016]), None, shade)
            self._put(self._frame.blob(self._at(x - 0.02, y + 0.11), *self._px(0.024, 0.024)), knob, shade)
        else:
            curl = [
                (x, y + 0.03),
                (x - 0.1 * k, y + 0.04),
                (x - 0.12 * k, y - 0.07 * k),
                (x - 0.02, y - 0.09 * k),
            ]
            self._put(self._line(curl, [0.04, 0.036, 0.03, 0.014]), HORN * 0.85, shade)
