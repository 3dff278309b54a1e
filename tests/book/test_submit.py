"""The package for the evaluation server: what is written is right, what is wrong is found and named."""

import gzip
import io
import json
import struct
import tarfile
import zlib

import numpy as np
import pytest
from bs4 import BeautifulSoup
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from recamlib import paths
from recamlib.book.scoreboard import scoreboard_page
from recamlib.book.submit import OFFICIAL, TestImages, check_submission, write_submission
from recamlib.cli import app
from recamlib.data.labels import VOC12
from recamlib.errors import DataError, RecamError, SettingsError
from recamlib.report.entered import SERVER, enter_number, entered_numbers, server_claims, server_file
from recamlib.report.kept import load_results
from recamlib.report.tables import scoreboard

SHAPES = {"2008_000006": (7, 11), "2008_000011": (20, 30), "2008_000012": (33, 5), "2009_000001": (64, 64)}
IDS = tuple(SHAPES)
PLACE = "results/VOC2012/Segmentation/comp6_test_cls"
CLAIM = "table3.none.deeplabv2_recam_test.voc12"
LINK = f"{SERVER}/anonymous/QWERTY.html"


def masks(seed: int = 0) -> dict[str, np.ndarray]:
    """Return a mask of random classes for every image."""
    rng = np.random.default_rng(seed)
    return {id: rng.integers(0, 21, shape, dtype=np.uint8) for id, shape in SHAPES.items()}


def png(mask, *, palette=VOC12.palette, **options) -> bytes:
    image, file = Image.fromarray(np.asarray(mask)), io.BytesIO()
    if palette is not None:
        image.putpalette(np.ascontiguousarray(palette).tobytes())
    image.save(file, "PNG", **options)
    return file.getvalue()


def files(**changed: bytes) -> dict[str, bytes]:
    """Return name and content of every file of a right archive, some of them changed."""
    return {f"{PLACE}/{id}.png": changed.get(id, png(mask)) for id, mask in masks().items()}


def pack(path, content, *extra: tarfile.TarInfo, compress: bool = True):
    """Write an archive entry by entry, whatever the entries are."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, data in content.items() if isinstance(content, dict) else content:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for entry in extra:
            tar.addfile(entry)
    path.write_bytes(gzip.compress(raw.getvalue()) if compress else raw.getvalue())
    return path


def special(name: str, kind: bytes, **fields) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for field, value in fields.items():
        setattr(entry, field, value)
    return entry


def check(path) -> list[str]:
    return check_submission(path, ids=IDS, sizes=SHAPES)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out" / "results.tgz"


@pytest.fixture
def kit(tmp_path, monkeypatch):
    """A devkit with a test list and images, nothing else."""
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "test.txt").write_text("".join(f"{id}\n" for id in IDS))
    for id, (height, width) in SHAPES.items():
        Image.new("RGB", (width, height)).save(folder / "JPEGImages" / f"{id}.jpg")
    monkeypatch.setenv("RECAM_DATA", str(tmp_path))
    return folder


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of its own, so that nothing is entered into the tracked one."""
    monkeypatch.setattr(paths, "book_dir", lambda: tmp_path / "book")
    return tmp_path / "book"


def recam(*words: str):
    return CliRunner().invoke(app, ["submit", *words])


# --- writing


@given(seed=st.integers(0, 2**32 - 1), competition=st.sampled_from(["comp5", "comp6"]))
@settings(max_examples=10, deadline=None)
def test_what_is_written_is_what_was_predicted(tmp_path_factory, seed, competition):
    path = tmp_path_factory.mktemp("round") / "results.tar.gz"
    wanted = masks(seed)
    options = {"ids": IDS, "sizes": SHAPES, "competition": competition}
    assert write_submission(wanted.items(), path, **options) == path
    assert check(path) == []
    with tarfile.open(path) as tar:
        assert tar.getnames() == [f"results/VOC2012/Segmentation/{competition}_test_cls/{i}.png" for i in IDS]
        for id, entry in zip(IDS, tar, strict=True):
            assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.mode) == (0, 0, 0, "", 0o644)
            image = Image.open(tar.extractfile(entry))
            assert image.mode == "P"
            np.testing.assert_array_equal(np.array(image), wanted[id])
            np.testing.assert_array_equal(np.reshape(image.getpalette(), (-1, 3)), VOC12.palette)
    # three colours of the devkit, written down: aeroplane, person, tvmonitor
    assert VOC12.palette[[1, 15, 20]].tolist() == [[128, 0, 0], [192, 128, 128], [0, 64, 128]]


def test_the_same_masks_give_the_same_bytes_under_any_name(tmp_path, target):
    other = tmp_path / "again.tar.gz"
    for path in (target, other):
        write_submission(masks().items(), path, ids=IDS, sizes=SHAPES.get)
    assert target.read_bytes() == other.read_bytes()


def test_one_mask_is_held_at_a_time(target):
    asked = []

    def predicted():
        for id, mask in masks().items():
            asked.append(id)
            yield id, mask

    sizes = {id: SHAPES[id] for id in IDS[:2]}
    with pytest.raises(DataError, match="no size is given for image '2008_000012'"):
        write_submission(predicted(), target, ids=IDS, sizes=sizes)
    assert asked == list(IDS[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {IDS[1]: np.full((20, 30), 255, np.uint8)},
            "'2008_000011' holds the value 255 (ignore), 600 pixels",
        ),
        ({IDS[1]: np.full((20, 30), 21, np.uint8)}, "holds the value 21, 600 pixels"),
        ({IDS[1]: np.zeros((30, 20), np.uint8)}, "its image (20, 30); the sides are swapped"),
        ({IDS[1]: np.zeros((10, 15), np.uint8)}, "has shape (10, 15), its image (20, 30); resize the scores"),
        ({IDS[1]: np.zeros((20, 30, 3), np.uint8)}, "has shape (20, 30, 3), its image (20, 30)"),
        ({IDS[1]: np.zeros((20, 30), np.int64)}, "has the type int64; uint8 was expected"),
        ({"2008_00001": np.zeros((2, 2), np.uint8)}, "is not on the list (did you mean '2008_000"),
    ],
)
def test_a_wrong_mask_stops_the_writing_and_leaves_nothing(target, change, message):
    with pytest.raises(DataError) as caught:
        write_submission((masks() | change).items(), target, ids=IDS, sizes=SHAPES)
    assert message in str(caught.value)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((0, 1, 3), "'2009_000001' came where '2008_000012' was expected"),
        ((0, 1, 1), "'2008_000011' came where '2008_000012' was expected"),
        ((0, 1, 2, 3, 0), "'2008_000006' came where the end was expected"),
        ((0, 1), "2 of 4 masks are missing, the first is '2008_000012'"),
        ((), "4 of 4 masks are missing"),
    ],
)
def test_masks_follow_the_list_to_its_end(target, order, message):
    pairs = ((IDS[i], masks()[IDS[i]]) for i in order)
    with pytest.raises(DataError, match=message):
        write_submission(pairs, target, ids=IDS, sizes=SHAPES)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_the_earlier_archive(target, error):
    def interrupted():
        yield from list(masks(1).items())[:2]
        raise error

    with pytest.raises(error):
        write_submission(interrupted(), target, ids=IDS, sizes=SHAPES)
    assert list(target.parent.iterdir()) == []
    write_submission(masks().items(), target, ids=IDS, sizes=SHAPES)
    before = target.read_bytes()
    with pytest.raises(error):
        write_submission(interrupted(), target, ids=IDS, sizes=SHAPES)
    assert list(target.parent.iterdir()) == [target] and target.read_bytes() == before


def test_options_are_checked_before_anything_is_written(tmp_path, target):
    options = {"ids": IDS, "sizes": SHAPES}
    with pytest.raises(SettingsError, match="no competition 'comp7' .did you mean 'comp"):
        write_submission([], target, competition="comp7", **options)
    with pytest.raises(SettingsError, match="has to end in .tar.gz or .tgz"):
        write_submission([], tmp_path / "results.zip", **options)
    for ids in ((), ("a", "a"), ("../a",), ("a\\b",), ("a\n",), ("..",)):
        with pytest.raises(DataError, match="list of ids|is no image id"):
            write_submission([], target, ids=ids, sizes=SHAPES)
    assert not target.parent.exists()


# --- checking


def test_folders_and_a_plain_tar_file_are_fine(tmp_path):
    folders = [special(name, tarfile.DIRTYPE) for name in ("results", "results/VOC2012", PLACE)]
    for compress in (True, False):
        assert check(pack(tmp_path / "a.tgz", files(), *folders, compress=compress)) == []


def changed_palette() -> np.ndarray:
    palette = VOC12.palette.copy()
    palette[1] = 255
    return palette


def damaged(position: int) -> bytes:
    data = bytearray(png(masks()[IDS[1]]))
    data[position] ^= 0xFF
    return bytes(data)


MASK = masks()[IDS[1]]
BAD_FILES = {
    "ignore": (png(np.full((20, 30), 255, np.uint8)), "holds the value 255 (ignore), 600 pixels"),
    "value": (png(np.where(MASK == 3, 21, MASK).astype(np.uint8)), "holds the value 21"),
    "swapped": (png(MASK.T), "has shape (30, 20), its image (20, 30); the sides are swapped"),
    "size": (png(MASK[:5]), "has shape (5, 30), its image (20, 30); resize"),
    "grey": (png(MASK, palette=None), "is stored in mode L; a PNG of palette indices (mode P)"),
    "colours": (png(VOC12.palette[MASK], palette=None), "is stored in mode RGB"),
    "palette": (png(MASK, palette=changed_palette()), "has another palette than the devkit's"),
    "short palette": (png(MASK, palette=VOC12.palette[:5]), "has another palette than the devkit's"),
    "cut": (png(MASK)[:-40], "does not decode"),
    "flipped in pixels": (damaged(-60), "does not decode"),
    "flipped checksum": (damaged(-14), "does not decode"),
    "flipped in header": (damaged(18), "is no readable PNG"),
    "flipped in palette": (damaged(60), "is no readable PNG"),
    "text": (b"this is no picture", "is no readable PNG"),
    "empty": (b"", "is no readable PNG"),
}


def test_jpeg_is_no_png(tmp_path):
    file = io.BytesIO()
    Image.new("L", (30, 20)).save(file, "JPEG")
    (finding,) = check(pack(tmp_path / "a.tgz", files(**{IDS[1]: file.getvalue()})))
    assert finding == f"{PLACE}/{IDS[1]}.png is no readable PNG"


@pytest.mark.parametrize(("data", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_found_and_named(tmp_path, data, message):
    (finding,) = check(pack(tmp_path / "a.tgz", files(**{IDS[1]: data})))
    assert finding.startswith(f"{PLACE}/{IDS[1]}.png {message}")


def test_a_file_of_few_colours_may_have_a_short_palette(tmp_path):
    data = png(np.zeros((20, 30), np.uint8), palette=VOC12.palette[:2], bits=1)
    assert check(pack(tmp_path / "a.tgz", files(**{IDS[1]: data}))) == []


def renamed(old: str, new: str) -> list[tuple[str, bytes]]:
    return [(name.replace(old, new), data) for name, data in files().items()]


FIRST = f"{PLACE}/{IDS[0]}.png"
BAD_LISTS = {
    "missing": (list(files().items())[1:], [f"{FIRST} is missing"]),
    "extra": ([*files().items(), (f"{PLACE}/x.png", b"")], [f"{PLACE}/x.png is not on the list"]),
    "twice": ([*files().items(), (FIRST, b"")], [f"{FIRST} is there twice"]),
    "hidden": ([*files().items(), ("._results", b"")], ["._results does not lie where the server looks"]),
    "wrong folder": (
        renamed(f"{PLACE}/{IDS[0]}", f"VOC2012/{IDS[0]}"),
        [f"VOC2012/{IDS[0]}.png does not lie where the server looks, {PLACE}/ID.png", f"{FIRST} is missing"],
    ),
    "wrong suffix": (
        renamed(f"{IDS[0]}.png", f"{IDS[0]}.PNG"),
        [f"{PLACE}/{IDS[0]}.PNG does not lie where", f"{FIRST} is missing"],
    ),
    "dot": (
        renamed(f"{PLACE}/{IDS[0]}", f"./{PLACE}/{IDS[0]}"),
        [f"./{PLACE}/{IDS[0]}.png does not lie where", f"{FIRST} is missing"],
    ),
    "mixed": (renamed(f"comp6_test_cls/{IDS[0]}", f"comp5_test_cls/{IDS[0]}"), ["mixes comp5 and comp6"]),
    "up": ([*files().items(), ("results/../../x.png", b"")], ["results/../../x.png leads out of the folder"]),
    "up, Windows": ([*files().items(), ("..\\x.png", b"")], ["..\\x.png leads out of the folder"]),
    "absolute": ([*files().items(), ("/etc/x.png", b"")], ["/etc/x.png leads out of the folder"]),
    "drive": ([*files().items(), ("C:\\x.png", b"")], ["C:\\x.png leads out of the folder"]),
    "terminal": ([*files().items(), ("a\x1b[2J\n.png", b"")], [r"'a\x1b[2J\n.png' does not lie where"]),
}


@pytest.mark.parametrize(("content", "messages"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_a_bad_list_of_files_is_found_and_named(tmp_path, content, messages):
    found = check(pack(tmp_path / "a.tgz", content))
    assert len(found) == len(messages)
    for finding, message in zip(found, messages, strict=True):
        assert message in finding


SPARSE = {"GNU.sparse.map": "0,0", "GNU.sparse.size": "9", "GNU.sparse.name": FIRST}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (special(FIRST, tarfile.SYMTYPE, linkname="/etc/passwd"), f"{FIRST} is a link or a device"),
        (special(FIRST, tarfile.LNKTYPE, linkname="../x"), f"{FIRST} is a link or a device"),
        (special(FIRST, tarfile.FIFOTYPE), f"{FIRST} is a link or a device"),
        (special(FIRST, tarfile.GNUTYPE_SPARSE), f"{FIRST} is a link or a device"),
        (special(FIRST, tarfile.REGTYPE, pax_headers=SPARSE), f"{FIRST} is a link or a device"),
        (special(FIRST, tarfile.CHRTYPE), f"{FIRST} is a link or a device"),
        (special("results/SBD", tarfile.DIRTYPE), "results/SBD is a folder that the server does not"),
    ],
)
def test_links_devices_and_folders_are_refused(tmp_path, entry, message):
    (finding,) = check(pack(tmp_path / "a.tgz", files(), entry))
    assert finding.startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tgz"]


def test_a_link_does_not_stand_for_a_mask(tmp_path):
    content = list(files().items())[1:]
    found = check(pack(tmp_path / "a.tgz", content, special(FIRST, tarfile.SYMTYPE, linkname="x.png")))
    assert [f.split(" is ")[1].split(",")[0] for f in found] == ["a link or a device", "missing"]


def test_a_bomb_is_not_read(tmp_path, monkeypatch):
    zeros = bytes(2**24)
    path = pack(tmp_path / "a.tgz", [(FIRST, zeros), *list(files().items())[1:]])
    (finding,) = check(path)
    assert finding.startswith(f"{FIRST} has 16,777,216 bytes, a mask at most 73,728; the rest was not read")
    # a small file whose header promises many pixels is never decoded
    load = PngImagePlugin.PngImageFile.load
    small = lambda self: load(self) if self.width < 100 else pytest.fail("decoded")  # noqa: E731
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", small)
    huge = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", b"\0\0\x27\x10\0\0\x27\x10\x08\x03\0\0\0")
    huge += _chunk(b"PLTE", VOC12.palette.tobytes()) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")
    (finding,) = check(pack(path, files(**{IDS[0]: huge})))
    assert finding.startswith(f"{FIRST} has shape (10000, 10000), its image (7, 11)")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _header(name: str, kind: bytes, size: bytes) -> bytes:
    """Return the header of an entry with any text as its size."""
    data = bytearray(special(name, kind).tobuf(tarfile.GNU_FORMAT))
    data[124:136] = size
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data)
    return bytes(data)


HOSTILE = {
    "long name": (_header("././@LongLink", tarfile.GNUTYPE_LONGNAME, b"77777777777\0"), "far too long"),
    "long header": (_header("pax", tarfile.XHDTYPE, b"00010000000\0"), "far too long"),
    "negative size": (_header(FIRST, tarfile.REGTYPE, b"\xff" * 12), "has -1 bytes"),
    "negative and large": (_header(FIRST, tarfile.REGTYPE, b"\xff" * 10 + b"\xf0\0"), "has -4,096 bytes"),
    "nested": (_header("pax", tarfile.XHDTYPE, b"00000000000\0") * 3000, "cannot be read to its end"),
}


@pytest.mark.parametrize(("data", "message"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.timeout(20)
def test_a_hostile_header_costs_nothing(tmp_path, data, message):
    path = tmp_path / "a.tar"
    path.write_bytes(data + bytes(10240))
    (finding,) = check(path)
    assert message in finding


def test_endless_entries_end(tmp_path):
    (finding,) = set(check(pack(tmp_path / "a.tgz", [("x", b"")] * 2000))[1008:])
    assert "one entry too many, as the list has 4 ids; the rest was not read" in finding


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_an_archive_that_is_cut_is_found(tmp_path, keep):
    path = pack(tmp_path / "a.tgz", files())
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    found = check(path)
    assert "cannot be read to its end" in found[-1] and str(path) in found[-1]


def test_what_hides_behind_the_end_is_found(tmp_path):
    path = pack(tmp_path / "a.tar", files(), compress=False)
    path.write_bytes(path.read_bytes() + b"more")
    (finding,) = check(path)
    assert finding.startswith("the archive goes on after its end")


def test_other_files_are_no_archives(tmp_path):
    path = tmp_path / "a.tgz"
    for content in (b"", b"PK\x03\x04 a zip file", b"\x1f\x8b nearly gzip", bytes(100)):
        path.write_bytes(content)
        assert check(path), content
    with pytest.raises(DataError, match="is missing; write it with"):
        check(tmp_path / "none.tgz")


@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_any_flipped_byte_is_a_finding_or_harmless(tmp_path_factory, position, value):
    path = tmp_path_factory.mktemp("flip") / "a.tar"
    data = bytearray(pack(path, files(), compress=False).read_bytes())
    data[int(position * len(data))] ^= value
    path.write_bytes(data)
    if not check(path):  # then masks are what they were
        with tarfile.open(path) as tar:
            for entry in tar:
                id = entry.name.split("/")[-1].removesuffix(".png")
                np.testing.assert_array_equal(np.array(Image.open(tar.extractfile(entry))), masks()[id])


# --- the test list


def test_test_images_need_no_annotations(kit):
    images = TestImages(kit.parent.parent)
    assert images.ids == IDS and len(images) == 4
    assert {id: images.size(id) for id in images.ids} == SHAPES
    assert images.image(IDS[0]).shape == (3, 7, 11)
    assert not hasattr(images, "labels") and not hasattr(images, "mask")
    assert "has 4 ids, the official list 1,456: this is a part" in images.part
    listed = kit / "ImageSets" / "Segmentation" / "test.txt"
    listed.write_text("".join(f"2008_{n:06}\n" for n in range(OFFICIAL)))
    assert TestImages(kit).part == ""
    listed.unlink()
    with pytest.raises(DataError, match="test.txt is missing; sign in at the evaluation server"):
        TestImages(kit)


# --- numbers from the server


def test_only_numbers_of_the_test_split_are_entered(book):
    assert len(server_claims()) == 4 * 4 + 10 + 9
    assert entered_numbers() == {} and not server_file().exists()
    for claim, value, link, message in [
        ("table3.none.deeplabv2_recam_val.voc12", 58.7, LINK, "no number of the test split (did you mean"),
        ("table3.none.deeplabv2_recam_tst.voc12", 58.7, LINK, f"(did you mean '{CLAIM}'?)"),
        ("xyz", 58.7, LINK, "they look like table3.none"),
        (CLAIM, -1.0, LINK, "between 0 and 100, not at -1.0"),
        (CLAIM, 100.1, LINK, "between 0 and 100"),
        (CLAIM, float("nan"), LINK, "between 0 and 100, not at nan"),
        (CLAIM, True, LINK, "between 0 and 100"),
        (CLAIM, 0.587, LINK, "looks like a fraction; enter percent, 58.7"),
        (CLAIM, 58.7, "javascript:alert(1)//anonymous/x", "is no link of an anonymous result page"),
        (CLAIM, 58.7, "http://u:p@host/anonymous/x", "is no link"),
        (CLAIM, 58.7, f"{SERVER}/leaderboard", "is no link"),
        (CLAIM, 58.7, f"{LINK}\n", "is no link"),
        (CLAIM, 58.7, f"{LINK}<script>", "is no link"),
        (CLAIM, 58.7, f"{LINK}](x)|", "is no link"),
    ]:
        with pytest.raises(RecamError) as caught:
            enter_number(claim, value, link)
        assert message in str(caught.value)
    assert not server_file().exists()


def test_entered_numbers_are_shown_as_such(book, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(book / "none"))
    enter_number("table4.without_saliency.ReCAM.test", 68.44, LINK)
    path = enter_number(CLAIM, 50, LINK)
    enter_number(CLAIM, 58.7, f"{LINK}")
    assert path == book / "measured" / "server.json" and [path] == list(path.parent.iterdir())
    assert list(entered_numbers()) == [CLAIM, "table4.without_saliency.ReCAM.test"]  # the paper's order
    assert load_results() == []  # not a run
    board = scoreboard([]).set_index("claim")
    assert board.loc[CLAIM, "here"] == 58.7 and board.loc[CLAIM, "verdict"] == "entered"
    assert board.loc[CLAIM, "data"].startswith(f"entered from the server: {LINK}, 2")
    assert (board["verdict"] == "entered").sum() == 2
    page = scoreboard_page([])
    rows = BeautifulSoup(page, "html.parser").find_all("tr")
    (row,) = [row for row in rows if "none.deeplabv2_recam_test.voc12" in row.get_text()]
    cells = [cell.get_text() for cell in row.find_all("td")]
    assert cells[:2] == ["58.7", "58.7"] and cells[2].startswith("entered from the server: ")
    assert cells[3] == "entered, not measured"
    assert "2 entered" in page


@pytest.mark.parametrize(
    "edit",
    [
        {"link": "<script>/anonymous/x"},
        {"link": None},
        {"value": "58.7"},
        {"value": 587},
        {"date": "<b>"},
        {"date": None},
    ],
)
def test_an_edited_file_is_an_error_that_names_it(book, edit):
    path = enter_number(CLAIM, 58.7, LINK)
    content = json.loads(path.read_text())
    content[CLAIM] |= edit
    path.write_text(json.dumps(content))
    with pytest.raises(RecamError, match="server.json"):
        scoreboard_page([])
    for text in ("{", "[1]", '{"x": 1}', f'{{"{CLAIM}": {{}}}}', json.dumps({"x": content[CLAIM]})):
        path.write_text(text)
        with pytest.raises(RecamError, match="server.json"):
            entered_numbers()


# --- the command line


def test_write_then_check_says_how_to_upload(kit, tmp_path):
    folder, archive = tmp_path / "predicted", tmp_path / "results.tgz"
    folder.mkdir()
    for id, mask in masks().items():
        (folder / f"{id}.png").write_bytes(png(mask, palette=None))  # grey indices get the palette
    (folder / "other.png").write_bytes(b"")
    done = recam("write", str(folder), str(archive))
    assert done.exit_code == 0, done.stderr
    for text in ("4 masks for comp6", "this is a part", SERVER, "recam submit enter", "1 PNG files in"):
        assert text in done.stdout
    assert check(archive) == []
    done = recam("check", str(archive))
    assert done.exit_code == 0 and "4 masks, nothing wrong" in done.stdout and "a part" in done.stdout

    (folder / f"{IDS[2]}.png").write_bytes(png(np.full((33, 5), 255, np.uint8)))
    done = recam("write", str(folder), str(tmp_path / "b.tgz"), "--competition", "comp5")
    assert done.exit_code == 1 and f"error: mask '{IDS[2]}' holds the value 255" in done.stderr
    (folder / f"{IDS[2]}.png").unlink()
    done = recam("write", str(folder), str(tmp_path / "b.tgz"))
    assert done.exit_code == 1 and f"1 of 4 masks are missing in {folder}, the first is" in done.stderr
    assert not list(tmp_path.glob("b.tgz*"))


def test_check_prints_the_first_findings_and_the_count(kit, tmp_path):
    bad = pack(tmp_path / "a.tgz", [(f"x{n}", b"") for n in range(30)])
    done = recam("check", str(bad))
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert len(lines) == 21 and lines[-1] == "and 14 more"
    assert done.stderr == f"error: {bad}: 34 problems\n"


def test_enter_says_what_was_kept_and_what_it_replaced(book):
    done = recam("enter", CLAIM, "58.1", LINK)
    assert done.exit_code == 0, done.stderr
    assert f"{CLAIM}: 58.1, in the paper 58.7" in done.stdout and "server.json" in done.stdout
    assert "58.4, instead of 58.1, in the paper" in recam("enter", CLAIM, "58.4", LINK).stdout
    done = recam("enter", CLAIM, "0.58", LINK)
    assert done.exit_code == 1 and done.stderr.startswith("error: 0.58 looks like a fraction")
    assert entered_numbers()[CLAIM]["value"] == 58.4
