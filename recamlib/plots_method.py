"""The picture that explains the method, drawn from the maps of one scene."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recamlib.data.labels import LabelSpace
from recamlib.explorer import iou_of, maps_of, mask_of, pixels
from recamlib.plots import BLUE, GREY, overlay, paint
from recamlib.report import escaped

STEPS = (
    ("train: one sigmoid\nper class (Eq. 1)", "CAM", "no class competes\nwith another", GREY),
    (
        "each map cuts out its\nclass; one softmax\nfor all (Eq. 5, 7)",
        "ReCAM",
        "classes have\ncompeted",
        BLUE,
    ),
)


def gain(found: dict[str, Any], scene: dict[str, Any]) -> float:
    """Return by how many points the IoU of a scene gains from CAM to ReCAM, each at its threshold."""
    before, after = (iou_of(found, scene, m, found["thresholds"][m]) for m in ("CAM", "ReCAM"))
    return after - before


def method_picture(found: dict[str, Any]) -> tuple[Figure, str]:
    """Draw the way from an image over its CAMs and ReCAMs to the mask; return figure and caption.

    The scene is the one of two classes, among the explorer's, that gains most: the picture shows what the
    method is for, not what it does on average.
    """
    scene = max((s for s in found["scenes"] if len(s["present"]) == 2), key=lambda s: gain(found, s))
    space = LabelSpace("explorer", tuple(found["classes"]))
    image, names = pixels(scene["picture"]), [found["classes"][k] for k in scene["present"]]
    fig = plt.figure(figsize=(12.4, 4.6), layout="none")
    height, width = image.shape[:2]
    tall, wide = 0.36, 0.36 * 4.6 / 12.4 * width / height

    def put(x: float, y: float, picture: np.ndarray, title: str) -> Axes:
        ax = fig.add_axes((x, y, wide, tall))
        ax.imshow(picture, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=10)
        return ax

    lower, middle, upper = 0.07, 0.30, 0.53
    put(0.005, middle, image, f"image, labelled\n{' and '.join(names)}")
    x = 0.005 + wide
    for text, method, verdict, colour in STEPS:
        step = 0.148
        fig.text(x + step / 2, 0.62, text, ha="center", va="bottom", fontsize=9.5)
        arrow = {"arrowstyle": "-|>", "lw": 2, "color": colour}
        fig.add_artist(plt.matplotlib.patches.FancyArrowPatch(
            (x + 0.02, 0.5), (x + step - 0.015, 0.5), mutation_scale=18, transform=fig.transFigure, **arrow
        ))  # fmt: skip
        fig.text(x + step / 2, 0.44, verdict, ha="center", va="top", fontsize=9.5, style="italic")
        x += step
        for y, name, map_ in zip((upper, lower), names, maps_of(scene, method)):
            put(x, y, overlay(image, map_), f"{method}, {name}")
        x += wide
    x += 0.02
    for y, method in ((upper, "CAM"), (lower, "ReCAM")):
        threshold = found["thresholds"][method]
        mask = paint(mask_of(scene, method, threshold), space, image)
        score = iou_of(found, scene, method, threshold)
        put(x, y, mask, f"mask of {method}: IoU {score:.0f} %")
    put(x + wide + 0.015, middle, paint(pixels(scene["truth"]), space, image), "truth\n(only to score)")
    caption = (
        "From image labels to a mask, on the embedded scene of two classes, among the explorer's, that gains "
        f"most from reactivation ({gain(found, scene):+.0f} points): what the method is for, not what it "
        f"does on average. Measured on {escaped(found['data'])}."
    )
    return fig, caption
