"""Fetching against a server on this machine: checksum, space, unpacking, SBD's masks."""

import hashlib
import shutil
import tempfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from devkits import annotation, both, class_file, encoded

from recamlib.data.fetch import FETCHABLE, archives, fetch
from recamlib.data.images import read_mask
from recamlib.errors import DataError, SettingsError

KIT, SBD = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"
ZEROS = np.zeros((6, 8), np.uint8)
PHOTO = encoded(ZEROS, "JPEG")


class Served(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        self.server.asked.append(self.path)


@pytest.fixture
def server(tmp_path):
    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Served, directory=tmp_path / "served")) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.shutdown()


@pytest.fixture
def offer(server, tmp_path):
    """Return a function that serves archives and returns one that fetches a data set of them."""

    def serve(**sets):
        rows = {name: [] for name in sets}
        for name, files in sets.items():
            for file, content in files.items():
                (tmp_path / "served" / file).write_bytes(content)
                facts = {"bytes": len(content), "unpacked": 1, "md5": hashlib.md5(content).hexdigest()}
                url = f"http://127.0.0.1:{server.server_port}/{file}"
                rows[name].append({"file": file, "url": url, **facts})
        (tmp_path / "sources.yml").write_text(yaml.safe_dump(rows))
        return partial(fetch, root=tmp_path, sources=tmp_path / "sources.yml", progress=False)

    return serve


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, "in", name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return Path(shutil.make_archive(f"{folder}/out", kind, f"{folder}/in")).read_bytes()


def voc() -> dict[str, bytes]:
    files = {f"{KIT}/SegmentationClass/{id}.png": encoded(ZEROS + 10, "PNG") for id in ("a_1", "b_1")}
    for id in ("a_1", "b_1", "c_1", "d_1"):
        files[f"{KIT}/JPEGImages/{id}.jpg"] = PHOTO
        files[f"{KIT}/Annotations/{id}.xml"] = annotation("cow").encode()
    lists = {f"{KIT}/ImageSets/Segmentation/{k}.txt": v for k, v in (("train", b"a_1\n"), ("val", b"b_1\n"))}
    return {"voc.tar": packed("tar", files | lists)}


def sbd(**masks: np.ndarray) -> bytes:
    files = {f"{SBD}/train.txt": b"a_1\nd_1\n", f"{SBD}/val.txt": b"b_1\nc_1\n"}
    for id, mask in masks.items():
        files |= {f"{SBD}/cls/{id}.mat": class_file(mask), f"{SBD}/img/{id}.jpg": PHOTO}
    return packed("gztar", files)


def test_a_lost_connection_and_another_file_say_what_to_do(offer, tmp_path, monkeypatch):
    bring = offer(voc12=voc())
    with monkeypatch.context() as patch:
        patch.setattr(Served, "copyfile", lambda self, file, out: out.write(file.read()[:-100]))
        with pytest.raises(DataError, match=r"voc.tar cannot be fetched .*curl -L -C - -o .*archives/voc"):
            bring("voc12")
    (tmp_path / "served" / "voc.tar").write_bytes(packed("tar", {"another": b"file"}))
    with pytest.raises(DataError, match=r"voc.tar cannot be fetched \(MD5 hash"):
        bring("voc12")
    assert not (tmp_path / "VOCdevkit").exists()
    assert not list((tmp_path / "archives").glob("*"))  # no half file under any name


def test_nothing_is_fetched_onto_a_full_disk_or_twice(offer, server, tmp_path, monkeypatch):
    bring = offer(voc12=voc())
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(DataError, match="fetching voc12 needs .* GB free; make room"):
            bring("voc12")
    (tmp_path / "served").rename(tmp_path / "archives")  # brought by another program
    assert bring("voc12") == tmp_path / KIT and server.asked == []


def test_voc_and_sbd_from_nothing(offer, server, tmp_path):
    values = {"a_1": 1, "b_1": 2, "c_1": 10, "d_1": 10}
    bring = offer(voc12=voc(), sbd={"sbd.tgz": sbd(**{id: ZEROS + value for id, value in values.items()})})
    root = tmp_path / "data"
    with pytest.raises(DataError, match="recam data fetch voc12"):
        bring("sbd", root=root)
    assert bring("voc12", root=root) == bring("sbd", root=root) == root / KIT
    images, masks = both("voc12", "train_aug", root=root)
    assert images.ids == ("a_1", "c_1", "d_1")  # without what is in val
    assert [int(masks.mask(id)[0, 0]) for id in images.ids] == [10, 10, 10]  # the official mask of a_1
    assert sorted(p.name for p in (root / KIT / "SegmentationClassAug").iterdir()) == ["c_1.png", "d_1.png"]
    assert read_mask(root / KIT / "SegmentationClassAug" / "c_1.png").shape == (6, 8)
    assert sorted(p.name for p in root.iterdir()) == ["VOCdevkit"]  # no archive, no workshop left
    asked = len(server.asked)
    for name in ("voc12", "sbd"):
        bring(name, root=root)
    assert len(server.asked) == asked


def test_coco_goes_on_with_the_part_that_is_missing(offer, tmp_path):
    names = ("annotations_trainval2014.zip", "val2014.zip")
    contents = ({"annotations/instances_val2014.json": b"{}"}, {"val2014/a.jpg": PHOTO})
    bring = offer(coco14={name: packed("zip", files) for name, files in zip(names, contents)})
    held = (tmp_path / "served" / "val2014.zip").rename(tmp_path / "held")
    with pytest.raises(DataError, match="404"):
        bring("coco14")
    assert (tmp_path / "coco14" / "annotations").is_dir()
    held.rename(tmp_path / "served" / "val2014.zip")
    bring("coco14", keep=True)
    assert (tmp_path / "coco14" / "val2014" / "a.jpg").read_bytes() == PHOTO
    assert [p.name for p in (tmp_path / "archives").iterdir()] == ["val2014.zip"]


@pytest.mark.parametrize(("name", "place"), [("voc12", KIT), ("coco14", "coco14/annotations")])
def test_other_data_in_the_place_of_the_official_set_are_named(tmp_path, name, place):
    (tmp_path / place / "ImageSets").mkdir(parents=True)
    (tmp_path / place / "ImageSets" / "classes.txt").write_text("ring")
    with pytest.raises(DataError, match=f"{place} holds other data than .*RECAM_DATA"):
        fetch(name, tmp_path, progress=False)


@pytest.mark.parametrize("content, message", [
    (b"no tar" * 1000, "voc.tar cannot be unpacked"),
    (packed("tar", {"other/file": b"x"}), "no folder VOC2012"),
])  # fmt: skip
def test_archive_that_is_none(offer, tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        offer(voc12={"voc.tar": content})("voc12")
    assert not (tmp_path / "VOCdevkit").exists() and not list(tmp_path.glob(".unpacking*"))


@pytest.mark.parametrize("content, message", [
    (sbd(c_1=ZEROS + 21, d_1=ZEROS), "not a mask of the 20 VOC classes"),
    (sbd(c_1=ZEROS), "lacks the mask d_1.png"), (sbd(c_1=ZEROS)[:200], "cannot be unpacked"),
    (packed("gztar", {"x": b"y"}), "lacks its lists"),
    (packed("gztar", {f"{SBD}/cls/c_1.mat": b"y"}), "c_1.mat is not a class file"),
    (sbd(c_1=ZEROS, d_1=ZEROS), "no picture d_1.jpg: SBD goes with the official VOC 2012"),
], ids=["value", "mask", "archive", "lists", "class", "another set"])  # fmt: skip
def test_bad_sbd_leaves_no_list_behind(offer, content, message):
    bring = offer(voc12=voc(), sbd={"sbd.tgz": content})
    kit = bring("voc12")
    if "picture" in message:
        (kit / "JPEGImages" / "d_1.jpg").unlink()
    with pytest.raises(DataError, match=message):
        bring("sbd")
    assert not (kit / "ImageSets/Segmentation/train_aug.txt").exists()
    assert not (kit / "SegmentationClassAug").exists()


def test_official_sources_are_complete():
    for archive in (archive for name in FETCHABLE for archive in archives(name)):
        assert archive.url.startswith("http") and archive.url.endswith(archive.file)
        assert len(bytes.fromhex(archive.md5)) == 16 and archive.bytes > 2e8
    for name, message in (("hoofed", "drawn, not fetched"), ("voc2012", "did you mean 'voc12'")):
        with pytest.raises(SettingsError, match=message):
            archives(name)
