"""Reading pre-trained weights: by registry, by file, by a bare name; nothing that executes on load."""

import re
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from recamlib import paths
from recamlib.errors import WeightsError, nearest

REGISTRY = "imagenet"
"""The name that means "download from torchvision's or timm's own registry"."""

_CLASSIFIER = ("fc.", "classifier.", "head.")
_SUFFIXES = (".safetensors", ".pth", ".pt")


def find_weights(weights: str | Path) -> Path:
    """Return the file that `weights` means: a path, or the bare name of a file in the weights folder.

    Raises
    ------
    WeightsError
        If there is no such file; the message names the nearest one and the registry.
    """
    given = Path(weights).expanduser()
    bare = given.suffix not in _SUFFIXES
    path = paths.weights_dir() / f"{weights}.safetensors" if bare else given
    if path.is_file():
        return path
    there = sorted(p.stem if bare else p.name for p in path.parent.glob("*") if p.suffix in _SUFFIXES)
    raise WeightsError(
        f"no weights file {path}{nearest(path.stem if bare else path.name, there)}: give the path of a "
        f".safetensors or .pth file, set RECAM_WEIGHTS, or use {REGISTRY!r} to download"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors or .pth file on the CPU, floating point ones as float32.

    Raises
    ------
    WeightsError
        If the file is damaged, holds anything but tensors, or a number in it is not finite.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            _check_sizes(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own unpickler fails in any number of ways
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise WeightsError(f"cannot read weights from {path}: {reason}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # the usual wrapping of a training checkpoint
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path} does not hold a plain dictionary of tensors")
    for key, value in state.items():
        if value.layout is not torch.strided or value.nbytes > value.untyped_storage().nbytes():
            raise WeightsError(f"{path} claims more numbers for {key} than it holds")
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    if bad := [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]:
        raise WeightsError(f"{path} holds numbers that are not finite in {_some(bad)}")
    return state


def _check_sizes(path: Path) -> None:
    """Refuse a .pth file that is packed, which torch never writes: it could unpack to any size."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as packed:
            if any(member.compress_type != zipfile.ZIP_STORED for member in packed.infolist()):
                raise WeightsError("it is compressed, save it again with torch.save")


def load_features(net: nn.Module, state: dict[str, Tensor], *, source: Path, spare: bool = False) -> None:
    """Copy `state` into `net`, leaving out classifier keys; every other key has to find its place.

    Parameters
    ----------
    net
        The feature extractor, changed in place.
    state
        Tensors by their published names.
    source
        Where they come from, for messages.
    spare
        Accept keys that `net` has no place for: timm's feature extractors leave out the layers after the last
        stage and may write ``stages_0`` for ``stages.0``.

    Raises
    ------
    WeightsError
        If keys are missing or left over, or a shape differs; they are named.
    """
    # Files published before PyTorch 1.0 name DenseNet's layers norm.1 where the network has norm1.
    state = {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)\.", r"\1\2.", k): v for k, v in state.items()}
    state = {k.removeprefix("module."): v for k, v in state.items()}
    wanted = {k.replace(".", "_"): k for k in net.state_dict()}
    found = {wanted.get(k.replace(".", "_"), k): v for k, v in state.items()}
    classifier = [k for k in found if k.startswith(_CLASSIFIER) and k not in wanted.values()]
    missing = [k for k in wanted.values() if k not in found and not k.endswith("num_batches_tracked")]
    left = [] if spare else [k for k in found if k not in wanted.values() and k not in classifier]
    own = net.state_dict()
    shapes = [k for k in found if k in own and found[k].shape != own[k].shape]
    for keys, what in ((missing, "lacks"), (left, "has no place for"), (shapes, "has another shape for")):
        if keys:
            subject = "the network" if keys is left else f"{source}"
            raise WeightsError(f"{subject} {what} {_some(keys)}: are these the weights of another network?")
    net.load_state_dict({k: found[k] for k in own if k in found}, strict=False)


def _some(keys: list[str], limit: int = 4) -> str:
    """Return the first few keys and how many more there are."""
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")
