"""What the evaluation server of PASCAL VOC expects of an archive of masks, and whether one is so."""

import gzip
import io
import re
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from recamlib.data.labels import VOC12, LabelSpace
from recamlib.errors import DataError, nearest

#: comp5 is for training on the images of VOC alone, comp6 for training on any others as well.
COMPETITIONS = ("comp5", "comp6")
FOLDER = "results/VOC2012/Segmentation/{}_test_cls"
_PLACE = re.compile(FOLDER.format("(comp[56])") + r"/([^/]+)\.png")
_FOLDERS = {"/".join(FOLDER.format(c).split("/")[:n]) for c in COMPETITIONS for n in range(1, 5)}
_PIECE = 2**13  # bytes read at once; the header of an entry may claim that gigabytes of name follow

Sizes = Callable[[str], tuple[int, int]] | Mapping[str, tuple[int, int]]


def check_submission(
    archive: Path, *, ids: Sequence[str], sizes: Sizes, space: LabelSpace = VOC12
) -> list[str]:
    """Return what is wrong with an archive for the evaluation server, one sentence each; empty if nothing.

    Any archive may be handed in, from anybody: nothing is unpacked to disk, no link is followed, and no more
    is read than masks of these sizes can need.

    Parameters
    ----------
    archive
        Tar file, compressed by gzip or not.
    ids
        The whole list of the split.
    sizes
        Gives ``(H, W)`` of an image by its id, a function or a dictionary.
    space
        Label space; its palette is expected in the files.

    Raises
    ------
    DataError
        If the archive is missing, the list is empty, or the size of an image is not to be had.
    """
    size = lookup(sizes)
    shapes = {id: size(id) for id in listed(ids)}
    findings: list[str] = []
    seen: dict[str, str] = {}  # id: competition of its first file
    try:
        with Path(archive).open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            file = _Limited(gzip.GzipFile(fileobj=raw) if packed else raw)
            for finding in _walk(file, shapes, seen, space):
                findings.append(finding)  # one by one: those before an error count
    except FileNotFoundError:
        raise DataError(f"{archive} is missing; write it with `recam submit write`") from None
    except _Unread as stop:
        return [*findings, f"{stop}; the rest was not read"]
    except (tarfile.TarError, zlib.error, EOFError, ValueError, OSError, RecursionError) as error:
        return [*findings, f"{archive} cannot be read to its end ({error}); write it again"]
    found = sorted(set(seen.values()))
    if len(found) > 1:
        findings.append(f"{archive} mixes {' and '.join(found)}; put all files into one of the two folders")
    place = FOLDER.format(found[0] if found else "comp6")
    return findings + [f"{place}/{id}.png is missing" for id in shapes if id not in seen]


class _Unread(tarfile.TarError):
    """Reading on would cost more than a mask can need."""


class _Limited:
    """File object that reads little at a time."""

    def __init__(self, file: io.BufferedIOBase) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _PIECE:
            raise _Unread("the header of an entry is far too long")
        return self._file.read(size)


def _walk(file: _Limited, shapes: Mapping, seen: dict[str, str], space: LabelSpace) -> Iterator[str]:
    """Yield what is wrong with each entry of an archive, noting in `seen` which masks are there."""
    largest = 2**16 + 2 * max(h * w for h, w in shapes.values())  # bytes; no palette PNG needs more
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for count, entry in enumerate(tar):
            name = entry.name if entry.name.isprintable() else ascii(entry.name)
            name = name if len(name) < 200 else f"{name[:200]}..."
            if not 0 <= entry.size <= largest:
                raise _Unread(f"{name} has {entry.size:,} bytes, a mask at most {largest:,}")
            if count >= 2 * len(shapes) + 1000:
                raise _Unread(f"{name} is one entry too many, as the list has {len(shapes):,} ids")
            fault = _place_fault(entry, shapes, seen)
            if fault:
                yield f"{name} {fault}"
            elif not entry.isdir():
                competition, id = _PLACE.fullmatch(entry.name).groups()
                seen[id] = competition
                file.seek(entry.offset_data)
                pieces = range(0, entry.size, _PIECE)
                data = b"".join(file.read(min(_PIECE, entry.size - at)) for at in pieces)
                yield from (f"{name} {fault}" for fault in _png_faults(data, shapes[id], space))
        file.seek(tar.offset)
    # a tar file ends with zeros; a damaged header in the middle looks like the end, too
    for _ in range(2**20 // _PIECE):
        rest = file.read(_PIECE)
        if not rest:
            return
        if any(rest):
            break
    yield "the archive goes on after its end, so an entry is damaged or something is hidden; write it again"


def _place_fault(entry: tarfile.TarInfo, known: Mapping, seen: Mapping) -> str:
    """Say what is wrong with the kind or the path of an entry; empty if nothing."""
    parts = re.split(r"[/\\]", entry.name)
    if parts[0] == "" or ".." in parts or ":" in parts[0]:
        return "leads out of the folder it is unpacked in; remove it"
    if entry.isdir():
        return "" if entry.name in _FOLDERS else "is a folder that the server does not look into; remove it"
    if entry.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or entry.issparse():
        return "is a link or a device, a plain file was expected"
    match = _PLACE.fullmatch(entry.name)
    if not match:
        return f"does not lie where the server looks, {FOLDER.format('comp6')}/ID.png (or comp5)"
    if match[2] not in known:
        return f"is not on the list{nearest(match[2], list(known)[:2000])}"
    return "is there twice" if match[2] in seen else ""


def _png_faults(data: bytes, shape: tuple[int, int], space: LabelSpace) -> Iterator[str]:
    """Yield what is wrong with a mask file; pixels are decoded only if the header gives the right size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.open(io.BytesIO(data), formats=["PNG"]).verify()  # checksums; an image is spent by it
            image = Image.open(io.BytesIO(data), formats=["PNG"])
        if image.mode != "P":
            yield f"is stored in mode {image.mode}; a PNG of palette indices (mode P) was expected"
            return
        fault = _size_fault((image.height, image.width), shape)
        if fault:
            yield fault
            return
        colours = np.reshape(image.getpalette("RGB") or [], (-1, 3))
        pixels = np.array(image)
    except Image.UnidentifiedImageError:
        yield "is no readable PNG"
        return
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
        yield f"does not decode ({error}); it is damaged"
        return
    faults = [*array_faults(pixels, shape, space)]
    yield from faults
    count = min(len(colours), space.with_background)
    if not np.array_equal(colours[:count], space.palette[:count]) or (not faults and pixels.max() >= count):
        yield "has another palette than the devkit's; write it with `recam submit write`"


def array_faults(mask: np.ndarray, shape: tuple[int, int], space: LabelSpace) -> Iterator[str]:
    """Yield what is wrong with the pixels of a predicted mask."""
    if mask.dtype != np.uint8:
        yield f"has the type {mask.dtype}; uint8 was expected"
    elif mask.shape != tuple(shape):
        yield _size_fault(mask.shape, shape)
    elif mask.max() > len(space):
        value, count = mask.max(), int((mask > len(space)).sum())
        name = " (ignore)" if value == space.ignore else ""
        known = f"a prediction has 0 to {len(space)} only, so give every pixel a class"
        yield f"holds the value {value}{name}, {count} pixels in all are above {len(space)}; {known}"


def _size_fault(shape: tuple[int, ...], expected: tuple[int, int]) -> str:
    """Say that two sizes ``(H, W)`` differ, and whether the sides are swapped; empty if they are equal."""
    height, width = expected
    if tuple(shape) == (height, width):
        return ""
    hint = "resize the scores to the image before taking the best class"
    if tuple(shape) == (width, height):
        hint = "the sides are swapped, so transpose the mask, or do not turn images as their EXIF tag says"
    return f"has shape {tuple(shape)}, its image ({height}, {width}); {hint}"


def listed(ids: Sequence[str]) -> tuple[str, ...]:
    """Return the list if every id is a plain file name and stands there once."""
    ids = tuple(ids)
    if not ids or len(set(ids)) < len(ids):
        raise DataError("the list of ids is empty or names one twice; take it from TestImages")
    for id in ids:
        if not id.isprintable() or re.search(r"[/\\:]", id) or id in (".", ".."):
            raise DataError(f"{id!r} is no image id; an id is a file name without folders and suffix")
    return ids


def lookup(sizes: Sizes) -> Callable[[str], tuple[int, int]]:
    """Return sizes as a function of the id."""

    def size(id: str) -> tuple[int, int]:
        if id not in sizes:
            raise DataError(f"no size is given for image {id!r}; give one for every id of the list")
        return sizes[id]

    return sizes if callable(sizes) else size
