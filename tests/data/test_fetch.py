"""Fetching against a server on this machine: resume, checksum, space, safe unpacking, SBD's masks."""

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

from recamlib.data._download import Archive, download
from recamlib.data._unpack import unpack
from recamlib.data.access import open_images, open_masks
from recamlib.data.fetch import FETCHABLE, archives, fetch
from recamlib.data.images import read_mask
from recamlib.errors import DataError, SettingsError


class Server(ThreadingHTTPServer):
    """Serves `files`; cuts every answer after `cut` bytes while `cuts` lasts."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.cuts, self.cut, self.ranges, self.busy = {}, [], 0, 0, True, 0

    def handle_error(self, *_):
        """Say nothing when the client hangs up: some tests make it."""

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        content = server.files.get(self.path[1:])
        if server.busy:
            server.busy -= 1
            return self.send_error(503)
        if content is None:
            return self.send_error(404)
        start = int(wanted[6:-1]) if wanted and server.ranges else 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.cuts:
            server.cuts -= 1
            self.wfile.write(body[: server.cut])
            self.wfile.flush()
            self.close_connection = True
            return None
        self.wfile.write(body)
        return None


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def offer(server: Server, name: str, content: bytes, **changes) -> Archive:
    server.files[name] = content
    facts = {"bytes": len(content), "unpacked": len(content), "md5": hashlib.md5(content).hexdigest()}
    return Archive(**{"file": name, "url": server.url(name), **facts, **changes})


CONTENT = bytes(range(256)) * 4000


def get(archive: Archive, folder, **options):
    return download(archive, folder, wait=0.0, progress=False, **options)


def test_download_and_not_again(server, tmp_path):
    archive = offer(server, "a.tar", CONTENT)
    path = get(archive, tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert get(archive, tmp_path / "new") == path
    assert server.asked == [None]
    assert [p.name for p in path.parent.iterdir()] == ["a.tar"]


def test_lost_connections_go_on_where_they_stopped(server, tmp_path):
    archive = offer(server, "a.tar", CONTENT)
    server.cuts, server.cut = 3, 100_000
    assert get(archive, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-", "bytes=300000-"]


def test_a_later_call_goes_on_too(server, tmp_path):
    archive = offer(server, "a.tar", CONTENT)
    server.cuts, server.cut = 1, 5000
    server.busy = 0

    def stop_after_first(*_):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recamlib.data._download.time.sleep", stop_after_first)
        with pytest.raises(KeyboardInterrupt):
            get(archive, tmp_path)
    assert (tmp_path / "a.tar.part").stat().st_size == 5000
    assert not (tmp_path / "a.tar").exists()
    assert get(archive, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=5000-"


def test_server_without_ranges_starts_again(server, tmp_path):
    archive = offer(server, "a.tar", CONTENT)
    (tmp_path / "a.tar.part").write_bytes(b"x" * 1000)
    server.ranges = False
    assert get(archive, tmp_path).read_bytes() == CONTENT


def test_busy_server_is_asked_again_and_given_up(server, tmp_path):
    archive = offer(server, "a.tar", CONTENT)
    server.busy = 2
    assert get(archive, tmp_path).exists()
    (tmp_path / "a.tar").unlink()
    server.busy = 100
    with pytest.raises(DataError, match="the server answers 503.*run the same command again"):
        get(archive, tmp_path, tries=3)


def test_connection_that_brings_nothing_is_given_up_and_keeps_what_came(server, tmp_path):
    archive = offer(server, "a.tar", CONTENT)
    (tmp_path / "a.tar.part").write_bytes(CONTENT[:700])
    server.cuts, server.cut = 100, 0
    with pytest.raises(DataError, match="700 bytes are kept"):
        get(archive, tmp_path, tries=3)


def test_no_server(tmp_path):
    archive = Archive("a.tar", "http://127.0.0.1:9/a.tar", 10, 10, "0" * 32)
    with pytest.raises(DataError, match="cannot be fetched .*refused"):
        get(archive, tmp_path, tries=2)


def test_wrong_checksum_deletes_and_says_so(server, tmp_path):
    archive = offer(server, "a.tar", CONTENT, md5="0" * 32)
    with pytest.raises(DataError, match="MD5 .*expected 0000.*deleted"):
        get(archive, tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_beginning_is_found_out(server, tmp_path):
    archive = offer(server, "a.tar", CONTENT)
    (tmp_path / "a.tar.part").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="deleted"):
        get(archive, tmp_path)
    assert get(archive, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("length", [10, len(CONTENT) + 5])
def test_another_file_at_the_address_is_refused_at_once(server, tmp_path, length):
    archive = offer(server, "a.tar", CONTENT, bytes=length)
    with pytest.raises(DataError, match="not the official file"):
        get(archive, tmp_path)
    assert len(server.asked) == 1


def test_not_found_and_no_web_address(server, tmp_path):
    with pytest.raises(DataError, match="answers 404.*checksums.yml"):
        get(Archive("b.tar", server.url("b.tar"), 10, 10, "0" * 32), tmp_path)
    with pytest.raises(DataError, match="no web address"):
        get(Archive("b.tar", "file:///etc/passwd", 10, 10, "0" * 32), tmp_path)


def tar_of(files: dict[str, bytes], *, links: dict[str, str] | None = None, mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "JPEG")
    return buffer.getvalue()


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((6, 8), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


KIT = "VOCdevkit/VOC2012"


def voc_tar() -> bytes:
    annotation = b"<annotation><object><name>cow</name></object></annotation>"
    files = {}
    for id in ("a_1", "b_1", "c_1", "d_1"):
        files[f"{KIT}/JPEGImages/{id}.jpg"] = jpeg()
        files[f"{KIT}/Annotations/{id}.xml"] = annotation
    files[f"{KIT}/SegmentationClass/a_1.png"] = files[f"{KIT}/SegmentationClass/b_1.png"] = png(10)
    files[f"{KIT}/ImageSets/Segmentation/train.txt"] = b"a_1\n"
    files[f"{KIT}/ImageSets/Segmentation/val.txt"] = b"b_1\n"
    return tar_of(files)


def sbd_tgz(**masks: np.ndarray) -> bytes:
    files = {}
    for id, mask in masks.items():
        buffer = io.BytesIO()
        kind = np.array(
            [(mask, np.zeros(3), 1)], dtype=[("Segmentation", "O"), ("Boundaries", "O"), ("Categories", "O")]
        )
        scipy.io.savemat(buffer, {"GTcls": kind[None]}, do_compression=True)
        files[f"benchmark_RELEASE/dataset/cls/{id}.mat"] = buffer.getvalue()
        files[f"benchmark_RELEASE/dataset/img/{id}.jpg"] = jpeg()
    files["benchmark_RELEASE/dataset/train.txt"] = b"a_1\nd_1\n"
    files["benchmark_RELEASE/dataset/val.txt"] = b"b_1\nc_1\n"
    return tar_of(files, mode="w:gz")


def listing(tmp_path, server, **sets):
    """Offer archives and write a file of sources for them."""
    rows = {}
    for name, files in sets.items():
        rows[name] = [vars(offer(server, file, content)) for file, content in files.items()]
    path = tmp_path / "sources.yml"
    path.write_text(yaml.safe_dump(rows))
    return path


def bring(name, root, sources, **options):
    return fetch(name, root, sources=sources, progress=False, wait=0.0, **options)


def test_voc_and_sbd_from_nothing(server, tmp_path):
    masks = {
        id: np.full((6, 8), value, np.uint8) for id, value in (("a_1", 1), ("b_1", 2), ("c_1", 3), ("d_1", 4))
    }
    sources = listing(tmp_path, server, voc12={"voc.tar": voc_tar()}, sbd={"sbd.tgz": sbd_tgz(**masks)})
    root = tmp_path / "data"
    with pytest.raises(DataError, match="recam data fetch voc12"):
        bring("sbd", root, sources)
    server.cuts, server.cut = 2, 4000
    assert bring("voc12", root, sources) == root / KIT
    assert bring("sbd", root, sources) == root / KIT
    images, masks = (door("voc12", "train_aug", root=root) for door in (open_images, open_masks))
    assert images.ids == ("a_1", "c_1", "d_1")  # without what is in val
    assert [int(masks.mask(id)[0, 0]) for id in images.ids] == [10, 3, 4]  # the official mask of a_1
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
        "val2014.zip": zip_of({"val2014/a.jpg": jpeg()}),
    }
    sources = listing(tmp_path, server, coco14=parts)
    held = server.files.pop("val2014.zip")
    with pytest.raises(DataError, match="404"):
        bring("coco14", tmp_path, sources)
    assert (tmp_path / "coco14" / "annotations").is_dir()
    server.files["val2014.zip"] = held
    bring("coco14", tmp_path, sources, keep=True)
    assert (tmp_path / "coco14" / "val2014" / "a.jpg").read_bytes() == jpeg()
    assert [p.name for p in (tmp_path / "archives").iterdir()] == ["val2014.zip"]


def test_mirror_must_have_the_official_content(server, tmp_path):
    sources = listing(tmp_path, server, voc12={"voc.tar": voc_tar()})
    server.files["mirror"] = server.files.pop("voc.tar")
    bring("voc12", tmp_path, sources, urls={"voc.tar": server.url("mirror")})
    assert (tmp_path / KIT).is_dir()


def test_too_little_disk_is_found_before_anything_is_fetched(server, tmp_path, monkeypatch):
    sources = listing(tmp_path, server, voc12={"voc.tar": voc_tar()})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match="fetching voc12 needs .* GB free; make room"):
        bring("voc12", tmp_path, sources)
    assert server.asked == []


def test_archive_that_is_none(server, tmp_path):
    sources = listing(tmp_path, server, voc12={"voc.tar": b"no tar" * 1000}, sbd={"sbd.tgz": b"no tar"})
    with pytest.raises(DataError, match="voc.tar cannot be unpacked"):
        bring("voc12", tmp_path, sources)
    assert not (tmp_path / "VOCdevkit").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".unpacking")]
    sources = listing(tmp_path, server, voc12={"voc.tar": tar_of({"other/file": b"x"})})
    with pytest.raises(DataError, match="no folder VOC2012"):
        bring("voc12", tmp_path / "second", sources)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("up.tar", tar_of({"../evil": b"x"})),
        ("link.tar", tar_of({}, links={"link": "/etc"})),
        ("up.zip", zip_of({"../evil": b"x"})),
        ("deep.zip", zip_of({"a/../../evil": b"x"})),
        ("root.zip", zip_of({"/evil": b"x"})),
        ("windows.zip", zip_of({"..\\evil": b"x"})),
    ],
)
def test_members_that_would_leave_the_folder(tmp_path, name, content):
    folder = tmp_path / "inside" / "folder"
    folder.mkdir(parents=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="unsafe member"):
        unpack(tmp_path / name, folder, progress=False)
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            sbd_tgz(c_1=np.full((6, 8), 21, np.uint8), d_1=np.zeros((6, 8), np.uint8)),
            "not a mask of the 20 VOC classes",
        ),
        (sbd_tgz(c_1=np.zeros((6, 8), np.uint8)), "lacks the mask of d_1"),
        (tar_of({"x": b"y"}, mode="w:gz"), "lacks its lists"),
        (tar_of({"benchmark_RELEASE/dataset/cls/c_1.mat": b"y"}, mode="w:gz"), "c_1.mat is not a class file"),
        (sbd_tgz(c_1=np.zeros((6, 8), np.uint8), d_1=np.zeros((6, 8), np.uint8))[:200], "cannot be unpacked"),
    ],
    ids=["value", "mask", "lists", "class", "archive"],
)
def test_bad_sbd_leaves_no_list_behind(server, tmp_path, content, message):
    sources = listing(tmp_path, server, voc12={"voc.tar": voc_tar()}, sbd={"sbd.tgz": content})
    bring("voc12", tmp_path, sources)
    with pytest.raises(DataError, match=message):
        bring("sbd", tmp_path, sources)
    assert not (tmp_path / KIT / "ImageSets/Segmentation/train_aug.txt").exists()


def test_official_sources_are_complete():
    for name in FETCHABLE:
        for archive in archives(name):
            assert archive.url.startswith("http")
            assert archive.url.endswith(archive.file)
            assert len(bytes.fromhex(archive.md5)) == 16
            assert archive.bytes > 2e8


def test_names():
    with pytest.raises(SettingsError, match="drawn, not fetched"):
        archives("hoofed")
    with pytest.raises(SettingsError, match="did you mean 'voc12'"):
        archives("voc2012")
