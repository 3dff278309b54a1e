"""A data set of the size of COCO train on one machine: opening it, reading cached steps, memory, files.

The index has the official size (82,783 images, 604,907 regions, of which 7.3 a picture); the pictures are one
small file under many names. Synthetic: nothing is measured but time, memory and files.
"""

import datetime
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from recamlib.data.coco import CocoImages, CocoMasks
from recamlib.data.labels import CATEGORY_IDS, COCO14
from recamlib.engine.device import device_name, versions
from recamlib.paths import results_dir
from recamlib.stages.base import ImageStage, Request

IMAGES, REGIONS = 82_783, 604_907


def memory_mib() -> float:
    """Return the most memory this process has held so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@contextmanager
def timed(report: dict, name: str, count: int) -> Iterator[None]:
    """Record seconds of the work inside, or milliseconds an item: of the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    yield
    for kind, seconds in (("", time.perf_counter() - clock), ("cpu_", time.process_time() - processor)):
        key = f"{name}_{kind}{'seconds' if count == 1 else 'ms'}"
        report[key] = round(seconds, 2) if count == 1 else round(1e3 * seconds / count, 3)


def write_coco(root: Path, *, images: int, regions: int) -> None:
    """Write instances of the official size, and one picture that all names lead to."""
    draw = np.random.default_rng(0)
    owners = np.sort(draw.integers(0, images, regions))
    kinds = draw.integers(0, len(CATEGORY_IDS), regions)
    corners = draw.uniform(0, 200, (regions, 12)).round(2)
    content = {
        "info": {}, "licenses": [],
        "images": [
            {"id": i + 1, "file_name": f"COCO_train2014_{i + 1:012d}.jpg", "height": 480, "width": 640,
             "license": 1, "coco_url": f"http://images.example.org/train2014/{i + 1:012d}.jpg",
             "date_captured": "2013-11-14 11:18:45"}
            for i in range(images)
        ],
        "annotations": [
            {"id": n, "image_id": int(owners[n]) + 1, "category_id": CATEGORY_IDS[kinds[n]], "iscrowd": 0,
             "area": 100.0, "bbox": [0.0, 0.0, 10.0, 10.0], "segmentation": [corners[n].tolist() * 3]}
            for n in range(regions)
        ],
        "categories": [{"id": n, "name": name} for n, name in zip(CATEGORY_IDS, COCO14.classes)],
    }  # fmt: skip
    (root / "coco14" / "annotations").mkdir(parents=True)
    (root / "coco14" / "train2014").mkdir()
    (root / "coco14" / "annotations" / "instances_train2014.json").write_text(json.dumps(content))
    Image.new("RGB", (640, 480), (90, 120, 60)).save(root / "coco14" / "one.jpg")


class Small(ImageStage):
    """A step per image that stores what maps of a photograph take, and computes nothing."""

    maps: int = 4
    stage: Literal["Small/1"] = "Small/1"

    def make(self, requests: Sequence[Request]) -> Iterator[dict]:
        """Yield four scales of two maps, as a network of stride 16 gives them for a picture of VOC's size."""
        rows = [np.full((1, 2, h, w), 0.5, np.float32) for h, w in ((24, 32), (12, 16), (36, 48), (48, 64))]
        cost = {"seconds": 0.1, "peak_memory_mib": 900.0, "device": "cpu (x86_64, 2 threads)"}
        for _ in requests:
            yield {"scales": rows, "classes": [1, 7], "size": [375, 500], "cost": cost}


def measure(images: int, regions: int) -> dict:
    """Return what opening, filling and reading take."""
    report: dict = {"images": images, "regions": regions}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        child = os.fork()  # what writes the index must not count
        if child == 0:
            write_coco(root, images=images, regions=regions)
            os._exit(0)
        os.waitpid(child, 0)
        report["index_mb"] = round(
            (root / "coco14/annotations/instances_train2014.json").stat().st_size / 1e6, 1
        )
        report["base_memory_mib"] = round(memory_mib())
        with timed(report, "open", 1):
            doors = CocoImages(root, "train")
        with timed(report, "masks", 1):
            truth = CocoMasks(root, "train")
        assert len(doors.label_matrix()) == len(doors) == len(truth)
        report["open_memory_mib"] = round(memory_mib())

        os.environ["RECAM_RESULTS"] = str(root / "results")
        stage = Small()
        ids = [("train", name) for name in doors.ids]
        with timed(report, "fill", len(ids)):
            filled = stage.items(ids)  # computed here, read where it is used
        fresh = Small()
        with timed(report, "read", len(ids)):
            for item in fresh.items(ids):
                assert item["scales"][3].shape == (1, 2, 48, 64)
        with timed(report, "read_alone", 200):
            for name in ids[:200]:
                next(iter(fresh.items([name])))
        assert len(next(filled)["classes"]) == 2
        found = [path for path in (root / "results").rglob("*") if path.is_file()]
        report["files"] = len(found)
        report["cache_mb"] = round(sum(path.stat().st_size for path in found) / 1e6)
        report["peak_memory_mib"] = round(memory_mib())
    return report


def main() -> None:
    """Measure, print and save."""
    small = "--small" in sys.argv
    report = measure(IMAGES // 20, REGIONS // 20) if small else measure(IMAGES, REGIONS)
    report |= {"date": datetime.date.today().isoformat(), "device": device_name(), "versions": versions()}
    print(json.dumps(report, indent=1))
    path = results_dir() / "scale.json" if small else Path(__file__).parents[1] / "book/measured/scale.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
