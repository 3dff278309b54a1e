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
    """Yield a path to write to; it takes the place of `path` when the block ends, and goes if it fails.

    What an earlier process of this machine left when it was killed is cleared away.
    """
    stem = f"{path.name}.part-{socket.gethostname()}-"
    for old in path.parent.glob(f"{stem}*"):
        if not psutil.pid_exists(int(old.name.removeprefix(stem))):
            old.unlink(missing_ok=True)
    part = path.with_name(f"{stem}{os.getpid()}")
    try:
        with storage_errors():
            yield part
            os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn a full disk, a read-only or a vanished results folder into a `ResultsError` that says so."""
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE and not _in_results(error.filename):
            raise
        raise _cannot_store(error.strerror or str(error), error.filename) from error
    except SafetensorError as error:
        if "os error" not in str(error):
            raise
        raise _cannot_store(str(error), None) from error


def _in_results(name: Any) -> bool:
    return isinstance(name, str | Path) and Path(name).is_relative_to(paths.results_dir())


def _cannot_store(reason: str, name: Any) -> ResultsError:
    where = f"{name}" if name else f"something in {paths.results_dir()}"
    return ResultsError(
        f"{where} cannot be written or read ({reason}); make room, change its permissions or choose another "
        "folder with RECAM_RESULTS: what is complete is kept, the same run goes on from there"
    )


def write_sealed(path: Path, content: dict[str, Any], *, default: Callable[[Any], Any] | None = None) -> None:
    """Write JSON whole, with a digest of what it says; `default` turns other objects into plain ones."""
    plain = json.loads(json.dumps(content, default=default))
    with whole_file(path) as part:
        part.write_text(json.dumps({**plain, "digest": _digest(plain)}, indent=1) + "\n", encoding="utf-8")


def read_sealed(path: Path) -> dict[str, Any]:
    """Return what `write_sealed` wrote.

    Raises
    ------
    ResultsError
        If the file is missing, is not JSON, or is not what was written.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path} cannot be read ({error}); delete it and run what made it again") from None
    if not isinstance(content, dict) or content.pop("digest", None) != _digest(content):
        raise ResultsError(f"{path} is not as it was written; delete it and run what made it again")
    return content


class _PlainYaml(yaml.SafeLoader):
    """YAML that is read quickly and fits into memory: no aliases, no deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # a few lines of them can stand for any number of values
            raise yaml.YAMLError(f"an alias (*name) is refused{self.peek_event().start_mark}")
        if self.depth == 20:
            raise yaml.YAMLError(f"more than {self.depth} levels are refused{self.peek_event().start_mark}")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_yaml(path: Path) -> Any:
    """Return what a YAML file of plain values says.

    Raises
    ------
    SettingsError
        If the file is missing, is not YAML, or uses aliases.
    """
    try:
        return _PlainYaml(path.read_text(encoding="utf-8")).get_single_data()
    except (OSError, yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} cannot be read as YAML: {' '.join(str(error).split())[:300]}") from None


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
