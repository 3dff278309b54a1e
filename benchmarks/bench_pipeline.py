"""The whole pipeline on real photographs: the stages of the library against a literal assembly of the steps.

From the classifier's training to 0-1 masks after the random walk, with the settings of the profile mini, on
200 images of RECAM_DATA's part of VOC (``RECAM_BENCH_IMAGES`` sets another number). Each literal step starts
from what our step started from, so that a difference is that step's own; only trainings drift. The dense
walk takes minutes an image: the literal form walks 4 of them (``RECAM_BENCH_WALKS``) and its time is
extrapolated in proportion to the images. Without real images there are embedded scenes, where both forms run
beside a busy loop too, and the note says so.
"""

import os
import shutil
from collections.abc import Callable
from typing import Any

from harness import compare, step

from recamlib.paths import data_dir, results_dir, weights_dir

IMAGES = int(os.environ.get("RECAM_BENCH_IMAGES", 200))
WALKS = min(IMAGES, int(os.environ.get("RECAM_BENCH_WALKS", 4)))
WEIGHTS = "mobilenet_v2_imagenet"
REAL = (data_dir() / "VOCdevkit").is_dir() and (weights_dir() / f"{WEIGHTS}.safetensors").is_file()
PLACE = results_dir() / "bench_pipeline"  # stages of a run, made anew by every run
THINNED = 4  # every so many pixels of label maps and masks are compared


def stages(precision: str) -> dict[str, Any]:
    """Return the stages of the pipeline by name."""
    import recamlib as rc
    from recamlib.book.parameters import all_parameters

    own = {"settings": {name: {"precision": precision} for name in ("TrainClassifier", "TrainBoundary")}}
    given = all_parameters("mini" if REAL else "smoke", "03", extra=own)
    settings, data = given["settings"], rc.DataSettings.of(given["dataset"], train_images=IMAGES)
    network = {"backbone": given["backbone"], "weights": given["weights"] or None}
    base = rc.make(rc.TrainClassifier, settings, dataset=data, **network)
    model = rc.make(rc.Reactivate, settings, base=base)
    cams = rc.make(rc.ExtractCams, settings, model=model, weights=rc.table1.option_of(given["dataset"]))
    walk = rc.table2.refined(cams, "irn", settings)
    return {
        "data": data, "classifier": walk.model.base, "recam": walk.model, "cams": walk.cams,
        "net": walk.boundary, "walk": walk, "masks": rc.PseudoMasks(maps=walk),
    }  # fmt: skip


def compared(**found: list) -> dict[str, Any]:
    """Return lists of arrays as one flat tensor each."""
    import numpy as np
    import torch

    return {
        name.replace("_", " "): torch.from_numpy(np.concatenate([np.asarray(a).ravel() for a in arrays]))
        for name, arrays in found.items()
    }


def walked_ids(ids: list[str]) -> list[str]:
    """Return the images that the literal form walks: evenly spread over all."""
    return [ids[i * len(ids) // WALKS] for i in range(WALKS)]


def ours(precision: str) -> Callable[[], Callable[[], dict]]:
    """Return a function that puts the stages together and returns the work of running them."""

    def prepare() -> Callable[[], dict]:
        from recamlib.data.images import labels_from_png

        place = PLACE / precision
        shutil.rmtree(place, ignore_errors=True)
        os.environ["RECAM_RESULTS"] = str(place)
        made = stages(precision)
        ids = made["data"].images("train_aug").ids
        wanted = [("train_aug", name) for name in ids]

        def work() -> dict:
            with step("train classifier"):
                first = made["classifier"].result
            with step("reactivate"):
                second = made["recam"].result
            with step("extract maps"):
                maps = list(made["cams"].items(wanted))
            with step("confident labels"):
                labels = list(made["net"].labels.items(wanted))
            with step("train boundary"):
                third = made["net"].result
            with step("boundary maps"):
                walls = list(made["walk"].boundaries.items(wanted))
            with step("random walk"):
                walked = dict(zip(ids, made["walk"].items(wanted)))
            with step("masks"):
                masks = dict(zip(ids, made["masks"].items(wanted)))
            return compared(
                classifier_loss=[first["history"]["loss"]], reactivation_loss=[second["history"]["loss"]],
                maps=[made["cams"].merge(item, stride=4) for item in maps],
                labels=[labels_from_png(item["png"])[::THINNED, ::THINNED] for item in labels],
                boundary_loss=[third["history"]["loss"]], boundary_maps=[w["boundary"] for w in walls],
                walked_maps=[walked[name]["maps"] for name in walked_ids(ids)],
                masks=[labels_from_png(masks[n]["png"])[::THINNED, ::THINNED] for n in walked_ids(ids)],
            )  # fmt: skip

        return work

    return prepare


def alone() -> Callable[[], dict]:
    """Return the passes of the backbone that our steps hold and nothing else: what cannot be saved."""
    import torch

    from recamlib.data.views import normalise, rescale
    from recamlib.models.base import fold_batch_norm

    os.environ["RECAM_RESULTS"] = str(PLACE / "32-true")
    made = stages("32-true")
    classifier, recam, cams, net = (made[name] for name in ("classifier", "recam", "cams", "net"))
    images = made["data"].images("train_aug")
    model = classifier.build(classifier.weights).to(memory_format=torch.channels_last)
    folded = fold_batch_norm(model.eval().backbone).to(memory_format=torch.channels_last)
    frozen = net.load().to(memory_format=torch.channels_last)

    def views(scale: float) -> list:
        found = [normalise(rescale(images.image(name), scale)) for name in images.ids]
        return [torch.stack([v, v.flip(2)]).to(memory_format=torch.channels_last) for v in found]

    def passes(stage: Any, crop: int, *, back: bool) -> None:
        size = min(stage.batch_size, len(images))
        batch = torch.randn(size, 3, crop, crop).to(memory_format=torch.channels_last)
        for _ in range(stage.epochs * (len(images) // size)):
            if back:
                model.train().zero_grad()
                model.features(batch).mean().backward()
            else:
                frozen.backbone.stages(batch)

    scaled = {scale: views(scale) for scale in (*cams.scales, 1.0)}  # before the clock runs

    def work() -> dict:
        with step("train classifier"):
            passes(classifier, classifier.crop, back=True)
        with step("reactivate"):
            passes(recam, classifier.crop, back=True)
        with step("extract maps"), torch.inference_mode():
            for pair in (pair for scale in cams.scales for pair in scaled[scale]):
                folded(pair)
        with step("train boundary"):
            passes(net, net.crop, back=False)
        with step("boundary maps"):
            for pair in scaled[1.0]:
                frozen.backbone.stages(pair)
        return {}

    return work


def literal() -> Callable[[], dict]:
    """Return the work of the literal assembly, which starts its steps from what ours has stored."""
    import literal_pipeline as form
    import numpy as np
    import torch

    from recamlib.data.images import labels_from_png
    from recamlib.data.views import PairedView, PairedViews
    from recamlib.engine import fit as engine
    from recamlib.method.maps import combine_weights
    from recamlib.stages.classify import OTHER_DRAWS

    os.environ["RECAM_RESULTS"] = str(PLACE / "32-true")
    made = stages("32-true")
    classifier, recam, cams, net = (made[name] for name in ("classifier", "recam", "cams", "net"))
    images = made["data"].images("train_aug")
    ids, files = images.ids, PLACE / "literal"
    shutil.rmtree(files, ignore_errors=True)
    files.mkdir(parents=True)
    classes = {name: np.flatnonzero(images.labels(name)).tolist() for name in ids}
    file = {name: files / f"{number}.npz" for number, name in enumerate(ids)}

    def optimizer(groups: list[tuple[list, float]], stage: Any) -> torch.optim.Optimizer:
        return engine.make_optimizer(
            [{"params": params, "lr": lr} for params, lr in groups], momentum=stage.momentum,
            weight_decay=stage.weight_decay, kind=getattr(stage, "optimizer", "sgd"),
        )  # fmt: skip

    def train_classifier() -> list[float]:
        torch.manual_seed(classifier.seed)
        model = classifier.build(classifier.weights)
        if classifier.fc_init == "linear":
            model.fc1.load_state_dict(classifier.linear.fc1().state_dict())
        groups = [([p for p in model.backbone.parameters() if p.requires_grad], classifier.lr)]
        groups.append((list(model.fc1.parameters()), classifier.lr * classifier.fc_lr_factor))
        return form.train(
            model, classifier.views(), form.classifier_step, optimizer(groups, classifier),
            epochs=classifier.epochs, batch_size=classifier.batch_size, seed=classifier.seed,
        )  # fmt: skip

    def reactivate() -> list[float]:
        torch.manual_seed(classifier.seed + OTHER_DRAWS)
        model = recam.build()
        classifier.load_into(model.classifier)
        free = [p for p in model.classifier.parameters() if p.requires_grad]
        groups = [(free, recam.lr * recam.base_lr_factor)]
        groups.append((list(model.head.parameters()), recam.lr))
        return form.train(
            model, classifier.views(draws=OTHER_DRAWS), form.reactivation_step, optimizer(groups, recam),
            epochs=recam.epochs, batch_size=recam.batch_size, seed=classifier.seed + OTHER_DRAWS,
        )  # fmt: skip

    def train_boundary(labels: dict[str, bytes]) -> list[float]:
        view = PairedView(crop=net.crop, scale=net.scale, stride=4)
        views = PairedViews(images, lambda name: labels_from_png(labels[name]), view, seed=net.seed)
        both = form.BothBranches(net.build(), radius=net.radius, cells=(net.crop // 4,) * 2)
        losses: list[float] = []

        def loss_step(model: torch.nn.Module, batch: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
            loss = form.boundary_step(model, batch, truth)
            losses.append(model.boundary_loss)  # the displacements' is no number of ours
            return loss

        groups = [(list(both.net.branch.parameters()), net.lr)]
        more = [p for part in (both.project, both.deep, both.merge) for p in part.parameters()]
        form.train(
            both, views, loss_step, optimizer([*groups, (more, 10 * net.lr)], net), epochs=net.epochs,
            batch_size=net.batch_size, seed=net.seed,
        )  # fmt: skip
        return np.array(losses).reshape(net.epochs, -1).mean(1)

    def work() -> dict:
        with step("train classifier"):
            first = train_classifier()
        with step("reactivate"):
            second = reactivate()
        with step("extract maps"):
            model, fc2 = recam.load()
            weight = combine_weights(model.fc1.weight.detach(), fc2, cams.weights)
            for name in ids:
                present = torch.tensor(classes[name], dtype=torch.long)
                form.extract(model, images.image(name), weight, present, cams.scales, file[name])
        with step("confident labels"):
            thresholds = {"strict": net.foreground, "lenient": net.background}
            labels = {n: form.confident(images.image(n), file[n], classes[n], **thresholds) for n in ids}
        with step("train boundary"):
            third = train_boundary(labels)
        with step("boundary maps"):
            both = form.BothBranches(net.load(), radius=net.radius, cells=(net.crop // 4,) * 2).eval()
            walls = [form.boundary_map(both, images.image(name)) for name in ids]
        some = walked_ids(ids)
        stored = made["walk"].boundaries.items([("train_aug", name) for name in some])
        held = {n: torch.from_numpy(np.array(w["boundary"])).float() for n, w in zip(some, stored)}
        settings = {name: getattr(made["walk"], name) for name in ("radius", "beta", "steps")}
        with step("random walk", images=len(some), of=len(ids)):
            walked = [form.walk(file[name], held[name], **settings) for name in some]
        with step("masks", images=len(some), of=len(ids)):
            threshold = made["walk"].fixed_threshold
            sizes = [tuple(images.image(n).shape[1:]) for n in some]
            masks = [form.mask(m, size, classes[n], threshold) for n, m, size in zip(some, walked, sizes)]
        return compared(
            classifier_loss=[first], reactivation_loss=[second], maps=[np.load(file[n])["cam"] for n in ids],
            labels=[labels_from_png(labels[n])[::THINNED, ::THINNED] for n in ids], boundary_loss=[third],
            boundary_maps=walls, walked_maps=walked, masks=[m[::THINNED, ::THINNED] for m in masks],
        )  # fmt: skip

    return work


if __name__ == "__main__":
    what = "photographs of VOC, MobileNetV2" if REAL else "embedded scenes (no real images here), a small net"
    compare(
        "pipeline",
        {"ours": ours("32-true"), "literal": literal, "ours, bf16-mixed training": ours("bf16-mixed"),
         "ours, backbone alone": alone},
        repeats=0,
        busy=not REAL,
        note=f"{IMAGES} {what}, from training to masks after the walk (literal walk: {WALKS} images)",
        sizes={"ours": {"images": IMAGES}},
    )
    shutil.rmtree(PLACE, ignore_errors=True)
