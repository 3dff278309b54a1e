"""Stages as small as they run, one of each kind, which the tests of a session share."""

import recamlib as rc

DATA = rc.DataSettings(train_count=10, val_count=6, size=64)
TRAINING = {"epochs": 1, "batch_size": 4, "crop": 64, "lr": 0.05, "fc_lr_factor": 1.0}


def classifier(**more) -> rc.TrainClassifier:
    return rc.TrainClassifier(**({"dataset": DATA} | TRAINING | more))


def reactivated(**more) -> rc.Reactivate:
    return rc.Reactivate(**({"base": classifier(), "epochs": 1, "batch_size": 4} | more))


def cams(model=None, **more) -> rc.ExtractCams:
    return rc.ExtractCams(**({"model": model or classifier(), "scales": (1.0, 0.5)} | more))


def advcams(model=None, **more) -> rc.AdvCams:
    return rc.AdvCams(model=model or classifier(), scales=(1.0,), steps=2, **more)


def boundary(maps=None, **more) -> rc.TrainBoundary:
    settings = {"cams": maps or cams(), "epochs": 1, "batch_size": 4, "crop": 64, "radius": 5, "crf": False}
    return rc.TrainBoundary(**(settings | more))


def walked(maps=None, **more) -> rc.Walk:
    maps = maps or cams()
    return rc.Walk(**({"cams": maps, "boundary": boundary(maps), "steps": 16} | more))


def segmenter(**more) -> rc.TrainSegmenter:
    settings = {"steps": 3, "batch_size": 4, "crop": 64, "lr": 0.01, "checkpoint_every": 2}
    return rc.TrainSegmenter(**({"masks": rc.PseudoMasks(maps=cams())} | settings | more))


def interrupt(patch, module, name: str, *, at: int) -> list[None]:
    """Have the so-and-so-many-th call of a function interrupted; return a list of the calls."""
    original, calls = getattr(module, name), []

    def called(*args, **kwargs):
        calls.append(None)
        if len(calls) == at:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    patch.setattr(module, name, called)
    return calls


def kinds(base: type) -> set[type]:
    found = {base} if "stage" in base.model_fields else set()
    return found.union(*(kinds(kind) for kind in base.__subclasses__()))


def train_all() -> None:
    for stage in (classifier(), reactivated(), segmenter()):
        _ = stage.result
    for stage in (cams(reactivated()), walked()):
        list(stage.run("train"))
