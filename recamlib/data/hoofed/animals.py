"""Painting an animal: barrel, neck, head, four legs, tail, and the parts that tell the five kinds apart."""

import math

import numpy as np

from recamlib.data.hoofed.bodies import Body
from recamlib.data.hoofed.coats import colour
from recamlib.data.hoofed.drawing import Frame, Part, Point
from recamlib.data.hoofed.draws import Draws

HORN = np.array([0.80, 0.76, 0.64], np.float32)
PINK = np.array([0.82, 0.60, 0.56], np.float32)
WHITE = np.array([0.88, 0.86, 0.82], np.float32)
BLACK = np.array([0.07, 0.06, 0.06], np.float32)


class Animal(Body):
    """One animal; `paint` puts it into a frame."""

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
        length = max(math.sqrt(dx * dx + dy * dy), 1e-3)
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
