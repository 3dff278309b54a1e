"""Look at everything a run needs: versions, device, space, data."""

import importlib.metadata
import platform
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator

from recamlib import paths
from recamlib.errors import RecamError

GIB = 2**30
Line = tuple[str, bool | None, str]  # what; False if something needed is broken, None if only worth knowing


def examine() -> Iterator[Line]:
    """Yield the lines one by one; a check that itself fails is a line, not an exception."""
    for name, check in (
        ("packages", _packages), ("torch", _torch), ("dense CRF", _crf), ("results", _results),
    ):  # fmt: skip
        try:
            yield name, *check()
        except Exception as error:  # a broken library can raise anything on import
            yield name, False, " ".join(f"{type(error).__name__}: {error}".split())
    from recamlib.data.access import DATASETS, open_images

    for name in DATASETS:
        try:
            yield f"data {name}", True, f"{len(open_images(name, 'train').ids):,} training images"
        except (RecamError, OSError) as error:
            yield f"data {name}", None, f"not found: {' '.join(str(error).split())}"


def _packages() -> tuple[bool, str]:
    from packaging.requirements import Requirement

    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wrong = []
    for wanted in map(Requirement, project["dependencies"]):
        try:
            version = importlib.metadata.version(wanted.name)
            if not wanted.specifier.contains(version, prereleases=True):
                wrong.append(f"{wanted.name} {version} is not {wanted.specifier}")
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted} is missing")
    if wrong:
        return False, f"{', '.join(wrong)}; run: make env ({paths.ROOT})"
    return True, f"python {platform.python_version()}, {sys.executable}"


def _torch() -> tuple[bool, str]:
    import torch
    import torchvision

    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails if the two builds do not fit
    where = f"no GPU: CPU with {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        where = f"{torch.cuda.device_count()} x {device.name}, {device.total_memory / GIB:.0f} GiB each"
    elif torch.backends.mps.is_available():
        where = "Apple GPU (mps)"
    return True, f"torch {torch.__version__}, torchvision {torchvision.__version__}; {where}"


def _crf() -> tuple[bool | None, str]:
    from recamlib.method.crf import MissingCrfError, load_densecrf

    try:
        return True, f"{load_densecrf().__name__} is there"
    except MissingCrfError as error:
        return None, " ".join(str(error).split())


def _results() -> tuple[bool, str]:
    folder = paths.results_dir()
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
    free = shutil.disk_usage(folder).free
    # a quick report's stored stages and the book, with room to spare
    return free >= 2 * GIB, f"{folder} is writable, {free / GIB:.0f} GiB free"
