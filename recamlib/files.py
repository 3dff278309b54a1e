"""Files that are there whole or not at all, JSON that shows damage, and errors that name a full disk."""

import errno
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml
from safetensors import SafetensorError

from recamlib import paths
from recamlib.errors import ResultsError, SettingsError

_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it takes the place of `path` when the block ends, and goes if it fails."""
    stem = f"{path.name}.part-{socket.gethostname()}-"  # those of killed processes are cleared away
    for old in path.parent.glob(f"{stem}*"):
        if not psutil.pid_exists(int(old.name.removeprefix(stem))):
            old.unlink(missing_ok=True)
    part = path.with_name(f"{stem}{os.getpid()}")
    try:
        with storage_errors():
            yield part
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a full disk, a read-only or a vanished results folder into a `ResultsError` that says so."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        results = paths.results_dir()
        name, reason = getattr(error, "filename", None), getattr(error, "strerror", None) or error
        inside = isinstance(name, str | Path) and Path(name).is_relative_to(results)
        if not (inside or getattr(error, "errno", None) in _STORAGE or "os error" in str(error)):
            raise
        raise ResultsError(
            f"{name or f'something in {results}'} cannot be written or read ({reason}); make room, change "
            "its permissions or choose another folder with RECAM_RESULTS: what is complete stays there, the "
            "same run goes on from it"
        ) from error


def write_sealed(path: Path, content: dict[str, Any], *, default: Callable[[Any], Any] | None = None) -> None:
    """Write JSON whole, with a digest of what it says; `default` turns other objects into plain ones."""
    plain = json.loads(json.dumps(content, default=default))
    with whole_file(path) as part:
        part.write_text(json.dumps({**plain, "digest": _digest(plain)}, indent=1) + "\n", encoding="utf-8")


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what `write_sealed` wrote; a missing or damaged file is a `ResultsError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path} cannot be read ({error}); delete it and run what made it again") from None
    if not isinstance(content, dict) or content.pop("digest", None) != _digest(content):
        raise ResultsError(f"{path} is not as it was written; delete it and run what made it again")
    return content


def read_yaml(path: Path) -> Any:
    """Return what a YAML file of plain values says; a missing or damaged file is a `SettingsError`."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise SettingsError(f"{path} cannot be read as YAML: {' '.join(str(error).split())[:300]}") from None


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
