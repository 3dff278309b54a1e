"""The library on a GPU: every hot path against the CPU, then Table 1 with heads on fixed features.

For a machine with PyTorch and without Jupyter that is at hand for minutes. From a checkout::

    PYTHONPATH=. python benchmarks/gpu.py --data DATA --weights WEIGHTS --out gpu.json

``--data`` and ``--weights`` take several folders and read them as one, for what is carried in pieces. A call
goes on where the last one with the same ``--out`` stopped. Part 1 needs torch, torchvision, tqdm and
defusedxml; for trained weights safetensors; for its training step lightning, psutil and PyYAML as well.
Part 2 needs what stages need besides: exca, submitit, pydantic, joblib, pandas, SciPy.
"""

import argparse
import ast
import datetime
import functools
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import bench_advcam
import bench_class_features
import bench_extraction
import bench_walk
import torch
from harness import network, photographs
from torch import Tensor

from recamlib.engine.device import commit, device_name, versions
from recamlib.errors import RecamError
from recamlib.paths import notebooks_dir, results_dir

BACKBONES, SEEDS = ("mobilenet_v2", "densenet169"), (0, 1, 2)
BATCH, CROP = 16, 320  # of the training step
TINY = ((64, 80), (80, 64))  # the two images of --small
PRECISIONS = ("32-true", "bf16-mixed")
clock = time.monotonic
Found = tuple[list[Tensor], float]  # results on the CPU, and seconds


def timed(work: Callable[[], Sequence[Tensor]], device: str) -> Found:
    """Return the results of some work, and the median time of three runs after one that warms up."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    results, times = work(), []
    for _ in range(3):
        wait()
        start = time.perf_counter()
        work()
        wait()
        times.append(time.perf_counter() - start)
    return [r.detach().float().cpu() for r in results], statistics.median(times)


def walk(device: str, precision: str, small: bool) -> Found:
    """Walk over one photograph, in single precision."""
    from recamlib.method.walk import random_walk

    inputs = bench_walk.inputs(*((12, 16) if small else bench_walk.GRIDS[-1]))
    maps, boundary = (x.to(device) for x in inputs)
    return timed(lambda: [random_walk(maps, boundary)], device)


def class_features(device: str, precision: str, small: bool) -> Found:
    """Take class features (Eq. 5) forward and backward, in single precision."""
    from recamlib.method.maps import class_features

    inputs = bench_class_features.inputs(*((1, 2) if small else (8, 20)))
    features, maps, slope = (x.to(device) for x in inputs)

    def work() -> list[Tensor]:
        pooled = class_features(features, maps)
        return [pooled, *torch.autograd.grad(pooled, (features, maps), slope)]

    return timed(work, device)


def maps(device: str, precision: str, small: bool, *, steps: int = 0) -> Found:
    """Extract maps of photographs at four scales; with `steps`, make those of AdvCAM at one."""
    from recamlib.engine.advcam import adversarial_maps
    from recamlib.engine.extract import extract_scale_maps

    torch.manual_seed(0)
    bench = bench_advcam if steps else bench_extraction
    model, images = network().to(device), photographs(TINY if small else bench.SIZES)
    classes = [torch.tensor([i, i + 1]) for i in range(len(images))]
    given, fc1 = {"classes": classes, "precision": precision}, model.fc1.weight.detach()
    if steps:
        work = functools.partial(adversarial_maps, model, images, fc1, scales=(1.0,), steps=steps, **given)
    else:
        work = functools.partial(extract_scale_maps, model, images, fc1[None], scales=bench.SCALES, **given)
    return timed(lambda: list(itertools.chain(*work())), device)


class Reactivation(torch.nn.Module):
    """Classifier and head, and the loss of Eq. 8 of a batch."""

    def __init__(self) -> None:
        from recamlib.models.base import freeze_batch_norm
        from recamlib.models.classifier import ReactivationHead

        super().__init__()
        self.classifier = network().train()
        freeze_batch_norm(self.classifier.backbone)
        self.head = ReactivationHead(self.classifier.backbone.channels, 20)

    def forward(self, views: Tensor, labels: Tensor) -> Tensor:
        from recamlib.method.losses import bce_loss, reactivation_loss
        from recamlib.method.maps import class_activation_maps, class_features

        features = self.classifier.features(views).float()  # (B, C, h, w)
        with torch.autocast(features.device.type, enabled=False):
            found = class_activation_maps(features, self.classifier.fc1.weight)  # (B, K, h, w)
            sce = reactivation_loss(class_features(features, found), labels, classifier=self.head)
            return bce_loss(self.classifier.logits(features), labels) + sce


def training_step(device: str, precision: str, small: bool) -> Found:
    """Take a step of reactivation on a batch that is on the device; the result is the first gradient."""
    from recamlib.engine.fit import make_optimizer, open_fabric

    os.environ["RECAM_DEVICE"] = device
    fabric = open_fabric(precision)
    torch.manual_seed(0)
    net, (count, side) = Reactivation(), (2, 64) if small else (BATCH, CROP)
    optimizer = make_optimizer([{"params": list(net.parameters()), "lr": 1e-3}])
    views, labels = torch.rand(count, 3, side, side), torch.eye(20)[:count] + torch.eye(20)[-1]
    views, labels = views.to(device, memory_format=torch.channels_last), labels.to(device)
    step, optimizer = fabric.setup(net.to(device, memory_format=torch.channels_last), optimizer)

    def work() -> list[Tensor]:
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(step(views, labels))
        optimizer.step()
        return [torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])]

    return timed(work, device)


@functools.cache
def on_cpu(path: Callable[..., Found], small: bool) -> Found:
    """Return results and time on the CPU in single precision, which everything is compared with."""
    return path("cpu", "32-true", small)


def difference(found: list[Tensor], wanted: list[Tensor]) -> float:
    """Return the largest difference relative to the maximum of the result that it is in."""
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in zip(found, wanted))


def against_cpu(path: Callable[..., Found], device: str, precision: str, small: bool) -> dict[str, Any]:
    """Return times and difference of a hot path; without TF32 as well, which convolutions use."""
    wanted, cpu_seconds = on_cpu(path, small)
    found, seconds = path(device, precision, small)
    step = {"cpu_seconds": cpu_seconds, "device_seconds": seconds, "times_faster": cpu_seconds / seconds,
            "difference": difference(found, wanted)}  # fmt: skip
    if device != "cpu" and precision == "32-true":
        torch.backends.cudnn.allow_tf32 = False
        step["difference_without_tf32"] = difference(path(device, precision, small)[0], wanted)
        torch.backends.cudnn.allow_tf32 = True
    return step


def notebook_settings() -> dict[str, Any]:
    """Return the settings of notebook 02 under the profile mini, read without Jupyter."""
    from recamlib.files import read_yaml
    from recamlib.studies.checks import merged

    cells = json.loads((notebooks_dir() / "02_table1_ablations.ipynb").read_text(encoding="utf-8"))["cells"]
    cell = next(cell for cell in cells if "parameters" in cell["metadata"].get("tags", ()))
    lines = ast.parse("".join(cell["source"])).body
    own = {line.target.id: ast.literal_eval(line.value) for line in lines}["settings"]
    mini = read_yaml(notebooks_dir() / "profiles" / "mini.yml")
    return merged(merged(own, {name: mini[name] for name in own if name in mini}), mini["02"]["settings"])


def table1(small: bool) -> dict[str, Callable[[], dict]]:
    """Return the steps of part 2: a row of Table 1 or a control, as notebook 02 makes it, for one seed."""
    from recamlib.stages.base import DataSettings
    from recamlib.stages.classify import Reactivate, TrainClassifier
    from recamlib.stages.maps import ExtractCams
    from recamlib.stages.score import Score
    from recamlib.studies.common import make
    from recamlib.studies.table1 import BASE_ROWS, OUR_ROWS, ROWS

    settings = notebook_settings()
    data = DataSettings(train_count=8, val_count=4, size=64) if small else DataSettings.of("voc12")
    networks = {"resnet_small": None} if small else {name: f"{name}_imagenet" for name in BACKBONES}

    def row(score: Score, **names: Any) -> dict[str, Any]:
        trained, answer = score.of.model.result, score.of.convergence
        numbers = ("miou", "fixed", "best", "best_threshold", "floor")
        record = {name: value for name, value in trained["convergence"].items() if name != "epochs"}
        return {
            **names, **{name: float(getattr(score, name)) for name in numbers},
            "images": score.result["images"], "training_images": trained["images"],
            "converged": answer.converged, "convergence": answer.text, "record": record,
        }  # fmt: skip

    steps = {}
    for seed, (name, weights) in itertools.product(SEEDS[:2] if small else SEEDS, networks.items()):
        given = {"dataset": data, "backbone": name, "weights": weights, "seed": seed}
        bce, sce, single = (
            make(TrainClassifier, settings, loss=loss, **given) for loss in ("bce", "sce", "sce_single")
        )
        recam, longer = (make(Reactivate, settings, base=bce, sce_weight=weight) for weight in (1.0, 0.0))
        rows = {"bce_only": (bce, "w"), "sce_only": (sce, "w"), "sce_single_only": (single, "w"),
                "bce_longer (control)": (longer, "w")}  # fmt: skip
        rows |= {title: (recam, option) for option, title in (ROWS | OUR_ROWS).items()}
        rows |= {title: (bce, option) for option, title in BASE_ROWS.items()}
        for title, (model, option) in rows.items():
            score = make(Score, settings, of=make(ExtractCams, settings, model=model, weights=option))
            work = functools.partial(row, score, backbone=name, seed=seed, row=title)
            steps[f"Table 1, {name}, seed {seed}, {title}"] = work
    return steps


def summary(steps: Mapping[str, Mapping[str, Any]], *, per_seed: int) -> dict[str, Any]:
    """Return rows over the seeds that all rows of a backbone have, and, of several seeds, the verdicts."""
    from recamlib.report.claims import table_row
    from recamlib.studies import table1 as rules

    told: dict[str, Any] = {}
    for name in dict.fromkeys(step["backbone"] for step in steps.values()):
        found: dict[str, dict[int, Any]] = {}
        for step in (step for step in steps.values() if step["backbone"] == name):
            found.setdefault(step["row"], {})[step["seed"]] = step
        seeds = sorted(set.intersection(*map(set, found.values())))
        if not seeds or len(found) < per_seed:
            continue
        rows, base = {}, [found["bce_only"][seed] for seed in seeds]
        for title, by_seed in found.items():
            mine = [by_seed[seed] for seed in seeds]
            worst = next((step for step in (*mine, *base) if not step["converged"]), mine[0])
            rows[title] = table_row(
                [step["miou"] for step in mine],
                baseline=[step["miou"] for step in base] if title != "bce_only" else None,
                **{key: worst[key] for key in ("images", "floor", "converged", "convergence")},
            )
        told[name] = {"rows": rows}
        if len(seeds) > 1:
            told[name]["claims"] = rules.any_option_beats_cam(rows) | rules.reactivation_or_weights(rows)
    return told


def joined(folders: Sequence[Path], into: Path) -> Path:
    """Return one folder with the files of several, as links."""
    for folder in folders if len(folders) > 1 else ():
        for file in (file for file in folder.resolve().rglob("*") if file.is_file()):
            place = into / file.relative_to(folder.resolve())
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.symlink_to(file)
    return (into if len(folders) > 1 else folders[0]).resolve()


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing until the time is over, and write the file after every step."""
    start = clock()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file; what it has is not made again")
    parser.add_argument("--device", default="cuda", help="compared with the CPU: cuda, or cpu to try this")
    parser.add_argument("--minutes", type=float, default=12, help="no step begins later; at most 12")
    parser.add_argument("--data", type=Path, nargs="+", help="folders of a VOC devkit, else $RECAM_DATA")
    parser.add_argument("--weights", type=Path, nargs="+", help="folders of weights, else $RECAM_WEIGHTS")
    parser.add_argument("--small", action="store_true", help="two small images and embedded scenes")
    args = parser.parse_args(arguments)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("no GPU that PyTorch can use: run it where there is one, or with --device cpu")
    os.environ |= {"RECAM_DEVICE": args.device, "RECAM_WORKERS": "0", "TQDM_DISABLE": "1"}
    for name, folders in (("data", args.data), ("weights", args.weights)):
        if folders:
            os.environ[f"RECAM_{name.upper()}"] = str(joined(folders, results_dir() / f"joined_{name}"))
    report: dict[str, Any] = {
        "device": device_name(), "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(), "versions": versions(), "commit": commit(), "small": args.small,
    }  # fmt: skip
    report = resumed(report, args.out)
    steps = report.setdefault("steps", {})
    advcam = functools.partial(maps, steps=bench_advcam.STEPS)
    paths = {"random walk": walk, "class features": class_features, "extraction": maps, "AdvCAM": advcam,
             "training step": training_step}  # fmt: skip
    planned = {
        f"{name}, {precision}": functools.partial(against_cpu, path, args.device, precision, args.small)
        for name, path in paths.items()
        for precision in PRECISIONS[: 1 if path in (walk, class_features) else 2]
    }
    rows: dict[str, Callable[[], dict]] = {}
    try:
        rows = table1(args.small)
    except (ImportError, RecamError) as error:
        print(f"part 2 is left out, a package or the data is not here: {error}")
    missing = {name: work for name, work in (planned | rows).items() if name not in steps}
    for name, work in missing.items():
        if clock() - start >= 60 * min(args.minutes, 12):
            break
        begin = time.perf_counter()
        try:
            steps[name] = work() | {"seconds": time.perf_counter() - begin}
        except (ImportError, RecamError) as error:
            print(f"{name} is left out: {error}")
            continue
        print(name, *(f"{k} {v:.3g}" for k, v in steps[name].items() if isinstance(v, float)), sep=", ")
        write(args.out, report)
    if rows:
        mine = {name: step for name, step in steps.items() if name in rows}
        report["table1"] = summary(mine, per_seed=len({work.keywords["row"] for work in rows.values()}))
    write(args.out, report)
    print(f"{len(steps)} of {len(planned | rows)} steps are in {args.out}")


def resumed(report: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the report that a file holds, if there is one; it has to be of the same device and code."""
    if not path.is_file():
        return report
    before = json.loads(path.read_text(encoding="utf-8"))
    if other := [name for name in report if before.get(name) != report[name]]:
        raise SystemExit(f"{path} has another {', '.join(other)}: give another --out")
    return before


def write(path: Path, report: dict[str, Any]) -> None:
    """Write the file whole."""
    report["date"] = datetime.date.today().isoformat()
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
