"""Get one file over HTTP: go on where it stopped, check the sum, never leave half a file under its name."""

import hashlib
import http.client
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tqdm.auto import tqdm

from recamlib.errors import DataError

_CHUNK = 1 << 20
_TIMEOUT = 30  # seconds without a byte
_LOST = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError)


@dataclass(frozen=True)
class Archive:
    """A file to get: its name, address, length and MD5, and its rough length after unpacking (bytes)."""

    file: str
    url: str
    bytes: int
    unpacked: int
    md5: str

    def __post_init__(self) -> None:
        texts, numbers = (self.file, self.url, self.md5), (self.bytes, self.unpacked)
        if not all(isinstance(t, str) for t in texts) or not all(type(n) is int and n >= 0 for n in numbers):
            raise DataError(f"{self} is no archive: file, url and md5 are texts, lengths whole numbers")
        if Path(self.file).name != self.file or self.file in ("", "..") or not self.file.isprintable():
            raise DataError(f"{self.file!r} is no file name without folders")


def download(
    archive: Archive, folder: Path, *, tries: int = 6, wait: float = 2.0, progress: bool = True
) -> Path:
    """Get an archive into a folder.

    What has arrived is kept as ``NAME.part``; a lost connection, and a later call, go on from there. The file
    gets its name only when its MD5 is right.

    Parameters
    ----------
    archive
        What to get.
    folder
        Where to; made if it is not there.
    tries
        Attempts in a row that may bring nothing new before giving up.
    wait
        Seconds before the second attempt, doubled each time.
    progress
        Show a progress bar.

    Raises
    ------
    DataError
        If the server cannot be reached or refuses, or the MD5 is wrong.
    """
    if urlsplit(archive.url).scheme not in ("http", "https"):
        raise DataError(f"{archive.url} is no web address; use one that starts with https:// or http://")
    folder.mkdir(parents=True, exist_ok=True)
    done, part = folder / archive.file, folder / f"{archive.file}.part"
    if done.is_file() and md5(done, progress=progress) == archive.md5:
        return done
    failures = 0
    with tqdm(total=archive.bytes, unit="B", unit_scale=True, desc=archive.file, disable=not progress) as bar:
        while True:
            before = _length(part)
            bar.n = before
            try:
                if _fetch_some(archive, part, bar):
                    break
                reason = "the connection ended early"
            except urllib.error.HTTPError as error:
                if error.code not in (429, 500, 502, 503, 504):
                    if error.code == 416:  # what has arrived is no part of what the server has
                        part.unlink(missing_ok=True)
                    answer = f"{archive.url} answers {error.code} {error.reason}"
                    raise DataError(f"{answer}; see data/checksums.yml for the address") from None
                reason = f"the server answers {error.code}"
            except DataError:
                raise
            except _LOST as error:
                reason = str(getattr(error, "reason", error))
            failures = 0 if _length(part) > before else failures + 1
            if failures >= tries:
                kept = f"{_length(part):,} bytes are kept"
                raise DataError(
                    f"{archive.url} cannot be fetched ({reason}); {kept}, run the same command again"
                )
            time.sleep(wait * 2 ** max(0, failures - 1))
    found = md5(part, progress=progress)
    if found != archive.md5:
        part.unlink()
        raise DataError(
            f"{archive.url} arrived with MD5 {found}, expected {archive.md5}; it was deleted, "
            "run the same command again, and if that does not help ask whether the file has changed"
        )
    part.replace(done)
    return done


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fetch_some(archive: Archive, part: Path, bar: tqdm) -> bool:
    """Append what the server sends to the part; say whether that is all of it."""
    start = _length(part)
    if start > archive.bytes:
        part.unlink()
        start = 0
    if start == archive.bytes:
        return True
    # `identity` keeps a proxy from compressing, which would shift the offsets.
    headers = {"User-Agent": "recam", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    request = urllib.request.Request(archive.url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        went_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(
            f"bytes {start}-"
        )
        total = start * went_on + int(answer.headers.get("Content-Length") or archive.bytes - start * went_on)
        if total != archive.bytes:
            came = f"{archive.url} has {total:,} bytes, expected {archive.bytes:,}"
            raise DataError(f"{came}; it is not the official file, see data/checksums.yml for the address")
        if start and not went_on:
            start = bar.n = 0  # the server sends the whole file again
        with part.open("ab" if went_on else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
                if file.tell() > archive.bytes:
                    break
    length = _length(part)
    if length > archive.bytes:
        part.unlink()
        raise DataError(
            f"{archive.url} is longer than {archive.bytes:,} bytes, so it is not the official file"
        )
    return length == archive.bytes


def md5(path: Path, *, progress: bool = False) -> str:
    """Return the MD5 of a file in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    with (
        path.open("rb") as file,
        tqdm(
            total=path.stat().st_size,
            unit="B",
            unit_scale=True,
            desc=f"checking {path.name}",
            disable=not progress,
        ) as bar,
    ):
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
