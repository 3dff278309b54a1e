"""Unpack archives so that nothing lands outside the folder, and the VOC masks of SBD."""

import io
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
import scipy.io
from tqdm.auto import tqdm

from recamlib.data.images import write_mask
from recamlib.data.labels import VOC12
from recamlib.errors import DataError

_SBD = "benchmark_RELEASE/dataset"
_SBD_FILE = 2**24  # bytes; the lists and masks of SBD are much shorter
_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError,
    LookupError, RuntimeError, NotImplementedError, OverflowError, struct.error,
)  # fmt: skip


def need_space(folder: Path, needed: int, what: str) -> None:
    """Raise a `DataError` if a folder's disk has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DataError(
            f"{what} needs {needed / 1e9:.1f} GB but {folder} has {free / 1e9:.1f} GB free; "
            "make room or choose another disk with RECAM_DATA"
        )


def unpack(archive: Path, folder: Path, *, progress: bool = True) -> None:
    """Unpack a tar or zip archive.

    Raises
    ------
    DataError
        If the archive is damaged, too large for the disk, or has a member that would land outside `folder`.
    """
    try:
        if archive.suffix == ".zip":
            _unpack_zip(archive, folder, progress)
        else:
            with tarfile.open(archive) as tar:
                for member in tqdm(
                    tar, desc=f"unpacking {archive.name}", unit=" files", disable=not progress
                ):
                    need_space(folder, member.size, f"{member.name} of {archive.name}")
                    tar.extract(member, folder, filter="data")
    except tarfile.FilterError as error:
        raise DataError(f"{archive} has an unsafe member ({error}); do not use it") from None
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); delete it and fetch it again") from None


def _unpack_zip(archive: Path, folder: Path, progress: bool) -> None:
    with zipfile.ZipFile(archive) as zipped:
        members = zipped.infolist()
        for member in members:
            name = PurePosixPath(member.filename.replace("\\", "/"))
            link = stat.S_ISLNK(member.external_attr >> 16)
            if not name.parts or name.is_absolute() or ".." in name.parts or ":" in name.parts[0] or link:
                raise DataError(f"{archive} has an unsafe member {member.filename!r}; do not use it")
        need_space(folder, sum(member.file_size for member in members), f"unpacking {archive.name}")
        for member in tqdm(members, desc=f"unpacking {archive.name}", unit=" files", disable=not progress):
            zipped.extract(member, folder)


def read_sbd_mask(content: bytes, name: str) -> np.ndarray:
    """Return the mask in a class file of SBD, shape ``(H, W)``, uint8.

    Parameters
    ----------
    content
        A MATLAB file with ``GTcls.Segmentation``; numbers only, nothing in it is run.
    name
        What to call it in messages.
    """
    try:
        content = scipy.io.loadmat(io.BytesIO(content), variable_names=["GTcls"])
        mask = np.asarray(content["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # the MATLAB reader fails in any number of ways
        raise DataError(f"{name} is not a class file of SBD ({error!r}); fetch the archive again") from None
    if mask.ndim != 2 or mask.dtype.kind not in "ui" or mask.max(initial=0) > len(VOC12):
        raise DataError(f"{name} is not a mask of the {len(VOC12)} VOC classes; fetch the archive again")
    return mask.astype(np.uint8)


def unpack_sbd(
    archive: Path, folder: Path, keep: Callable[[str], bool], *, progress: bool = True
) -> tuple[str, ...]:
    """Write the masks of the SBD archive as palette PNG files.

    Parameters
    ----------
    archive
        ``benchmark.tgz``.
    folder
        Where the PNG files go.
    keep
        Says of an id whether its mask is wanted.

    Returns
    -------
    Ids of SBD's own two lists together, sorted.
    """
    listed, written = set(), set()
    try:
        with tarfile.open(archive) as tar:
            for member in tqdm(tar, desc=f"masks of {archive.name}", unit=" files", disable=not progress):
                path = PurePosixPath(member.name)
                if not member.isfile() or str(path.parent) not in (_SBD, f"{_SBD}/cls"):
                    continue
                if member.size > _SBD_FILE:
                    raise DataError(f"{archive}: {member.name} is far too long; do not use it")
                if path.name in ("train.txt", "val.txt"):
                    listed.update(tar.extractfile(member).read().decode("ascii").split())
                elif path.suffix == ".mat" and keep(path.stem):
                    mask = read_sbd_mask(tar.extractfile(member).read(), member.name)
                    write_mask(folder / f"{path.stem}.png", mask, VOC12.palette)
                    written.add(path.stem)
    except DataError:
        raise
    except _DAMAGE as error:
        raise DataError(f"{archive} cannot be unpacked ({error}); delete it and fetch it again") from None
    lost = sorted(id for id in listed if keep(id) and id not in written)
    if not listed or lost:
        what = f"the mask of {lost[0]}" if lost else "its lists"
        raise DataError(f"{archive} lacks {what}; delete it and fetch it again")
    return tuple(sorted(listed))
