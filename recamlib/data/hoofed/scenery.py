"""Where the animals stand: three places, and three things that are no animals."""

import numpy as np

from recamlib.data.hoofed.drawing import Frame, blob, line, noise, pick, polygon, smoothstep, wave

# sky above and at the horizon, hills, ground in two tones, leaves
PLACES = {
    "meadow": "#6098d6 #bed6e8 #587a5c #5c8a3e #8ea454 #345c2c",
    "savanna": "#78a8d6 #e2d8be #968a6e #bca060 #967846 #68703a",
    "barn": "#684c36 #7c5c42 #543e2e #ba9a5c #8e7042 #967c46",
}
THINGS = ("tree", "barrel", "fence")


class Scenery:
    """A place with its light and the things in it, drawn from a generator."""

    def __init__(self, draws: np.random.Generator) -> None:
        self.draws, self.name = draws, pick(draws, tuple(PLACES))
        colours = np.array([[*bytes.fromhex(c[1:])] for c in PLACES[self.name].split()], np.float32) / 255
        self.colours = colours * draws.uniform(0.88, 1.12, (6, 3)).astype(np.float32)
        self.horizon = draws.uniform(0.26, 0.5)  # share of the height
        self.light = draws.uniform(0.85, 1.1) * np.ones(3)
        if self.name != "barn" and draws.random() < 0.12:
            self.light = np.array([0.44, 0.5, 0.7])  # night

    def behind(self, frame: Frame) -> None:
        """Paint sky or wall, hills and ground."""
        height, width = frame.height, frame.width
        edge = round(self.horizon * height)
        x = (np.arange(width, dtype=np.float32)[None] + 0.5) / width
        y = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
        up, down = y[:edge], y[edge:]
        tables = self.draws.random((2, 16, 16), np.float32)
        top, low, hills, first, second, _ = self.colours
        sky = top + (up / self.horizon)[:, :, None] * (low - top)  # (h, 1, 3)
        if self.name == "barn":
            gap = smoothstep((wave(x * self.draws.uniform(8, 14)) - 0.86) * 9)
            sky = sky * (1 - 0.45 * gap)[:, :, None]
        else:
            clouds = smoothstep(noise(tables[0], x * 4, up * 9) * 2.2 - self.draws.uniform(0.9, 1.6))
            sky = sky + 0.5 * clouds[:, :, None] * (np.float32(0.95) - sky)
            sky[up > self.horizon - 0.15 * noise(tables[1], x * 6, y[:1])] = hills
        frame.fill(slice(0, edge), slice(0, width), sky)
        depth = (down - self.horizon) / (1 - self.horizon)
        rough = noise(tables[1], x * 9, down * 22) * (0.5 + 0.5 * depth)  # (H - h, W)
        ground = (first + rough[:, :, None] * (second - first)) * (1.05 - 0.2 * depth)[:, :, None]
        frame.fill(slice(edge, height), slice(0, width), ground)

    def thing(self, frame: Frame, kind: str, x: float, foot: float, size: float, *, owner: int = 0) -> None:
        """Paint one of `THINGS` with its foot at a point; `size` in pixels."""
        draws = self.draws
        if kind == "tree":
            tall, flat = size * draws.uniform(1.1, 1.7), draws.random() < 0.4
            bark = np.array([0.36, 0.27, 0.2]) * draws.uniform(0.8, 1.2)
            frame.paint(line([(x, foot), (x, foot - tall)], [0.09 * size, 0.05 * size]), bark, owner=owner)
            for _ in range(4):
                at = x + size * draws.uniform(-0.35, 0.35), foot - tall + size * draws.uniform(-0.2, 0.15)
                r = size * draws.uniform(0.26, 0.4)
                leaves = self.colours[5] * draws.uniform(0.8, 1.2)
                frame.paint(blob(*at, *((1.5 * r, 0.45 * r) if flat else (r, 0.9 * r))), leaves, owner=owner)
        elif kind == "barrel":  # has rings: stripes alone must not be evidence for a zebra
            tones = np.array([(60, 98, 150), (170, 70, 52), (214, 212, 204), (74, 74, 78)]) / 255
            tone, ring = tones[draws.permutation(4)[:2]]
            rings = 2 * int(draws.integers(2, 5)) - 1
            for i in range(rings):
                low, high = foot - 0.6 * size * i / rings, foot - 0.6 * size * (i + 1) / rings
                left, right = x - 0.2 * size, x + 0.2 * size
                part = polygon([(left, high), (right, high), (right, low), (left, low)])
                frame.paint(part, (tone, ring)[i % 2], owner=owner)
        else:
            wood = np.array(pick(draws, ((132, 104, 76), (216, 212, 204)))) / 255 * draws.uniform(0.85, 1.15)
            left, wide = x - size * draws.uniform(0.5, 0.9), size * draws.uniform(1, 1.8)
            for up in (0.28, 0.5):
                rail = line([(left, foot - up * size), (left + wide, foot - up * size)], [0.03 * size] * 2)
                frame.paint(rail, wood, owner=owner)
            for i in range(4):
                at = left + wide * i / 3
                post = line([(at, foot), (at, foot - 0.62 * size)], [0.04 * size] * 2)
                frame.paint(post, wood, owner=owner)

    def finish(self, frame: Frame) -> np.ndarray:
        """Return the image in its light and with its grain, shape ``(H, W, 3)``, uint8."""
        image = frame.image() * self.light.astype(np.float32)
        image += 13 * self.draws.random((frame.height, frame.width, 1), np.float32) - 6.5
        return np.clip(image, 0, 255).astype(np.uint8)
