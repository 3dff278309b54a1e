"""Fetching against a server on this machine: checksum, space, unpacking, SBD's masks."""

import hashlib
import io
import shutil
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
import yaml
from PIL import Image

from recamlib.data.access import open_images, open_masks
from recamlib.data.fetch import FETCHABLE, archives, fetch
from recamlib.data.images import read_mask
from recamlib.errors import DataError, SettingsError


class Server(ThreadingHTTPServer):
    """Serves `files`; every answer lacks its last `lost` bytes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.lost = {}, [], 0

    def handle_error(self, *_):
        """Say nothing when the client hangs up: some tests make it."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path[1:])
        if content is None:
            return self.send_error(404)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - self.server.lost])
        self.close_connection = True


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def tar_of(files: dict[str, bytes], *, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


def picture(kind: str, value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8), value, np.uint8)).save(buffer, kind)
    return buffer.getvalue()


KIT = "VOCdevkit/VOC2012"


def voc_tar() -> bytes:
    annotation = b"<annotation><object><name>cow</name></object></annotation>"
    files = {}
    for id in ("a_1", "b_1", "c_1", "d_1"):
        files[f"{KIT}/JPEGImages/{id}.jpg"] = picture("JPEG")
        files[f"{KIT}/Annotations/{id}.xml"] = annotation
    files[f"{KIT}/SegmentationClass/a_1.png"] = files[f"{KIT}/SegmentationClass/b_1.png"] = picture("PNG", 10)
    files[f"{KIT}/ImageSets/Segmentation/train.txt"] = b"a_1\n"
    files[f"{KIT}/ImageSets/Segmentation/val.txt"] = b"b_1\n"
    return tar_of(files)


def sbd_tgz(**masks: np.ndarray) -> bytes:
    files, parts = {}, [(part, "O") for part in ("Segmentation", "Boundaries", "Categories")]
    for id, mask in masks.items():
        buffer = io.BytesIO()
        classes = np.array([(mask, np.zeros(3), 1)], dtype=parts)
        scipy.io.savemat(buffer, {"GTcls": classes[None]}, do_compression=True)
        files[f"benchmark_RELEASE/dataset/cls/{id}.mat"] = buffer.getvalue()
        files[f"benchmark_RELEASE/dataset/img/{id}.jpg"] = picture("JPEG")
    files["benchmark_RELEASE/dataset/train.txt"] = b"a_1\nd_1\n"
    files["benchmark_RELEASE/dataset/val.txt"] = b"b_1\nc_1\n"
    return tar_of(files, mode="w:gz")


def test_a_lost_connection_and_another_file_say_what_to_do(server, tmp_path):
    sources = listing(tmp_path, server, voc12={"voc.tar": voc_tar()})
    server.lost = 100
    with pytest.raises(DataError, match=r"voc.tar cannot be fetched .*curl -L -C - -o .*archives/voc"):
        bring("voc12", tmp_path, sources)
    server.lost, server.files["voc.tar"] = 0, tar_of({"another": b"file"})
    with pytest.raises(DataError, match=r"voc.tar cannot be fetched \(MD5 hash"):
        bring("voc12", tmp_path, sources)
    assert not (tmp_path / "VOCdevkit").exists()
    assert not list((tmp_path / "archives").glob("*"))  # no half file under any name


def test_an_archive_that_another_program_brought_is_not_fetched_again(server, tmp_path):
    sources = listing(tmp_path, server, voc12={"voc.tar": voc_tar()})
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "voc.tar").write_bytes(voc_tar())
    assert bring("voc12", tmp_path, sources) == tmp_path / KIT and server.asked == []


def listing(tmp_path, server, **sets):
    """Offer archives and write a file of sources for them."""
    rows = {name: [] for name in sets}
    for name, files in sets.items():
        for file, content in files.items():
            server.files[file] = content
            facts = {"bytes": len(content), "unpacked": 1, "md5": hashlib.md5(content).hexdigest()}
            rows[name].append({"file": file, "url": f"http://127.0.0.1:{server.server_port}/{file}", **facts})
    path = tmp_path / "sources.yml"
    path.write_text(yaml.safe_dump(rows))
    return path


def bring(name, root, sources, **options):
    return fetch(name, root, sources=sources, progress=False, **options)


def test_voc_and_sbd_from_nothing(server, tmp_path):
    values = {"a_1": 1, "b_1": 2, "c_1": 10, "d_1": 10}
    masks = {id: np.full((6, 8), value, np.uint8) for id, value in values.items()}
    sources = listing(tmp_path, server, voc12={"voc.tar": voc_tar()}, sbd={"sbd.tgz": sbd_tgz(**masks)})
    root = tmp_path / "data"
    with pytest.raises(DataError, match="recam data fetch voc12"):
        bring("sbd", root, sources)
    assert bring("voc12", root, sources) == root / KIT and bring("sbd", root, sources) == root / KIT
    images, masks = (opened("voc12", "train_aug", root=root) for opened in (open_images, open_masks))
    assert images.ids == ("a_1", "c_1", "d_1")  # without what is in val
    assert [int(masks.mask(id)[0, 0]) for id in images.ids] == [10, 10, 10]  # the official mask of a_1
    assert sorted(p.name for p in (root / KIT / "SegmentationClassAug").iterdir()) == ["c_1.png", "d_1.png"]
    assert read_mask(root / KIT / "SegmentationClassAug" / "c_1.png").shape == (6, 8)
    assert sorted(p.name for p in root.iterdir()) == ["VOCdevkit"]  # no archive, no workshop left
    asked = len(server.asked)
    bring("voc12", root, sources)
    bring("sbd", root, sources)
    assert len(server.asked) == asked


def test_coco_goes_on_with_the_part_that_is_missing(server, tmp_path):
    parts = {
        "annotations_trainval2014.zip": zip_of({"annotations/instances_val2014.json": b"{}"}),
        "val2014.zip": zip_of({"val2014/a.jpg": picture("JPEG")}),
    }
    sources = listing(tmp_path, server, coco14=parts)
    held = server.files.pop("val2014.zip")
    with pytest.raises(DataError, match="404"):
        bring("coco14", tmp_path, sources)
    assert (tmp_path / "coco14" / "annotations").is_dir()
    server.files["val2014.zip"] = held
    bring("coco14", tmp_path, sources, keep=True)
    assert (tmp_path / "coco14" / "val2014" / "a.jpg").read_bytes() == picture("JPEG")
    assert [p.name for p in (tmp_path / "archives").iterdir()] == ["val2014.zip"]


@pytest.mark.parametrize(("name", "place"), [("voc12", KIT), ("coco14", "coco14/annotations")])
def test_other_data_in_the_place_of_the_official_set_are_named(server, tmp_path, name, place):
    (tmp_path / place / "ImageSets").mkdir(parents=True)
    (tmp_path / place / "ImageSets" / "classes.txt").write_text("ring")
    with pytest.raises(DataError, match=f"{place} holds other data than .*RECAM_DATA"):
        fetch(name, tmp_path, progress=False)


def test_too_little_disk_is_found_before_anything_is_fetched(server, tmp_path, monkeypatch):
    sources = listing(tmp_path, server, voc12={"voc.tar": voc_tar()})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match="fetching voc12 needs .* GB free; make room"):
        bring("voc12", tmp_path, sources)
    assert server.asked == []


@pytest.mark.parametrize("content, message", [
    (b"no tar" * 1000, "voc.tar cannot be unpacked"), (tar_of({"other/file": b"x"}), "no folder VOC2012"),
])  # fmt: skip
def test_archive_that_is_none(server, tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        bring("voc12", tmp_path, listing(tmp_path, server, voc12={"voc.tar": content}))
    assert not (tmp_path / "VOCdevkit").exists() and not list(tmp_path.glob(".unpacking*"))


ZEROS = np.zeros((6, 8), np.uint8)


@pytest.mark.parametrize("content, message", [
    (sbd_tgz(c_1=ZEROS + 21, d_1=ZEROS), "not a mask of the 20 VOC classes"),
    (sbd_tgz(c_1=ZEROS), "lacks the mask d_1.png"), (sbd_tgz(c_1=ZEROS)[:200], "cannot be unpacked"),
    (tar_of({"x": b"y"}, mode="w:gz"), "lacks its lists"),
    (tar_of({"benchmark_RELEASE/dataset/cls/c_1.mat": b"y"}, mode="w:gz"), "c_1.mat is not a class file"),
    (sbd_tgz(c_1=ZEROS, d_1=ZEROS), "no picture d_1.jpg: SBD goes with the official VOC 2012"),
], ids=["value", "mask", "archive", "lists", "class", "another set"])  # fmt: skip
def test_bad_sbd_leaves_no_list_behind(server, tmp_path, content, message):
    sources = listing(tmp_path, server, voc12={"voc.tar": voc_tar()}, sbd={"sbd.tgz": content})
    kit = bring("voc12", tmp_path, sources)
    if "picture" in message:
        (kit / "JPEGImages" / "d_1.jpg").unlink()
    with pytest.raises(DataError, match=message):
        bring("sbd", tmp_path, sources)
    assert not (kit / "ImageSets/Segmentation/train_aug.txt").exists()
    assert not (kit / "SegmentationClassAug").exists()


def test_official_sources_are_complete():
    for archive in (archive for name in FETCHABLE for archive in archives(name)):
        assert archive.url.startswith("http") and archive.url.endswith(archive.file)
        assert len(bytes.fromhex(archive.md5)) == 16 and archive.bytes > 2e8
    for name, message in (("hoofed", "drawn, not fetched"), ("voc2012", "did you mean 'voc12'")):
        with pytest.raises(SettingsError, match=message):
            archives(name)
