"""Random walk: the published dense matrix against the sparse series; time and memory on growing grids.

``--large`` walks a 94 x 125 grid (a photograph of 375 x 500 pixels) by the dense matrix once, which takes
minutes, and keeps the ratio in book/measured/random_walk.json.
"""

import datetime
import json
import sys
import time
from collections.abc import Callable

from harness import THREADS, compare

SMALL, LARGE = (47, 62), (94, 125)
GRIDS = (SMALL, LARGE, (188, 250), (375, 500))
CLASSES = 2


def inputs(height: int, width: int) -> tuple:
    """Return smooth maps (K, h, w) and thin closed boundaries (h, w), as of a trained network."""
    import torch
    from torch.nn.functional import interpolate

    torch.manual_seed(0)
    maps, hills = (
        interpolate(torch.rand(1, n, 6, 8), (height, width), mode="bicubic")[0].clamp(0, 1)
        for n in (CLASSES, 1)
    )
    return maps, torch.exp(-(((hills[0] - 0.5) / 0.06) ** 2))  # a line where the hills are half high


def form(kind: str, height: int, width: int) -> Callable[[], Callable[[], list]]:
    """Return a function that builds the inputs and returns the work of one form."""

    def prepare() -> Callable[[], list]:
        import literal_walk

        from recamlib.method.walk import random_walk

        maps, boundary = inputs(height, width)
        walk = {"ours": random_walk, "literal": literal_walk.random_walk}[kind]
        return lambda: [walk(maps, boundary)]

    return prepare


def growing() -> None:
    """Compare on the small grid, then print the time per cell of larger ones."""
    names = {"ours": SMALL} | {f"ours, {h} x {w}": (h, w) for h, w in GRIDS[1:]}
    forms = {name: form("ours", *grid) for name, grid in names.items()}
    note = f"{SMALL[0]} x {SMALL[1]} cells, {CLASSES} classes, 256 steps; bars: 50 times, 375 x 500 in 2 GiB"
    report = compare("walk", forms | {"literal": form("literal", *SMALL)}, repeats=1, note=note,
                     sizes={name: {"cells": h * w} for name, (h, w) in names.items()})  # fmt: skip
    for name, (height, width) in names.items():
        each = report["forms"][name]["seconds"] / (height * width)
        print(f"  {height} x {width}: {each * 1e6:.2f} us a cell")


def large() -> None:
    """Time both forms on the large grid and keep the ratio with the book."""
    import torch

    from recamlib.engine.device import device_name, versions
    from recamlib.paths import book_dir

    torch.set_num_threads(THREADS)
    seconds, results = {}, {}
    for kind in ("ours", "literal"):
        work = form(kind, *LARGE)()
        if kind == "ours":
            work()  # warms up; the dense form is far too long for it to matter
        start = time.perf_counter()
        (results[kind],) = work()
        seconds[kind] = time.perf_counter() - start
        print(f"{kind}: {seconds[kind]:.3f} s")
    ours, literal = results["ours"], results["literal"]
    kept = {
        "grid": LARGE, "classes": CLASSES, "steps": 256, "seconds": seconds,
        "times_faster": seconds["literal"] / seconds["ours"],
        "difference": float((ours - literal).abs().max() / literal.max()),
        "threads": THREADS, "device": device_name(), "versions": versions(),
        "date": datetime.date.today().isoformat(),
    }  # fmt: skip
    path = book_dir() / "measured" / "random_walk.json"
    path.write_text(json.dumps(kept, indent=1) + "\n")
    print(f"saved {path}; for the book:")
    print(
        f"On {LARGE[0]} × {LARGE[1]} cells and {CLASSES} classes the dense form took"
        f" {seconds['literal']:.0f} s and this one {seconds['ours']:.2f} s, "
        f"{kept['times_faster']:.0f} times less, {kept['device']}, {kept['date']}; "
        f"they differ by {kept['difference']:.0e} of the maximum."
    )


if __name__ == "__main__":
    large() if sys.argv[1:] == ["--large"] else growing()
