"""The paper's settings on PASCAL VOC 2012, one step after another: time and memory, on a few photographs.

From a checkout, with PyTorch and without Jupyter::

    PYTHONPATH=. python benchmarks/full_size.py --data DATA --out full_size.json

Weights are random: time is measured, nothing else. A training runs three times, once to warm up, then for
one length and for several times that; what the last took longer is counted, without the look at convergence.
Of maps, the first half warms up. The dense CRF, on the CPU everywhere, is left out: IRN's labels come from
thresholds here. The file is written after every step, and a call goes on where the last one stopped.
"""

import argparse
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from gpu import resumed, write
from safetensors.torch import save_file

import recamlib as rc
from recamlib.engine.device import commit, device_name, versions
from recamlib.files import read_yaml
from recamlib.paths import notebooks_dir, results_dir
from recamlib.stages import classify
from recamlib.studies.table3 import RECIPES

IMAGES = 10_582  # of VOC's train_aug
TRAININGS = ("TrainClassifier", "Reactivate", "TrainBoundary")
Record = dict[str, Any]


def record(cost: Record, seconds: float, units: int) -> Record:
    peak = round(cost["peak_memory_mib"])
    return {"seconds": seconds, "units": units, "hours": seconds * units / 3600, "peak_memory_mib": peak}


def training(make: Callable[[int, int], Any], *, times: int, count: int, units: int) -> Record:
    """Return what one of `units` takes of a training stage, of `count` once and of so many `times`."""
    _, one, more = (make(n, seed).result["cost"] for n, seed in ((1, 1), (1, 0), (times, 0)))
    return record(more, (more["seconds"] - one["seconds"]) / ((times - 1) * count), units)


def maps(stage: Any, names: Sequence[str]) -> Record:
    """Return what one image takes of a stage of maps."""
    costs = [item["cost"] for item in stage.items([("train_aug", name) for name in names])]
    used = costs[len(costs) // 2 :]
    return record(used[-1], sum(cost["seconds"] for cost in used) / len(used), IMAGES)


def random_weights() -> str:
    """Return a file of ResNet-50 with random weights, and statistics of its BatchNorm that go with them."""
    path = results_dir() / "random_resnet50.safetensors"
    if not path.is_file():
        torch.manual_seed(0)
        net = torchvision.models.resnet50().train()
        with torch.no_grad():
            for _ in range(20):
                net(torch.randn(8, 3, 96, 96))
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(net.state_dict(), path)
    return str(path)


def steps(small: bool) -> Iterator[tuple[str, Callable[[], Record]]]:
    """Yield name and work of every step."""
    classify.PROBED = 1  # images looked at after every epoch
    count, weights = 8 if small else 416, random_weights()
    tiny = {"crop": 96, "batch_size": 2} if small else {}
    settings = read_yaml(notebooks_dir() / "profiles" / "voc12.yml")
    blocks = {name: settings[name] for name in (*TRAININGS, "ExtractCams", "AdvCams", "Walk")}
    passes = {name: blocks[name].pop("epochs", 3) for name in TRAININGS}
    for name in TRAININGS:  # a rate at which nothing moves
        blocks[name] |= {**tiny, "lr": 1e-7}
    blocks["Reactivate"].pop("crop", None)
    data = rc.DataSettings.of("voc12", train_images=count)

    def classifier(epochs: int, seed: int) -> rc.TrainClassifier:
        given = {"dataset": data, "backbone": "resnet50", "weights": weights, "seed": seed}
        return rc.make(rc.TrainClassifier, blocks, **given, epochs=epochs)

    def reactivated(epochs: int, seed: int) -> rc.Reactivate:
        return rc.make(rc.Reactivate, blocks, base=classifier(1, seed), epochs=epochs)

    cams = rc.make(rc.ExtractCams, blocks, model=reactivated(1, 0), weights="w*w'")

    def boundary(epochs: int, seed: int) -> rc.TrainBoundary:
        return rc.make(rc.TrainBoundary, blocks, cams=cams, epochs=epochs, crf=False, seed=seed)

    def network(arch: str, times: int, seed: int) -> rc.TrainSegmenter:
        how = {**RECIPES[arch], "precision": "bf16-mixed", "lr": 1e-7, **tiny, "steps": few * times}
        return rc.TrainSegmenter(arch=arch, masks=rc.PseudoMasks(maps=cams), seed=seed, **how)

    names, few = data.images("train_aug").ids, 2 if small else 15
    walk = rc.make(rc.Walk, blocks, cams=cams, boundary=boundary(1, 0))
    advcams = rc.make(rc.AdvCams, blocks, model=classifier(1, 0))
    for name, make in zip(TRAININGS, (classifier, reactivated, boundary), strict=True):
        units = passes[name] * IMAGES
        yield name, functools.partial(training, make, times=2 if small else 6, count=count, units=units)
    yield "ExtractCams", functools.partial(maps, cams, names)
    yield "BoundaryMaps", functools.partial(maps, walk.boundaries, names[:64])
    yield "Walk", functools.partial(maps, walk, names[:64])
    for arch in ("deeplabv2", "upernet_swin", "deeplabv3plus"):
        taken = functools.partial(training, functools.partial(network, arch), times=2, count=few)
        yield f"TrainSegmenter, {arch}", functools.partial(taken, units=RECIPES[arch]["steps"])
    yield "AdvCams", functools.partial(maps, advcams, names[: 1 if small else 4])


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file; what it has is not made again")
    parser.add_argument("--data", type=Path, help="folder of a VOC devkit, else $RECAM_DATA")
    parser.add_argument("--small", action="store_true", help="small crops and few images, to try this")
    args = parser.parse_args()
    os.environ |= {"TQDM_DISABLE": "1"} | ({"RECAM_DATA": str(args.data.resolve())} if args.data else {})
    report: Record = {"device": device_name(), "versions": versions(), "commit": commit()}
    report = resumed(report | {"small": args.small}, args.out)
    taken = report.setdefault("steps", {})
    for name, work in steps(args.small):
        if name not in taken:
            taken[name] = work()
            print(name, taken[name], flush=True)
            write(args.out, report)


if __name__ == "__main__":
    main()
