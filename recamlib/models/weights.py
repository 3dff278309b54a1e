"""Pre-trained weights from a registry, a file or a bare name; nothing that executes on load."""

import argparse
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from recamlib import paths
from recamlib.errors import SettingsError, WeightsError, nearest

REGISTRY = "imagenet"  # the name that means "download from torchvision's or timm's own registry"
SCENES = "scenes"  # the name of the weights in the package: resnet_small, pre-trained on other classes
#: Their file; the JSON file beside it says how `recamlib.engine.pretrain` made it.
PACKAGED = Path(__file__).with_name("resnet_small_scenes.safetensors")

_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")  # first come first
_HEADS = ("fc", "classifier", "head")  # layers that classify, whoever wrote the file
_COMPUTED = ("num_batches_tracked", "relative_position_index", "attn_mask")  # in some files


def state_of(weights: str | Path | None, network: str) -> tuple[dict[str, Tensor], Path | None]:
    """Return the tensors that `weights` mean and their file: neither for random ones and a registry's."""
    if weights in (SCENES, REGISTRY) and (weights == SCENES) != (network == "resnet_small"):
        other = SCENES if weights == REGISTRY else REGISTRY
        raise WeightsError(f"{network} has no {weights!r} weights: use {other!r}, a file, or none")
    path = None if weights in (None, REGISTRY) else find_weights(weights)
    return read_weights(path) if path else {}, path


def find_weights(weights: str | Path) -> Path:
    """Return the file that `weights` means, or raise a WeightsError that names the nearest one.

    A path is taken from where the process runs, from where the user stands (a notebook's kernel runs in the
    folder of the notebooks), and from the weights folder; a bare name from there alone.
    """
    if weights == SCENES:
        return PACKAGED
    given, folder = Path(weights).expanduser(), paths.weights_dir()
    bare = given.suffix not in _SUFFIXES
    user = Path(os.environ.get("PWD", "."))  # shells set it, kernels inherit it
    files = [folder / f"{given}{suffix}" for suffix in (_SUFFIXES if bare else ("",))]
    for path in (given, user / given, *files):
        if path.is_file():
            return path
    near = folder if bare or not given.parent.is_dir() else given.parent
    there = sorted(p.stem if bare else p.name for p in near.glob("*") if p.suffix in _SUFFIXES)
    named = f"{files[0] if bare else given}{nearest(given.name, there)}"
    raise WeightsError(f"no weights file {named}: give a path, set RECAM_WEIGHTS, or use {REGISTRY!r}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file or training checkpoint, floating point ones as float32."""
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # plain values beside the weights
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own unpickler fails in any number of ways
        raise WeightsError(f"cannot read weights from {path}: {_reason(error)}") from error
    state = _unwrapped(state, path)
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    if bad := [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise WeightsError(f"{path} holds numbers that are not finite in {_some(bad)}")
    return state


def load_head(layer: nn.Module, name: str, weights: str | None) -> None:
    """Load a head such as ``fc1`` from a file that ``recam export`` wrote, for training of no epochs."""
    if weights in (None, REGISTRY, SCENES):
        raise WeightsError(f"epochs=0 takes {name} from a file of `recam export`: weights={weights} has none")
    path, wanted = find_weights(weights), tuple(layer.weight.shape)
    head = read_weights(path).get(f"{name}.weight")
    if head is None or tuple(head.shape) != wanted:
        found = "none" if head is None else f"one of shape {tuple(head.shape)}"
        raise WeightsError(f"epochs=0 needs {name} of shape {wanted}, {path} holds {found}: train a few")
    layer.load_state_dict({"weight": head})


def load_features(
    net: nn.Module, state: dict[str, Tensor], *, source: Path, whole: Collection[str] = ()
) -> None:
    """Copy `state` into `net`: every key of the network has to come, and none may be left over.

    The network may lie deeper in the file, under any prefix (``module.``, ``model.backbone.``): the keys
    beside it are left out, as are those of a classifier and of `whole`, the network with the layers that
    `net` was built without. timm may write ``stages_0`` for ``stages.0``. `source` is for messages.
    """
    own = net.state_dict()
    wanted = {_plain(k): k for k in own}
    named = {wanted.get(_plain(k), k): v for k, v in part_of(state, net, source=source).items()}
    spare = {_plain(k) for k in whole}
    beside = (_parts(whole) | set(_HEADS)) - _parts(own) - _parts(k for k in whole if _plain(k) in wanted)
    missing = [k for k in own if k not in named and not k.endswith(_COMPUTED)]
    left = [k for k in named if not (k in own or _plain(k) in spare or k.endswith(_COMPUTED))]
    left = [k for k in left if not _parts([k]) & beside]
    shapes = [k for k in named if k in own and named[k].shape != own[k].shape]
    for keys, what in ((missing, "lacks"), (left, "has no place for"), (shapes, "has another shape for")):
        if keys:
            subject = "the network" if keys is left else f"{source}"
            raise WeightsError(f"{subject} {what} {_some(keys)}: are these the weights of another network?")
    net.load_state_dict({k: named[k] for k in own if k in named}, strict=False)


def part_of(state: dict[str, Tensor], net: nn.Module, *, source: Path) -> dict[str, Tensor]:
    """Return the tensors of a network in a file under its own names, without the prefix that most have."""
    # Files published before PyTorch 1.0 name DenseNet's layers norm.1 where the network has norm1.
    state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", k): v for k, v in state.items()}
    wanted = {_plain(k) for k in net.state_dict()}
    hits: Counter[str] = Counter()
    for key in state:
        for dot in (-1, *(m.start() for m in re.finditer(r"\.", key))):
            hits[key[: dot + 1]] += _plain(key[dot + 1 :]) in wanted
    most = max(hits.values(), default=0)
    best = [prefix for prefix, number in hits.items() if number == most]
    if most <= len(wanted) / 2:
        return state  # another network: its keys are named as they are
    if len(best) > 1:
        raise WeightsError(f"{source} holds the network as {' and as '.join(best)}: save one of them alone")
    return {k.removeprefix(best[0]): v for k, v in state.items() if k.startswith(best[0])}


def from_registry(make: Callable[..., nn.Module], name: str, **options: object) -> nn.Module:
    """Build a network; raise a RecamError if it cannot be, or if its weights cannot be downloaded."""
    try:
        return make(name, **options)
    except (TypeError, NotImplementedError, AssertionError) as error:
        raise SettingsError(f"{name} cannot be built with these settings: {error}") from error
    except (OSError, RuntimeError) as error:
        if not (options.get("weights") or options.get("pretrained")):
            raise
        why = f"cannot get the {REGISTRY} weights of {name} from the registry ({str(error).splitlines()[0]})"
        raise WeightsError(f"{why}: check the network, or give the path of a weights file") from error


def timm_name(name: str) -> str:
    """Return a name without ``timm/``, or raise a SettingsError if timm has no such network."""
    import timm  # seconds to import, and only needed for these names

    bare = name.removeprefix("timm/")
    if not timm.is_model(bare):
        hint = nearest(bare, timm.list_models())
        raise SettingsError(f"timm has no network {bare!r}{hint}: see timm.list_models()")
    return bare


def whole_names(name: str) -> tuple[str, ...]:
    """Return the keys of a timm network with all its layers, at the price of its layout alone."""
    import timm

    try:
        with torch.device("meta"):
            net = timm.create_model(name)
    except (NotImplementedError, RuntimeError):  # some read a number of their own while they are built
        net = timm.create_model(name)
    return tuple(net.state_dict())


def _reason(error: Exception) -> str:
    """Return why a file could not be read and, if it holds objects, how to save what can be."""
    text = str(error)
    if thing := re.search(r"GLOBAL (\S+)", text):
        return (
            f"it holds a Python object ({thing[1]}), which could run anything when it is read; where it was "
            "made, save the tensors alone: torch.save(model.state_dict(), 'weights.pth')"
        )
    return (text.splitlines() or [repr(error)])[0]


def _unwrapped(state: Any, path: Path, depth: int = 2) -> dict[str, Tensor]:
    """Return the dictionary of tensors in what a file holds, at most `depth` wrappers deep."""
    if isinstance(state, dict) and state and all(isinstance(v, Tensor) for v in state.values()):
        return state
    inside = {k: v for k, v in state.items() if isinstance(v, dict)} if isinstance(state, dict) else {}
    if name := next((k for k in _WRAPPERS if depth and k in inside), None):
        return _unwrapped(inside[name], path, depth - 1)
    alone = [k for k, v in inside.items() if v and all(isinstance(x, Tensor) for x in v.values())]
    if len(alone) == 1:
        return inside[alone[0]]
    what = f"holds several networks ({_some([str(k) for k in alone])})" if alone else (
        "does not hold a plain dictionary of tensors"
    )  # fmt: skip
    raise WeightsError(f"{path} {what}: save the one you mean, torch.save(model.state_dict(), 'weights.pth')")


def _plain(key: str) -> str:
    return key.replace(".", "_")


def _parts(keys: Iterable[str]) -> set[str]:
    return {key.partition(".")[0] for key in keys}


def _some(keys: list[str], limit: int = 4) -> str:
    """Return the first few keys and how many more there are."""
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")
