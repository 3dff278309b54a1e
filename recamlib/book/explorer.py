"""Data of the explorer page: a few scenes, their maps by several methods at 8 bits, and the truth."""

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recamlib.files import write_sealed
from recamlib.method.scores import iou_from_counts
from recamlib.report.cells import METHODS
from recamlib.report.claims import SYNTHETIC
from recamlib.report.plots import CLASS_COLOURS
from recamlib.report.results import read, result_path
from recamlib.report.tables import describe_data, escaped
from recamlib.stages.base import Split
from recamlib.stages.maps import MapStage
from recamlib.stages.score import Score

NAME = "explorer.json"  # beside the result it belongs to
TITLES = {"none": "{}", "irn": "{} + IRN"}  # AdvCAM runs on a part of the images only


def store(result: Path, rows: Mapping[str, Sequence[MapStage]], *, split: Split = "train") -> Path | None:
    """Write what the explorer page shows of Table 2 beside a result; photographs are not ours to show.

    Of `rows` the first seed is taken, of scenes the first six with one class and with several.
    """
    content = read(result)
    if content["parameters"]["dataset"] not in SYNTHETIC:
        return None
    stages = {
        TITLES[method].format(title): rows[f"{method}.{kind}_miou"][0]
        for method in METHODS if method in TITLES and f"{method}.cam_miou" in rows
        for kind, title in (("cam", "CAM"), ("recam", "ReCAM"))
    }  # fmt: skip
    data = next(iter(stages.values())).dataset
    images, truth = data.images(split), data.masks(split)
    present = images.label_matrix().sum(1)
    chosen = [*np.flatnonzero(present == 1)[:6], *np.flatnonzero(present > 1)[:6]]
    counts = Score(of=list(stages.values())[1], split=split).counts  # ReCAM's; its best scene is the first
    iou = np.nanmean(iou_from_counts(counts)[:, 1:], axis=1)
    path = result.with_name(NAME)
    write_sealed(path, {
        "profile": content["parameters"]["profile"], "data": describe_data(content),
        "classes": list(images.space.classes), "colours": CLASS_COLOURS, "ignore": images.space.ignore,
        "thresholds": {
            name: round(float(np.mean(Score(of=stage, split=split).result["cross_thresholds"])), 2)
            for name, stage in stages.items()
        },
        "scenes": [
            {
                "id": name, "picture": _file(images.image(name).permute(1, 2, 0).numpy(), "JPEG"),
                "truth": _file(truth.mask(name), "PNG"),
                "present": list(next(iter(stages.values())).one(split, name)[1]),
                "maps": {title: _maps(stage, split, name) for title, stage in stages.items()},
            }
            for name in (images.ids[i] for i in sorted(chosen, key=iou.__getitem__, reverse=True))
        ],
    })  # fmt: skip
    return path


def _maps(stage: MapStage, split: Split, name: str) -> str:
    maps = stage.one(split, name)[0].numpy()  # (P, H, W), below one another in the PNG
    return _file(np.round(255 * maps).astype(np.uint8).reshape(-1, maps.shape[2]), "PNG")


def _file(pixels: np.ndarray, kind: str) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": 88} if kind == "JPEG" else {"optimize": True}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def latest(results: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the explorer's data of the first of some results that has any."""
    paths = (result_path(r["notebook"], r["parameters"]).with_name(NAME) for r in results)
    return next((read(path) for path in paths if path.is_file()), None)


def explorer_page(found: dict[str, Any] | None) -> str:
    """Return the part of the page that is made from data, as Markdown."""
    if found is None:
        return "Nothing to explore yet: `recam run 03` with embedded scenes, then `recam book`."
    content = json.dumps(found).replace("</", "<\\/")
    return (
        f"Measured on {escaped(found['data'])}.\n\n"
        '<div id="explorer"><noscript>This page needs JavaScript.</noscript></div>\n\n'
        f'<script type="application/json" id="explorer-data">{content}</script>\n'
    )
