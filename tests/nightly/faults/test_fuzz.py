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
from tests.data.devkits import annotation, class_file, coco_content, encoded, write_coco

TOTAL = int(os.environ.get("RECAM_FUZZ", 700))
SECONDS, MEBIBYTES = 3.0, 600  # of the processor; a core that is shared is slow
PICTURE = Image.fromarray(np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3))
MASK, TURNED = Image.fromarray(np.eye(24, 20, dtype=np.uint8)), Image.Exif()
MASK.putpalette(VOC12.palette.tobytes())
TURNED[0x0112] = 6
XML = annotation("horse", "cow", extra="<bndbox><xmin>1</xmin></bndbox>")
NOTEBOOK = (paths.ROOT / "tests" / "notebooks" / "01_passes.ipynb").read_bytes()
PROFILE = (paths.ROOT / "tests" / "notebooks" / "profiles" / "mini.yml").read_bytes()
LINK = "http://host.robots.ox.ac.uk:8080/anonymous/ABC.html"
ENTRY = f"table3.irn.upernet_cam_test.voc12: {{value: 61.5, link: '{LINK}', date: 2026-01-01}}\n"


def weights(suffix: str) -> bytes:
    state, buffer = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}, io.BytesIO()
    if suffix == ".safetensors":
        return safetensors.torch.save(state)
    torch.save(state, buffer, _use_new_zipfile_serialization=suffix == ".pth")
    return buffer.getvalue()


def read_coco(path: Path) -> None:
    content = path.read_bytes()
    write_coco(path.parents[2], coco_content())
    path.write_bytes(content)
    coco._load.cache_clear()
    images, masks = (kind(path.parents[1], "train") for kind in (coco.CocoImages, coco.CocoMasks))
    for id in images.ids:
        for read in (images.image, images.labels, masks.mask):
            read(id)


def read_profile(path: Path) -> None:
    (path.parent.parent / "01_passes.ipynb").write_bytes(NOTEBOOK)
    parameters.profile_parameters("odd", "01", folder=path.parent.parent)


def read_entered(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "book_dir", lambda: path.parent.parent)
        claims.server_numbers()


def read_value(path: Path) -> None:
    text = path.read_bytes().decode("utf-8", "replace")
    for kind in ("int", "float", "list[float]", "dict", "str", text[:40]):
        with contextlib.suppress(RecamError):
            checks.fitted({"x": text}, {"x": kind})


READERS: dict[str, tuple[str, Callable[[Path], object], bytes]] = {  # file, what reads it, a good one
    **{f"{kind} image": (f"a.{kind}", images.read_image, encoded(PICTURE, kind.upper()))
       for kind in ("JPEG", "PNG", "TIFF", "GIF", "WebP")},
    "image size": ("a.jpg", images.image_size, encoded(PICTURE, "JPEG")),
    "EXIF": ("a.jpg", lambda p: images.read_image(p, turned=True), encoded(PICTURE, "JPEG", exif=TURNED)),
    "mask PNG": ("a.png", lambda p: images.read_mask(p, VOC12.colours), encoded(MASK, "PNG")),
    "mask of colours": ("a.png", lambda p: images.read_mask(p, VOC12.colours), encoded(PICTURE, "PNG")),
    "labelmap.txt": (
        "labelmap.txt", lambda p: voc.colours_of(p.parent, voc.space_of(p.parent)),
        b"# label:color_rgb\nbackground:0,0,0::\ncat:250,50,83::\ndog:1,2,3::\n"),
    "classes.txt": ("classes.txt", lambda p: voc.space_of(p.parent), b"cat\ndog\nhen\n"),
    "JSON of another program": (
        "a.json", lambda p: foreign.describe(p.parent), b'{"version": "5.0", "shapes": [{"label": "cat"}]}'),
    "VOC annotation (XML)": ("a.xml", lambda p: voc.read_classes(p, HOOFED), XML.encode()),
    "list of ids": ("a.txt", voc.read_ids, b"2007_000032\n2007_000039\n2007_000063\n"),
    "COCO instances (JSON)": (
        "coco14/annotations/instances_train2014.json", read_coco, json.dumps(coco_content()).encode()),
    "SBD mask (MATLAB)": (
        "a.mat", lambda p: fetch.read_sbd_mask(p.read_bytes(), "a"), class_file(np.array(MASK))),
    "profile (YAML)": ("profiles/odd.yml", read_profile, PROFILE),
    "entered numbers (YAML)": ("measured/server.yml", read_entered, ENTRY.encode()),
    "result (JSON)": ("result.json", files.read_sealed, b'{"rows": {"cam": 48.8}, "digest": "ab"}'),
    "parameter value": ("value.txt", read_value, b"[1, 0.5, [1e-4], {'a': 1}]"),
    "notebook (JSON)": ("x.ipynb", parameters.read_parameters, NOTEBOOK),
    "weights (safetensors)": ("w.safetensors", read_weights, weights(".safetensors")),
    "weights (.pth)": ("w.pth", read_weights, weights(".pth")),
    "weights (old .pth)": ("w.pth", read_weights, weights(".old")),
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
        kind = draw(st.sampled_from(["flip", "cut", "put", "put", "repeat", "number"]))
        digits = [i for i, byte in enumerate(content) if 48 <= byte <= 57]
        at = draw(st.integers(0, len(content)))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[at : at + draw(st.integers(1, max(len(content), 1)))]
        elif kind == "put":
            piece = draw(st.sampled_from(TOKENS) | st.binary(max_size=8))
            content[at : at + draw(st.sampled_from([0, 4]))] = piece
        elif kind == "repeat":
            content[at:at] = content[at : at + 64] * draw(st.integers(1, 8))
        elif digits:  # a number where there is one
            place = digits[at % len(digits)]
            content[place : place + 1] = str(draw(st.integers(-(2**70), 2**70))).encode()
    return bytes(content)


@pytest.fixture(scope="module")
def record():
    found: dict[str, dict] = {}
    yield found
    if len(found) == len(READERS):
        sums = {what: sum(r[what] for r in found.values()) for what in ("inputs", "refused", "grown_mib")}
        slowest = max(r["slowest"] for r in found.values())
        keep("fuzz", sums | {"slowest": slowest, "bombs": len(BOMBS), "readers": found})


@pytest.mark.parametrize("name", READERS)
def test_a_reader_gives_a_value_or_an_error_of_ours(name, record, tmp_path):
    seed = READERS[name][2]
    refusal(name, tmp_path, seed)  # warm: what is imported on first use is not the input's memory
    peak, count = peak_memory(), {"inputs": 0, "refused": 0, "slowest": 0.0}

    @settings(
        max_examples=-(-TOTAL // len(READERS)), deadline=None, database=None, derandomize=True,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutations(seed))
    def check(content: bytes) -> None:
        start = time.thread_time()  # of this thread: the machine may be busy
        count["refused"] += bool(refusal(name, tmp_path, content))
        seconds = time.thread_time() - start
        count["inputs"] += 1
        count["slowest"] = round(max(count["slowest"], seconds), 3)
        assert seconds < SECONDS, f"{seconds:.1f} s"

    check()
    grown = peak_memory() - peak
    assert grown < MEBIBYTES, f"{grown:.0f} MiB"
    record[name] = count | {"grown_mib": round(grown, 1)}


def peak_memory() -> float:  # MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def refusal(name: str, folder: Path, content: bytes) -> str:
    """Return the reader's error, if any; one that is not ours comes through."""
    file, read, _ = READERS[name]
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(folder / file)
        except RecamError as error:
            assert str(error).strip()
            return str(error)
    return ""


# What is made to do harm, by name; all of it has to be refused soon and in little memory.


def entity_bomb() -> bytes:
    lines = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    return f'<!DOCTYPE x [<!ENTITY a0 "ha">{lines}]>{annotation("&a11;")}'.encode()


def changed_coco(part: str, **changes) -> bytes:
    content = coco_content()
    content[part][0] |= changes
    return json.dumps(content).encode()


def runs(counts: list[int], size: tuple[int, int] = (20, 30)) -> bytes:
    return changed_coco("annotations", segmentation={"size": size, "counts": counts})


BIG_PNG = encoded(Image.new("1", (40_000, 40_000)), "PNG")  # a few kilobytes
BOMBS = {
    "PNG of 40,000 x 40,000 pixels": ("PNG image", BIG_PNG, "pixels"),
    "mask of 40,000 x 40,000 pixels": ("mask PNG", BIG_PNG, "pixels"),
    "PostScript as an image": (
        "JPEG image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a readable"),
    "XML entity bomb": ("VOC annotation (XML)", entity_bomb(), "entities"),
    "class name of a million letters": (
        "VOC annotation (XML)", XML.replace("horse", "h" * 10**6).encode(), "class"),
    "id of 10,000 letters": ("list of ids", b"a" * 10**4, "short file name"),
    "id with a control character": ("list of ids", b"a\x1b[2J", "file name"),
    "COCO image of -1 pixels": ("COCO instances (JSON)", changed_coco("images", height=-1), "height"),
    "run lengths of 10^18 pixels": ("COCO instances (JSON)", runs([10**18, 5]), "run lengths"),
    "run lengths for a huge mask": ("COCO instances (JSON)", runs([1, 1], (10**6, 10**6)), "run lengths"),
    "JSON nested 100,000 deep": ("COCO instances (JSON)", b"[" * 10**5, "readable"),
    "YAML that calls a function": ("profile (YAML)", b"x: !!python/object/apply:os.getcwd []", "YAML"),
    "YAML nested 100,000 deep": ("profile (YAML)", b"[" * 10**5, "YAML"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_made_to_do_harm_is_refused_by_name(name, tmp_path):
    kind, content, says = BOMBS[name]
    peak, start = peak_memory(), time.thread_time()
    assert says in refusal(kind, tmp_path, content)
    assert time.thread_time() - start < SECONDS and peak_memory() - peak < MEBIBYTES
