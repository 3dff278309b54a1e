"""The picture that explains the method, drawn from the maps of one scene."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from recamlib.book.explorer import iou_of, maps_of, mask_of, pixels
from recamlib.data.labels import LabelSpace
from recamlib.report.plots import BLUE, GREY, overlay, paint
from recamlib.report.tables import escaped

ROWS = (
    ("CAM", "one sigmoid per class (Eq. 1):\nno class competes with another", GREY),
    ("ReCAM", "each map cuts out its class, one\nsoftmax for all (Eq. 5, 7): they compete", BLUE),
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
    fig, axes = plt.subplots(2, 4, figsize=(7.6, 4.5), layout="none")
    fig.subplots_adjust(left=0.01, right=0.99, top=0.93, bottom=0.13, wspace=0.06, hspace=0.62)

    def put(ax: Axes, picture: np.ndarray, title: str) -> None:
        ax.imshow(picture, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=11)

    put(axes[0, 0], image, f"{' and '.join(names)}?")
    put(axes[1, 0], paint(pixels(scene["truth"]), space, image), "truth, to score")
    for line, (method, words, colour) in zip(axes, ROWS):
        for ax, name, map_ in zip(line[1:], names, maps_of(scene, method)):
            put(ax, overlay(image, map_), f"{method}, {name}")
        threshold = found["thresholds"][method]
        score = iou_of(found, scene, method, threshold)
        put(line[3], paint(mask_of(scene, method, threshold), space, image), f"mask: IoU {score:.0f} %")
        line[1].annotate(words, (1.05, -0.08), xycoords="axes fraction", ha="center", va="top",
                         fontsize=11, color=colour)  # fmt: skip
    caption = (
        "From image labels to a mask, on the embedded scene of two classes, among the explorer's, that gains "
        f"most from reactivation ({round(gain(found, scene)):+d} points): what the method is for, not what "
        f"it does on average. Measured on {escaped(found['data'])}."
    )
    return fig, caption
