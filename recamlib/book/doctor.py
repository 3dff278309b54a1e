"""Look at everything a run needs: versions, device, kernel, space, data, weights."""

import importlib.metadata
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from recamlib import paths
from recamlib.errors import RecamError

GIB = 2**30
Line = tuple[str, bool | None, str]  # what; False if something needed is broken, None if only worth knowing


def examine() -> Iterator[Line]:
    """Yield the lines one by one; a check that itself fails is a line, not an exception."""
    checks: dict[str, Callable[[], Line]] = {
        "packages": _packages, "torch": _torch, "dense CRF": _crf, "kernel": _kernel, "memory": _memory,
        "results": _results, "weights": _weights,
    }  # fmt: skip
    for name, check in checks.items():
        try:
            yield check()
        except Exception as error:  # a broken library can raise anything on import
            yield name, False, " ".join(f"{type(error).__name__}: {error}".split())
    from recamlib.data.access import DATASETS, open_images

    for name in DATASETS:
        try:
            yield f"data {name}", True, f"{len(open_images(name, 'train').ids):,} training images"
        except (RecamError, OSError) as error:
            yield f"data {name}", None, f"not found: {' '.join(str(error).split())}"


def fast_bfloat16() -> bool:
    """Whether the device that trainings run on has instructions for bfloat16; without, it is emulated."""
    import torch

    if torch.cuda.is_available() or torch.backends.mps.is_available():
        return True
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def slow_precision(settings: Mapping[str, Mapping[str, object]]) -> str:
    """Return a line on stages whose precision this machine has to emulate, ``""`` if there is none."""
    slow = [name for name, block in settings.items() if block.get("precision") == "bf16-mixed"]
    if not slow or fast_bfloat16():
        return ""
    return f"{', '.join(slow)}: this processor emulates bf16-mixed, 32-true is several times faster on it"


def _packages() -> Line:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [Requirement(line) for line in project["dependencies"]]
    python, wrong = ".".join(map(str, sys.version_info[:3])), []
    if not SpecifierSet(project["requires-python"]).contains(python):
        wrong.append(f"python {python} is not {project['requires-python']}")
    for wanted in needed:
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{wanted} is missing")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} {version} is not {wanted.specifier}")
    if wrong:
        return "packages", False, f"{', '.join(wrong)}; run: make env ({paths.ROOT})"
    return "packages", True, f"python {python}, {len(needed)} packages as required, {sys.executable}"


def _torch() -> Line:
    import torch
    import torchvision

    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)  # fails if the two builds do not fit
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        where = f"{torch.cuda.device_count()} x {device.name}, {device.total_memory / GIB:.0f} GiB each"
    elif torch.backends.mps.is_available():
        where = "Apple GPU (mps)"
    else:
        where = f"no GPU: CPU with {torch.get_num_threads()} threads"
        where += "" if fast_bfloat16() else ", without bfloat16: keep to precision 32-true"
    return "torch", True, f"torch {torch.__version__}, torchvision {torchvision.__version__}; {where}"


def _crf() -> Line:
    from recamlib.method.crf import MissingCrfError, load_densecrf

    try:
        load_densecrf()
    except MissingCrfError as error:
        return "dense CRF", None, " ".join(str(error).split())
    names = importlib.metadata.packages_distributions()["pydensecrf"]  # pip and conda call it differently
    return "dense CRF", True, f"{names[0]} {importlib.metadata.version(names[0])}"


def _kernel() -> Line:
    from jupyter_client.kernelspec import KernelSpecManager

    from recamlib.book.run import KERNEL, kernel_environment

    with kernel_environment():
        program = KernelSpecManager().get_kernel_spec(KERNEL).argv[0]
    # jupyter_client starts this very interpreter for a kernel that only says "python"
    replaced = ("python", "python3", f"python3.{sys.version_info[1]}")
    if program in replaced or (Path(program).exists() and os.path.samefile(program, sys.executable)):
        return "kernel", True, f"{KERNEL}: {sys.executable}"
    return "kernel", False, f"{KERNEL} would start {program}; run: make env"


def _memory() -> Line:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = psutil.virtual_memory()
    enough = None if found.available >= 3 * GIB else False
    return "memory", enough, f"{found.available / GIB:.1f} GiB free of {found.total / GIB:.1f}, {cores} cores"


def _results() -> Line:
    folder = paths.results_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder):
        pass
    free = shutil.disk_usage(folder).free
    # a quick report's stored stages and the book, with room to spare
    return "results", free >= 2 * GIB, f"{folder} is writable, {free / GIB:.0f} GiB free"


def _weights() -> Line:
    folder = paths.weights_dir()
    found = sorted(path.name for path in folder.glob("*") if path.suffix in (".safetensors", ".pth"))
    return "weights", None, f"{', '.join(found)} in {folder}" if found else f"none in {folder}"
