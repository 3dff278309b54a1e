"""The cache of stages: exca's, with a checksum on every entry, and nothing that runs when it is read.

exca itself checks nothing: a flipped byte in a stored array would be used as it is, a short file would raise
whatever numpy raises, and an index line may ask for a pickle. Here an entry that is damaged is named,
forgotten and made again; an index line that names another loader than those of arrays and JSON is refused.
"""

import json
import math
import os
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from exca.cachedict import CacheDict, DumpContext
from exca.cachedict.core import DumpInfo, JsonlReader
from exca.cachedict.handlers import MemmapArray

from recamlib.errors import ResultsError
from recamlib.files import storage_errors

_LOADERS = {"Auto", "Json", "MemmapArray"}
_PLACE = re.compile(r"data/[^/\\\0]+")


class DamagedEntry(ResultsError):
    """A cached entry is not what was stored."""


def checksum(key: str, value: Any) -> int:
    """Return the CRC-32 of a key and a value of dictionaries, lists, plain values and arrays.

    Examples
    --------
    >>> one, other = ({"a": np.array([n]), "b": (1.5, None)} for n in (1, 2))
    >>> checksum("x", one) == checksum("x", {"b": [1.5, None], "a": np.array([1])})
    True
    >>> checksum("x", one) in (checksum("y", one), checksum("x", other))
    False
    """
    return zlib.crc32(json.dumps([key, _outline(value)], sort_keys=True).encode())


def _outline(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [str(value.dtype), value.shape, zlib.crc32(np.ascontiguousarray(value).data)]
    if isinstance(value, dict):
        return {name: _outline(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_outline(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value  # as JSON keeps it


class _Array(MemmapArray):
    """Reads an array into memory: a file that shrinks under a memory map would kill the process."""

    @classmethod
    def __load_from_info__(
        cls, ctx: DumpContext, filename: str, offset: int, shape: Sequence[int], dtype: str
    ) -> np.ndarray:
        kind, count = np.dtype(dtype), math.prod(shape)
        if kind.kind not in "biuf":
            raise DamagedEntry(f"an array of type {kind} is refused")
        with (ctx.folder / filename).open("rb") as file:
            if not (count > 0 and 0 <= offset <= os.fstat(file.fileno()).st_size - count * kind.itemsize):
                raise DamagedEntry(f"{filename} is too short")
            return np.fromfile(file, dtype=kind, count=count, offset=offset).reshape(shape)


class _Reading(DumpContext):
    """Loads arrays and JSON of its own folder, and nothing else."""

    @staticmethod
    def _lookup(name: str) -> Any:
        if name not in _LOADERS:
            raise DamagedEntry(f"the loader {name!r} is refused, it might run code")
        return _Array if name == "MemmapArray" else DumpContext._lookup(name)

    def _resolve_type(self, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if "filename" in info and not _PLACE.fullmatch(str(info["filename"])):
            raise DamagedEntry(f"the file {info['filename']!r} is not one of the cache's own")
        return super()._resolve_type(info)

    def delete(self, info: Any) -> None:
        """Do nothing: arrays share files, which exca removes with their last entry."""


class _Index(JsonlReader):
    """An index file in which a damaged line costs that line alone."""

    def read(self) -> dict[str, DumpInfo]:
        """Return the entries; lines that are damaged are blanked, which is how exca marks deleted ones."""
        try:
            found = super().read()
            if not self._ends_badly():
                return found
        except (RuntimeError, LookupError, AttributeError, TypeError, ValueError):
            pass
        self._mend()
        self._last = 0
        return super().read()

    def _ends_badly(self) -> bool:
        """Return whether what was left unread is a whole line; half a line is being written, or never was."""
        try:
            with self._fp.open("rb") as file:
                file.seek(self._last)
                return file.readline().endswith(b"\n")
        except OSError:
            return False

    def _mend(self) -> None:
        dropped = 0
        with storage_errors(), self._fp.open("rb+") as file:
            lines = file.readlines()
            start = 0
            for line in lines:
                if line.endswith(b"\n") and line.strip() and not line.startswith(b" ") and not _entry(line):
                    file.seek(start)
                    file.write(b" " * (len(line) - 1))
                    dropped += 1
                start += len(line)
        print(f"{self._fp} has {dropped} damaged lines; what they stood for is made again")


def _entry(line: bytes) -> bool:
    """Return whether a line of an index stands for an entry."""
    try:
        return isinstance(json.loads(line)["#key"], str)
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


class _Indexes(dict):
    """Index readers by file name, all of them `_Index`."""

    def setdefault(self, name: str, reader: JsonlReader) -> JsonlReader:
        return super().setdefault(name, _Index(reader._fp))


class CheckedCache(CacheDict):
    """exca's cache; every value is stored with its checksum and read back only if it still has it.

    Entries from before there were checksums are told by their record of cost, and read unchecked.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._dumper, self._jsonl_readers = _Reading(self.folder), _Indexes()

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, {"item": value, "sum": checksum(key, value)})

    def __getitem__(self, key: str) -> Any:
        try:
            stored = super().__getitem__(key)
            if stored.keys() == {"item", "sum"}:
                if checksum(key, stored["item"]) == stored["sum"]:
                    return stored["item"]
            elif "cost" in stored and "item" not in stored:
                return stored
            reason: Any = "it does not have its checksum"
        except KeyError:
            reason = "it is gone"
        except (ResultsError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            reason = error
        raise DamagedEntry(f"entry {key!r} of {self.folder} is damaged: {reason}") from None

    def forget(self, keys: Sequence[str]) -> None:
        """Remove entries, those that are gone already as well."""
        with self.write():
            for key in keys:
                if key in self:
                    del self[key]
