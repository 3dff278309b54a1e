"""Execute notebooks: parameters are checked first, and nothing half-written is left behind."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any
from unittest.mock import patch

import psutil

from recamlib.book.parameters import DEFAULT, find_notebook, profile_parameters
from recamlib.errors import RecamError
from recamlib.paths import ROOT, book_dir, data_dir, results_dir, weights_dir

# Linux's allocator hands large blocks back and gets them anew, page by page, at every step: held, a step
# takes less of the processor. What the user sets wins.
ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456",
}  # fmt: skip
# Threads that wait sleep: on a busy machine, threads that spin cost thirty times their share.
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}


class NotebookError(RecamError):
    """A cell of a notebook failed, or its kernel died."""


def executed_dir() -> Path:
    return book_dir() / "executed"


def run_notebook(
    which: str, *, profile: str = DEFAULT, parameters: Mapping[str, Any] | None = None,
    output_dir: Path | None = None, folder: Path | None = None,
) -> Path:  # fmt: skip
    """Execute one notebook and return the path of the executed copy.

    The copy appears in `output_dir` (``book/executed``) only when the last cell is done; after a failed cell
    what was executed is put beside it as ``NAME.failed.ipynb``. `parameters` win over the profile's.
    """
    notebook = find_notebook(which, folder).resolve()
    checked = profile_parameters(profile, notebook.stem, extra=parameters, folder=folder)
    target = (output_dir or executed_dir()).resolve() / notebook.name
    failed = target.with_name(f"{notebook.stem}.failed.ipynb")
    target.parent.mkdir(parents=True, exist_ok=True)
    for old in target.parent.glob(".running-*-*"):  # of runs that were killed
        if not psutil.pid_exists(int(old.name.split("-")[1])):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".running-{os.getpid()}-", dir=target.parent) as temporary:
        partial = Path(temporary) / notebook.name
        try:
            _execute(notebook, partial, checked)
        except NotebookError as error:
            if partial.exists():
                partial.replace(failed)
                raise NotebookError(f"{error} (stored: {failed})") from error
            raise
        partial.replace(target)
    failed.unlink(missing_ok=True)
    return target


def _execute(notebook: Path, output: Path, parameters: dict[str, Any]) -> None:
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    try:
        with kernel_environment():
            execute_notebook(
                str(notebook), str(output), parameters=parameters, cwd=str(notebook.parent),
                kernel_name="python3",  # the native kernel of the environment this runs in
                progress_bar={"desc": notebook.stem, "leave": False, "disable": not sys.stderr.isatty()},
                extra_arguments=["--IPKernelApp.log_level=50"],  # one that is stopped calls it an error
            )  # fmt: skip
    except PapermillExecutionError as error:
        where = f"cell {error.cell_index + 1}, In [{error.exec_count}]"
        reason = shorten(f"{error.ename}: {error.evalue}", 600)
        raise NotebookError(f"{notebook.stem}, {where}: {reason}") from error
    except (DeadKernelError, CellTimeoutError, NoSuchKernel) as error:
        hint = "; was it killed for memory?" if isinstance(error, DeadKernelError) else ""
        raise NotebookError(f"{notebook.stem}: {shorten(str(error), 600)}{hint}") from error


@contextmanager
def kernel_environment() -> Iterator[None]:
    """Give kernels started inside absolute RECAM_* folders, this checkout's library and this environment."""
    wanted = {
        "RECAM_DATA": str(data_dir()), "RECAM_WEIGHTS": str(weights_dir()),
        "RECAM_RESULTS": str(results_dir()),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "JUPYTER_PREFER_ENV_PATH": "1",  # a kernel "python3" of the user must not win over ours
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # no debugger warning at each kernel start
        "TQDM_DISABLE": "1",  # bars are for people who watch; a stored copy would keep their debris
        **{name: os.environ.get(name, value) for name, value in (ALLOCATOR | WAITING).items()},
    }  # fmt: skip
    with patch.dict(os.environ, wanted):
        os.environ.pop("JUPYTER_PATH", None)
        yield
