"""Bad input to every reader: mutated bytes, bombs, ways out of a folder. Only errors of ours may come out.

``RECAM_FUZZ`` is the number of mutated inputs over all readers (700 in the ordinary suite);
``RECAM_KEEP_FAULTS=1`` writes what was found to ``book/measured/faults.json``.
"""

import contextlib
import io
import json
import os
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import scipy.io
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from measured import keep
from PIL import Image

from recamlib import files, paths
from recamlib.book import parameters
from recamlib.data import coco, fetch, foreign, images, voc
from recamlib.data.labels import HOOFED, VOC12
from recamlib.errors import RecamError
from recamlib.models.weights import read_weights
from recamlib.report import claims
from recamlib.studies import checks

TOTAL = int(os.environ.get("RECAM_FUZZ", 700))
SECONDS, MEBIBYTES = 3.0, 600  # of the processor; a core that is shared is slow
PIXELS = np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3)
XML = (
    "<annotation><filename>a.jpg</filename><size><width>20</width><height>24</height></size>"
    "<object><name>horse</name><bndbox><xmin>1</xmin></bndbox></object>"
    "<object><name>cow</name></object></annotation>"
)
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 24, "width": 20},
               {"id": 2, "file_name": "b.jpg", "height": 24, "width": 20}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 4, "bbox": [0, 0, 2, 2],
         "segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]]},
        {"id": 2, "image_id": 2, "category_id": 2, "iscrowd": 0, "area": 4, "bbox": [0, 0, 2, 2],
         "segmentation": {"size": [24, 20], "counts": [100, 80, 300]}}],
    "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "bicycle"}],
}  # fmt: skip
YAML = "parameters:\n  rate: 0.5\n  epochs: 3\n'01':\n  sizes: [1.0, 0.5]\n  name: quick\n"
CELL = (
    "rate: float = 0.1  # learning rate\nepochs: int = 4  # passes\n"
    'sizes: list[float] = [1.0]  # factors\nname: str = "a"  # what\n'
)
NOTEBOOK = json.dumps({
    "cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": CELL, "outputs": [],
               "execution_count": None}], "nbformat": 4, "nbformat_minor": 4,
    "metadata": {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}},
})  # fmt: skip
LINK = "http://host.robots.ox.ac.uk:8080/anonymous/ABC.html"


def encoded(kind: str, image: Image.Image | None = None, **more) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(buffer, kind, **more)
    return buffer.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6
MASK = Image.fromarray(np.eye(24, 20, dtype=np.uint8))
MASK.putpalette(VOC12.palette.tobytes())


def sbd() -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"GTcls": {"Segmentation": np.eye(24, 20, dtype=np.uint8)}}, do_compression=True)
    return buffer.getvalue()


def weights(suffix: str) -> bytes:
    state, buffer = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}, io.BytesIO()
    if suffix == ".safetensors":
        return safetensors.torch.save(state)
    torch.save(state, buffer, _use_new_zipfile_serialization=suffix == ".pth")
    return buffer.getvalue()


def placed(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], None]:
    """Return a function that writes content to a file of a folder and reads it."""

    def through(folder: Path, content: bytes) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        read(folder / name)

    return through


def read_coco(path: Path) -> None:
    folder = path.parent.parent
    (folder / "train2014").mkdir(exist_ok=True)
    for name in "ab":
        Image.fromarray(PIXELS).save(folder / "train2014" / f"{name}.jpg")
    coco._load.cache_clear()
    images, masks = coco.CocoImages(folder, "train"), coco.CocoMasks(folder, "train")
    for id in images.ids:
        images.image(id)
        images.labels(id)
        masks.mask(id)


def read_profile(path: Path) -> None:
    (path.parent.parent / "01_x.ipynb").write_text(NOTEBOOK)
    parameters.profile_parameters("odd", "01", folder=path.parent.parent)


def read_claims(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "ROOT", path.parent.parent)
        claims.all_claims.__wrapped__()


def read_entered(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "book_dir", lambda: path.parent.parent)
        claims.server_numbers()


def number(text: str) -> None:
    for annotation in ("int", "float", "list[float]", "dict", "str", text[:40]):
        with contextlib.suppress(RecamError):
            checks.fitted({"x": text}, {"x": annotation})


ENTRY = f"table3.irn.upernet_cam_test.voc12: {{value: 61.5, link: '{LINK}', date: 2026-01-01}}\n"
SUMS = "voc12:\n  - {file: a.tar, url: 'https://x.org/a.tar', bytes: 7, unpacked: 9, md5: abc}\n"

READERS: dict[str, tuple[Callable[[Path, bytes], None], bytes]] = {
    "JPEG image": (placed("a.jpg", images.read_image), encoded("JPEG")),
    "PNG image": (placed("a.png", images.read_image), encoded("PNG")),
    "TIFF image": (placed("a.tif", images.read_image), encoded("TIFF", compression="tiff_lzw")),
    "GIF image": (placed("a.gif", images.read_image), encoded("GIF")),
    "WebP image": (placed("a.webp", images.read_image), encoded("WEBP")),
    "image size": (placed("a.jpg", images.image_size), encoded("JPEG")),
    "EXIF": (placed("a.jpg", lambda p: images.read_image(p, turned=True)), encoded("JPEG", exif=TURNED)),
    "mask PNG": (placed("a.png", lambda p: images.read_mask(p, VOC12.colours)), encoded("PNG", MASK)),
    "mask of colours": (placed("a.png", lambda p: images.read_mask(p, VOC12.colours)), encoded("PNG")),
    "labelmap.txt": (
        placed("labelmap.txt", lambda p: voc.colours_of(p.parent, voc.space_of(p.parent))),
        b"# label:color_rgb\nbackground:0,0,0::\ncat:250,50,83::\ndog:1,2,3::\n"),
    "classes.txt": (placed("classes.txt", lambda p: voc.space_of(p.parent)), b"cat\ndog\nhen\n"),
    "JSON of another program": (
        placed("a.json", lambda p: foreign.describe(p.parent)),
        b'{"version": "5.0", "shapes": [{"label": "cat"}]}'),
    "VOC annotation (XML)": (placed("a.xml", lambda p: voc.read_classes(p, HOOFED)), XML.encode()),
    "list of ids": (placed("a.txt", voc.read_ids), b"2007_000032\n2007_000039\n2007_000063\n"),
    "COCO instances (JSON)": (
        placed("annotations/instances_train2014.json", read_coco), json.dumps(COCO).encode()),
    "SBD mask (MATLAB)": (placed("a.mat", lambda p: fetch.read_sbd_mask(p.read_bytes(), "a")), sbd()),
    "profile (YAML)": (placed("profiles/odd.yml", read_profile), YAML.encode()),
    "claims (YAML)": (
        placed("data/claims.yml", read_claims), (paths.ROOT / "data" / "claims.yml").read_bytes()),
    "addresses (YAML)": (placed("a.yml", lambda p: fetch.archives("voc12", sources=p)), SUMS.encode()),
    "entered numbers (YAML)": (placed("measured/server.yml", read_entered), ENTRY.encode()),
    "result (JSON)": (placed("result.json", files.read_sealed), b'{"rows": {"cam": 48.8}, "digest": "ab"}'),
    "parameter value": (lambda f, c: number(c.decode("utf-8", "replace")), b"[1, 0.5, [1e-4], {'a': 1}]"),
    "notebook (JSON)": (placed("x.ipynb", parameters.read_parameters), NOTEBOOK.encode()),
    "weights (safetensors)": (placed("w.safetensors", read_weights), weights(".safetensors")),
    "weights (.pth)": (placed("w.pth", read_weights), weights(".pth")),
    "weights (old .pth)": (placed("w.pth", read_weights), weights(".old")),
}  # fmt: skip
TOKENS = [
    b"\x00", b"\xff" * 4, b"../../x", b"/etc/passwd", b"-1", b"9" * 20, b"1e999", b"NaN", b"null", b"[" * 200,
    b"{", b"&x;", b"*a", b"&a [*a]", b"!!python/object/apply:os.system ['x']", b"!!timestamp 2020-99-99",
    b"\xe2\x80\xae", b"'", b'"', b"\n", b"\t- ", b": ", b"<", b"&#0;", b"True", b"[]", b"!!binary x", b"0x",
]  # fmt: skip


@st.composite
def mutations(draw, seed: bytes) -> bytes:
    """Bytes of a valid file after one to four changes: flips, cuts, repeats, pieces that break parsers."""
    content = bytearray(seed)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["flip", "set", "cut", "insert", "token", "repeat", "digits"]))
        at = draw(st.integers(0, max(len(content) - 1, 0)))
        if kind == "flip" and content:
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            content[at : at + 4] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, max(len(content), 1)))]
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        elif kind == "token":
            content[at:at] = draw(st.sampled_from(TOKENS))
        elif kind == "repeat":
            content[at:at] = content[at : at + 64] * draw(st.integers(1, 8))
        else:  # a number where there is one
            digits = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
            if digits:
                place = digits[at % len(digits)]
                content[place : place + 1] = str(draw(st.integers(-(2**70), 2**70))).encode()
    return bytes(content)


@pytest.fixture(scope="module")
def record():
    """What the tests count, for every reader."""
    found: dict[str, dict] = {}
    yield found
    if len(found) == len(READERS):
        sums = {what: sum(r[what] for r in found.values()) for what in ("inputs", "refused", "grown_mib")}
        slowest = max(r["slowest"] for r in found.values())
        keep("fuzz", sums | {"slowest": slowest, "bombs": len(BOMBS), "readers": found})


@pytest.mark.parametrize("name", READERS)
def test_a_reader_gives_a_value_or_an_error_of_ours(name, record, tmp_path):
    read, seed = READERS[name]
    read_or_error(read, tmp_path, seed)  # warm: what is imported on first use is not the input's memory
    peak = peak_memory()
    share = -(-TOTAL // len(READERS))
    count = {"inputs": 0, "refused": 0, "slowest": 0.0}

    @settings(
        max_examples=share, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutations(seed))
    def check(content: bytes) -> None:
        start = time.thread_time()  # of this thread: the machine may be busy
        count["refused"] += read_or_error(read, tmp_path, content)
        seconds = time.thread_time() - start
        count["inputs"] += 1
        count["slowest"] = max(count["slowest"], seconds)
        assert seconds < SECONDS, f"{seconds:.1f} s"

    check()
    grown = peak_memory() - peak
    assert grown < MEBIBYTES, f"{grown:.0f} MiB"
    record[name] = count | {"slowest": round(count["slowest"], 3), "grown_mib": round(grown, 1)}


def peak_memory() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read_or_error(read: Callable, folder: Path, content: bytes) -> bool:
    """Return whether the reader refused; anything but an error of ours comes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(folder, content)
        except RecamError as error:
            assert str(error).strip()
            return True
    return False


# What is made to do harm, by name; all of it has to be refused soon and in little memory.


def entity_bomb() -> str:
    lines = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    body = "<annotation><object><name>&a11;</name></object></annotation>"
    return f'<!DOCTYPE x [<!ENTITY a0 "ha">{lines}]>{body}'


def changed_coco(**changes) -> bytes:
    first, *others = COCO["images"]
    return json.dumps({**COCO, "images": [first | changes, *others]}).encode()


def runs(counts, size=(24, 20)) -> bytes:
    first, second = COCO["annotations"]
    changed = second | {"segmentation": {"size": list(size), "counts": counts}}
    return json.dumps({**COCO, "annotations": [first, changed]}).encode()


BIG_PNG = encoded("PNG", Image.new("1", (40_000, 40_000)))  # a few kilobytes


BOMBS = {
    "PNG of 40,000 x 40,000 pixels": ("PNG image", BIG_PNG, "pixels"),
    "mask of 40,000 x 40,000 pixels": ("mask PNG", BIG_PNG, "pixels"),
    "PostScript as an image": (
        "JPEG image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable"),
    "XML entity bomb": ("VOC annotation (XML)", entity_bomb().encode(), "entities"),
    "XML that reads a file": (
        "VOC annotation (XML)",
        b'<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation>&f;</annotation>', "entities"),
    "class name of a million letters": (
        "VOC annotation (XML)", XML.replace("horse", "h" * 10**6).encode(), "class"),
    "id of 10,000 letters": ("list of ids", b"a" * 10**4, "short file name"),
    "id with a control character": ("list of ids", b"a\x1b[2J", "file name"),
    "COCO file name that climbs": (
        "COCO instances (JSON)", changed_coco(file_name="../../x.jpg"), "without folders"),
    "COCO image of -1 pixels": ("COCO instances (JSON)", changed_coco(height=-1), "height"),
    "run lengths of 10^18 pixels": ("COCO instances (JSON)", runs([10**18, 5]), "run lengths"),
    "negative run lengths": ("COCO instances (JSON)", runs([-5, 485]), "is unreadable"),
    "run lengths for a huge mask": ("COCO instances (JSON)", runs([1, 1], (10**6, 10**6)), "run lengths"),
    "JSON nested 100,000 deep": ("COCO instances (JSON)", b"[" * 10**5, "readable"),
    "YAML that calls a function": ("profile (YAML)", b"x: !!python/object/apply:os.getcwd []", "YAML"),
    "YAML nested 100,000 deep": ("profile (YAML)", b"[" * 10**5, "YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_made_to_do_harm_is_refused_by_name(name, tmp_path):
    kind, content, says = BOMBS[name]
    peak, start = peak_memory(), time.thread_time()
    with pytest.raises(RecamError, match=says):
        READERS[kind][0](tmp_path, content)
    assert time.thread_time() - start < SECONDS and peak_memory() - peak < MEBIBYTES
