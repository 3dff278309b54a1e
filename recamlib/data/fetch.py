"""Get the official data sets: VOC 2012, the masks of SBD, COCO 2014."""

import contextlib
import io
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from types import SimpleNamespace as Archive  # file, url, bytes, unpacked (bytes, roughly), md5

import numpy as np
import pooch
import requests
import scipy.io
from tqdm.auto import tqdm

from recamlib import paths
from recamlib.data.images import write_mask
from recamlib.data.labels import VOC12
from recamlib.data.voc import devkit, list_file, read_ids
from recamlib.errors import DataError, SettingsError, check_choice
from recamlib.files import read_yaml

FETCHABLE = ("voc12", "sbd", "coco14")
_SBD = "benchmark_RELEASE/dataset"
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError)


def archives(name: str, *, sources: Path | None = None) -> list[Archive]:
    """Return the archives of a data set as ``data/checksums.yml``, or `sources`, lists them."""
    if name == "hoofed":
        raise SettingsError("hoofed is drawn, not fetched; `recam data make` writes it to files")
    check_choice("data set to fetch", name, FETCHABLE)
    return [Archive(**row) for row in read_yaml(sources or paths.ROOT / "data" / "checksums.yml")[name]]


def fetch(
    name: str, root: Path | None = None, *, sources: Path | None = None, keep: bool = False,
    progress: bool = True,
) -> Path:  # fmt: skip
    """Download and unpack what is not there yet of a data set, one of `FETCHABLE`, and return its folder.

    The masks of ``sbd`` go into the VOC devkit, which must be there. `root` is the folder of the data sets,
    by default ``paths.data_dir()``; `keep` keeps the archives after unpacking. A download that breaks off
    starts again, but an archive of the right MD5 that lies in ``archives`` below `root` is taken as it is.
    """
    wanted = archives(name, sources=sources)
    root = paths.data_dir() if root is None else Path(root)
    root.mkdir(parents=True, exist_ok=True)
    todo = [archive for archive in wanted if not _there(_target(name, archive, root), archive)]
    needed, free = sum(a.bytes + a.unpacked for a in todo), shutil.disk_usage(root).free
    if free < needed:
        needs = f"fetching {name} needs {needed / 1e9:.1f} GB but {root} has {free / 1e9:.1f} GB free"
        raise DataError(f"{needs}; make room or choose another disk with RECAM_DATA")
    for archive in todo:
        packed = _download(archive, root / "archives", progress=progress)
        try:
            with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=root) as folder:
                if name == "sbd":
                    _build_sbd(packed, root, Path(folder), progress=progress)
                else:
                    _unpack(packed, Path(folder), _target(name, archive, root))
        except _DAMAGE as error:
            raise DataError(f"{packed} cannot be unpacked ({error}); delete it and fetch it again") from None
        if not keep:
            packed.unlink()
    with contextlib.suppress(OSError):  # not empty, or not there
        (root / "archives").rmdir()
    return root / "coco14" if name == "coco14" else devkit(root)


def _target(name: str, archive: Archive, root: Path) -> Path:
    """Return what is there once an archive has been unpacked."""
    if name == "voc12":
        return root / "VOCdevkit" / "VOC2012"
    if name == "sbd":
        return devkit(root) / "ImageSets" / "Segmentation" / "train_aug.txt"
    return root / "coco14" / ("annotations" if archive.file.startswith("annotations") else archive.file[:-4])


def _there(target: Path, archive: Archive) -> bool:
    """Say whether an archive has been unpacked, or raise an error if its place holds something smaller."""
    if target.is_dir():
        length = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
        if length < archive.unpacked / 2:
            what = f"{target} holds other data than {archive.file} ({length / 1e9:.3f} GB)"
            raise DataError(f"{what}; fetch into another folder (RECAM_DATA)")
    return target.exists()


def _download(archive: Archive, store: Path, *, progress: bool) -> Path:
    """Return the archive in `store`, fetched if it is not there; its MD5 is right."""
    pooch.get_logger().setLevel("WARNING")
    loader, checksum = pooch.HTTPDownloader(progressbar=progress), f"md5:{archive.md5}"
    try:
        return Path(pooch.retrieve(archive.url, checksum, archive.file, store, downloader=loader))
    except (requests.RequestException, ValueError, OSError) as error:
        curl = f"`curl -L -C - -o {store / archive.file} {archive.url}`, which goes on where it stopped"
        raise DataError(f"{archive.url} cannot be fetched ({error}); try again, or first {curl}") from None


def _unpack(archive: Path, folder: Path, target: Path) -> None:
    """Unpack an archive and put its folder in place in one step; members outside of it are refused."""
    shutil.unpack_archive(archive, folder, **({} if archive.suffix == ".zip" else {"filter": "data"}))
    source = folder / ("VOCdevkit/VOC2012" if target.name == "VOC2012" else target.name)
    if not source.is_dir():
        raise DataError(f"{archive} has no folder {source.name}; delete it and fetch it again")
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)


def read_sbd_mask(content: bytes, name: str) -> np.ndarray:
    """Return the mask ``(H, W)``, uint8, in a class file of SBD, a MATLAB file; `name` is for messages."""
    try:
        content = scipy.io.loadmat(io.BytesIO(content), variable_names=["GTcls"])
        mask = np.asarray(content["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # the MATLAB reader fails in any number of ways
        raise DataError(f"{name} is not a class file of SBD ({error!r}); fetch the archive again") from None
    if mask.ndim != 2 or mask.dtype.kind not in "ui" or mask.max(initial=0) > len(VOC12):
        raise DataError(f"{name} is not a mask of the {len(VOC12)} VOC classes; fetch the archive again")
    return mask.astype(np.uint8)


def _build_sbd(archive: Path, root: Path, folder: Path, *, progress: bool) -> None:
    """Write masks and the list ``train_aug``: VOC train and SBD's lists without VOC val, 10,582 images."""
    kit = devkit(root)
    train, val = (set(read_ids(list_file(kit, split))) for split in ("train", "val"))
    listed: set[str] = set()
    with tarfile.open(archive) as tar:
        for member in tqdm(tar, desc=f"masks of {archive.name}", disable=not progress):
            path = PurePosixPath(member.name)
            if not member.isfile() or str(path.parent) not in (_SBD, f"{_SBD}/cls"):
                continue
            if path.name in ("train.txt", "val.txt"):
                listed.update(tar.extractfile(member).read().decode("ascii").split())
            elif path.suffix == ".mat" and path.stem not in train | val:
                mask = read_sbd_mask(tar.extractfile(member).read(), member.name)
                write_mask(folder / f"{path.stem}.png", mask, VOC12.palette)
    unseen = [id for id in sorted(listed) if not (kit / "JPEGImages" / f"{id}.jpg").is_file()]
    if unseen:
        raise DataError(f"{kit} has no picture {unseen[0]}.jpg: SBD goes with the official VOC 2012 alone")
    lost = [f"{id}.png" for id in sorted(listed - train - val) if not (folder / f"{id}.png").is_file()]
    if not listed or lost:
        what = f"the mask {lost[0]}" if lost else "its lists"
        raise DataError(f"{archive} lacks {what}; delete it and fetch it again")
    place = kit / "SegmentationClassAug"
    place.mkdir(exist_ok=True)
    for mask in folder.glob("*.png"):
        mask.replace(place / mask.name)
    # The list comes last: it is the sign that everything it names is there.
    written = folder / "train_aug.txt"
    written.write_text("".join(f"{id}\n" for id in sorted((listed | train) - val)), encoding="ascii")
    written.replace(kit / "ImageSets" / "Segmentation" / "train_aug.txt")
