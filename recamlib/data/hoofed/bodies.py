"""One body plan for five animals: measures of each kind, and the pose and joints of one animal."""

from dataclasses import dataclass

from recamlib.data.hoofed.coats import Coat
from recamlib.data.hoofed.draws import Draws, cosine, sine


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


class Body:
    """Coat, measures and pose of one animal, drawn from a stream."""

    def __init__(self, draws: Draws, kind: str) -> None:
        plan = PLANS[kind]
        self.kind, self.plan, self.draws = kind, plan, draws
        self.coat = Coat.draw(draws, kind)
        self.flip = draws.pick((-1, 1))
        self.view = 1 - 0.42 * draws.low(2)  # shortened when it does not stand side on
        self.resting = draws.chance(0.1)
        self.grazing = not self.resting and draws.chance(0.3)
        self.leg = draws.about(plan.leg) * (0.12 if self.resting else 1)
        self.half = draws.about(plan.half) * self.view
        self.stout = draws.about(1.0, 0.1)
        self.neck = draws.about(plan.neck) * (draws.uniform(0.6, 0.8) if draws.chance(0.15) else 1)
        self.head = draws.about(plan.head) * (1 - 0.4 * draws.low(3))
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
