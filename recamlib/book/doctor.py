"""Look at everything a run needs: versions, device, kernel, space, data, weights."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from recamlib import paths
from recamlib.errors import RecamError

GIB = 2**30
_LEAST_DISK = 2 * GIB  # a quick report's cached stages and the book, with room to spare
_LEAST_MEMORY = 3 * GIB


@dataclass(frozen=True)
class Finding:
    """One line: `ok` is False if something needed is broken, None if it is only worth knowing."""

    what: str
    ok: bool | None
    detail: str


def examine() -> Iterator[Finding]:
    """Yield the findings one by one; a check that itself fails is a finding, not an exception."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": _python,
        "packages": _packages,
        "torch": _torch,
        "dense CRF": _crf,
        "kernel": _kernel,
        "machine": _machine,
        "results": _results,
        "data": _data,
        "weights": _weights,
    }
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # a broken library can raise anything on import
            yield Finding(name, False, " ".join(f"{type(error).__name__}: {error}".split()))


def fast_bfloat16() -> bool:
    """Whether the device that trainings run on has instructions for bfloat16; without, it is emulated."""
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def slow_precision(settings: Mapping[str, object]) -> str:
    """Return a line on parameters whose precision this machine has to emulate, ``""`` if there is none."""
    slow = [name for name, value in settings.items() if value == "bf16-mixed"]
    if not slow or fast_bfloat16():
        return ""
    return f"{', '.join(slow)}: this processor emulates bf16-mixed, 32-true is several times faster on it"


def _project() -> dict:
    return tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _python() -> Iterator[Finding]:
    from packaging.specifiers import SpecifierSet

    version, wanted = ".".join(map(str, sys.version_info[:3])), _project()["requires-python"]
    fits = SpecifierSet(wanted).contains(version)
    yield Finding("python", fits, f"{version} (needs {wanted}), {sys.executable}")


def _packages() -> Iterator[Finding]:
    from packaging.requirements import Requirement

    requirements = [Requirement(line) for line in _project()["dependencies"]]
    wrong = []
    for requirement in requirements:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    remedy = f"; run: make env ({paths.ROOT})" if wrong else ""
    yield Finding("packages", not wrong, (", ".join(wrong) or f"{len(requirements)} as required") + remedy)


def _torch() -> Iterator[Finding]:
    import torch
    import torchvision

    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails if the two builds do not fit
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        where = f"{torch.cuda.device_count()} x {device.name}, {device.total_memory / GIB:.0f} GiB each"
    elif torch.backends.mps.is_available():
        where = "Apple GPU (mps)"
    else:
        where = f"no GPU: CPU with {torch.get_num_threads()} threads"
        where += "" if fast_bfloat16() else ", without bfloat16: keep to precision 32-true"
    yield Finding("torch", True, f"{versions}; {where}")


def _crf() -> Iterator[Finding]:
    from recamlib.method.crf import MissingCrfError, load_densecrf

    try:
        load_densecrf()
    except MissingCrfError as error:
        yield Finding("dense CRF", None, " ".join(str(error).split()))
    else:
        names = importlib.metadata.packages_distributions()["pydensecrf"]  # pip and conda call it differently
        yield Finding("dense CRF", True, f"{names[0]} {importlib.metadata.version(names[0])}")


def _kernel() -> Iterator[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager

    from recamlib.book.run import KERNEL, kernel_environment

    with kernel_environment():
        program = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    # jupyter_client starts this very interpreter for a kernel that only says "python"
    replaced = ("python", "python3", f"python3.{sys.version_info[1]}")
    if program in replaced or (Path(program).exists() and os.path.samefile(program, sys.executable)):
        yield Finding("kernel", True, f"{KERNEL}: {sys.executable}")
    else:
        yield Finding("kernel", False, f"{KERNEL} would start {program}; run: make env")


def _machine() -> Iterator[Finding]:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("cores", None, str(cores))
    free, total = psutil.virtual_memory().available, psutil.virtual_memory().total
    enough = None if free >= _LEAST_MEMORY else False
    yield Finding("memory", enough, f"{free / GIB:.1f} GiB free of {total / GIB:.1f}")


def _results() -> Iterator[Finding]:
    folder = paths.results_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder):
        pass
    free = shutil.disk_usage(folder).free
    yield Finding("results", free >= _LEAST_DISK, f"{folder} is writable, {free / GIB:.0f} GiB free")


def _data() -> Iterator[Finding]:
    from recamlib.data.access import DATASETS, open_images

    for name in DATASETS:
        if name == "hoofed":
            yield Finding("data hoofed", True, "drawn when needed")
            continue
        try:
            images = open_images(name, "train")
        except (RecamError, OSError) as error:
            yield Finding(f"data {name}", None, f"not found: {' '.join(str(error).split())}")
        else:
            yield Finding(f"data {name}", True, f"{len(images.ids)} training images in {paths.data_dir()}")


def _weights() -> Iterator[Finding]:
    folder = paths.weights_dir()
    found = sorted(path.name for path in folder.glob("*") if path.suffix in (".safetensors", ".pth"))
    yield Finding("weights", None, f"{', '.join(found)} in {folder}" if found else f"none in {folder}")
