"""Get the official data sets: VOC 2012, the masks of SBD, COCO 2014."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from recamlib import paths
from recamlib.data._download import Archive, download
from recamlib.data._unpack import need_space, unpack, unpack_sbd
from recamlib.data.voc import devkit, list_file, read_ids
from recamlib.errors import DataError, SettingsError, nearest
from recamlib.files import read_yaml

FETCHABLE = ("voc12", "sbd", "coco14")


def archives(name: str, *, sources: Path | None = None) -> tuple[Archive, ...]:
    """Return the archives of a data set as ``data/checksums.yml`` (or another such file) lists them."""
    if name == "hoofed":
        raise SettingsError("hoofed is drawn, not fetched; `recam data make` writes it to files")
    if name not in FETCHABLE:
        raise SettingsError(
            f"cannot fetch {name!r}{nearest(name, FETCHABLE)}; choose one of {', '.join(FETCHABLE)}"
        )
    path = sources or paths.ROOT / "data" / "checksums.yml"
    try:
        return tuple(Archive(**row) for row in read_yaml(path)[name])
    except (SettingsError, LookupError, TypeError) as error:
        raise DataError(
            f"{path} does not list the archives of {name} ({error!r}); restore the file"
        ) from None


@contextmanager
def _workshop(root: Path) -> Iterator[Path]:
    """Make a folder on the same disk for unpacking, and clear it away whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Put a finished folder in its place in one step."""
    if not source.is_dir():
        raise DataError(f"the archive has no folder {source.name}; delete it and fetch it again")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def _target(name: str, archive: Archive, root: Path) -> Path:
    """Return what is there once an archive has been unpacked."""
    if name == "voc12":
        return root / "VOCdevkit" / "VOC2012"
    if name == "sbd":
        return devkit(root) / "ImageSets" / "Segmentation" / "train_aug.txt"
    return root / "coco14" / ("annotations" if archive.file.startswith("annotations") else archive.file[:-4])


def _build_sbd(archive: Path, root: Path, *, progress: bool) -> None:
    """Write ``SegmentationClassAug`` and the list ``train_aug``.

    The list is VOC ``train`` and both lists of SBD without VOC ``val``: 10,582 images of the official sets.
    """
    kit = devkit(root)
    train, val = (read_ids(list_file(kit, split)) for split in ("train", "val"))
    official, forbidden = set(train) | set(val), set(val)
    with _workshop(root) as folder:
        masks = folder / "masks"
        masks.mkdir()
        listed = unpack_sbd(archive, masks, lambda id: id not in official, progress=progress)
        place = kit / "SegmentationClassAug"
        place.mkdir(exist_ok=True)
        for mask in masks.iterdir():
            mask.replace(place / mask.name)
        ids = sorted((set(listed) | set(train)) - forbidden)
        # The list comes last: it is the sign that everything it names is there.
        written = folder / "train_aug.txt"
        written.write_text("".join(f"{id}\n" for id in ids), encoding="ascii")
        written.replace(kit / "ImageSets" / "Segmentation" / "train_aug.txt")


def fetch(
    name: str,
    root: Path | None = None,
    *,
    sources: Path | None = None,
    urls: Mapping[str, str] | None = None,
    keep: bool = False,
    progress: bool = True,
    wait: float = 2.0,
) -> Path:
    """Download and unpack a data set; what is already there is left alone.

    Parameters
    ----------
    name
        ``voc12``, ``sbd`` (its masks go into the VOC devkit, which must be there) or ``coco14``.
    root
        Folder of the data sets, default ``paths.data_dir()``; made if it is not there.
    sources
        File to use in place of ``data/checksums.yml``.
    urls
        Other addresses by file name, for a mirror; length and MD5 must be those of the official file.
    keep
        Keep the archives after unpacking.
    progress
        Show progress bars.
    wait
        Seconds to wait after a lost connection, doubled each time.

    Returns
    -------
    The folder of the data set.

    Raises
    ------
    SettingsError
        If there is no such data set.
    DataError
        If the disk is too full, the download fails, or an archive is damaged or unsafe. What has arrived is
        kept, and the same command goes on from there.
    """
    wanted = archives(name, sources=sources)
    root = paths.data_dir() if root is None else Path(root)
    root.mkdir(parents=True, exist_ok=True)
    store = root / "archives"
    todo = [archive for archive in wanted if not _target(name, archive, root).exists()]
    need_space(root, _needed(todo, store, keep), f"fetching {name}")
    for archive in todo:
        if urls and archive.file in urls:
            archive = Archive(**{**vars(archive), "url": urls[archive.file]})
        packed = download(archive, store, wait=wait, progress=progress)
        if name == "sbd":
            _build_sbd(packed, root, progress=progress)
        else:
            with _workshop(root) as folder:
                unpack(packed, folder, progress=progress)
                target = _target(name, archive, root)
                inside = folder / "VOCdevkit" / "VOC2012" if name == "voc12" else folder / target.name
                _move(inside, target)
        if not keep:
            packed.unlink()
    if store.is_dir() and not any(store.iterdir()):
        store.rmdir()
    return root / "coco14" if name == "coco14" else devkit(root)


def _needed(todo: list[Archive], store: Path, keep: bool) -> int:
    """Return the bytes that are still to arrive and to be unpacked, at the worst moment."""
    most = settled = 0
    for archive in todo:
        arrived = sum(p.stat().st_size for p in store.glob(f"{archive.file}*") if p.is_file())
        missing = max(0, archive.bytes - arrived)
        most = max(most, settled + missing + archive.unpacked)
        settled += missing + archive.unpacked - (0 if keep else archive.bytes)
    return most
