"""The archive for the evaluation server: what is written is right, what is wrong is named; its numbers."""

import tarfile

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from recamlib import paths
from recamlib.book.scoreboard import scoreboard_page
from recamlib.book.submit import TestImages, write_submission
from recamlib.data.labels import VOC12
from recamlib.errors import DataError, RecamError, SettingsError
from recamlib.report.claims import SERVER, server_numbers
from recamlib.report.results import load_results
from recamlib.report.tables import scoreboard

SHAPES = {"2008_000006": (7, 11), "2008_000011": (20, 30), "2008_000012": (33, 5), "2009_000001": (64, 64)}
IDS = tuple(SHAPES)
CLAIM = "table3.none.deeplabv2_recam_test.voc12"
LINK = f"{SERVER}/anonymous/QWERTY.html"
GOOD = f"{CLAIM}: {{value: 58.7, link: '{LINK}', date: 2026-11-26}}\n"


def masks(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {id: rng.integers(0, 21, shape, dtype=np.uint8) for id, shape in SHAPES.items()}


@pytest.fixture
def kit(tmp_path, monkeypatch):
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True)
    (folder / "ImageSets" / "Segmentation" / "test.txt").write_text("".join(f"{id}\n" for id in IDS))
    for id, (height, width) in SHAPES.items():
        Image.new("RGB", (width, height)).save(folder / "JPEGImages" / f"{id}.jpg")
    monkeypatch.setenv("RECAM_DATA", str(tmp_path))
    return folder


@pytest.fixture
def enter(tmp_path, monkeypatch, results):
    """Return a function that enters numbers into a book of its own, not the tracked one."""
    monkeypatch.setattr(paths, "book_dir", lambda: tmp_path / "book")
    (tmp_path / "book" / "measured").mkdir(parents=True)
    return (tmp_path / "book" / "measured" / "server.yml").write_text


@pytest.mark.parametrize("competition", ["comp5", "comp6"])
def test_what_is_written_is_what_was_predicted(tmp_path, competition):
    target = tmp_path / "out" / "results.tgz"
    wanted, options = masks(), {"size": SHAPES.get, "competition": competition}
    assert write_submission(wanted.items(), target, **options) == target
    with tarfile.open(target) as tar:
        assert tar.getnames() == [f"results/VOC2012/Segmentation/{competition}_test_cls/{i}.png" for i in IDS]
        for id, entry in zip(IDS, tar, strict=True):
            assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.mode) == (0, 0, 0, "", 0o644)
            image = Image.open(tar.extractfile(entry))
            assert image.mode == "P"
            np.testing.assert_array_equal(np.array(image), wanted[id])
            np.testing.assert_array_equal(np.reshape(image.getpalette(), (-1, 3)), VOC12.palette)
    # three colours of the devkit, written down: aeroplane, person, tvmonitor
    assert VOC12.palette[[1, 15, 20]].tolist() == [[128, 0, 0], [192, 128, 128], [0, 64, 128]]
    again = write_submission(wanted.items(), tmp_path / "again.tar.gz", **options)
    assert target.read_bytes() == again.read_bytes()


def changed(mask: np.ndarray) -> list:
    return list((masks() | {IDS[1]: mask}).items())


@pytest.mark.parametrize("predicted, message", [
    (changed(np.full((20, 30), 255, np.uint8)), "'2008_000011' holds the value 255, 600 pixels"),
    (changed(np.full((20, 30), 21, np.uint8)), "the value 21, 600 pixels"),
    (changed(np.zeros((30, 20), np.uint8)), "swapped"), (changed(np.zeros((10, 15), np.uint8)), "resize"),
    (changed(np.zeros((20, 30, 3), np.uint8)), "shape"),
])  # fmt: skip
def test_a_wrong_mask_stops_the_writing_and_the_earlier_archive_stays(tmp_path, predicted, message):
    target = tmp_path / "out" / "results.tgz"
    write_submission(masks(1).items(), target, size=SHAPES.get)
    before = target.read_bytes()
    with pytest.raises(DataError, match=message):
        write_submission(predicted, target, size=SHAPES.get)
    assert list(target.parent.iterdir()) == [target] and target.read_bytes() == before
    for path, competition in ((target, "comp7"), (target.with_suffix(".zip"), "comp6")):
        with pytest.raises(SettingsError, match="did you mean 'comp|.tar.gz or .tgz"):
            write_submission([], path, size=SHAPES.get, competition=competition)


def test_test_images_need_no_annotations(kit):
    images = TestImages(kit.parent.parent)
    assert images.ids == IDS and len(images) == 4 and {id: images.size(id) for id in images.ids} == SHAPES
    assert images.image(IDS[0]).shape == (3, 7, 11)
    assert not hasattr(images, "labels") and not hasattr(images, "mask")
    (kit / "ImageSets" / "Segmentation" / "test.txt").unlink()
    with pytest.raises(DataError, match="test.txt is missing; sign in at the evaluation server"):
        TestImages(kit)


def test_numbers_of_the_server_are_shown_as_entered(enter):
    assert server_numbers() == {}
    enter(GOOD + GOOD.replace(CLAIM, "table4.without_saliency.ReCAM.test").replace("58.7", "68.44"))
    assert load_results() == []  # not a run
    board = scoreboard([]).set_index("claim")
    assert board.loc[CLAIM, "here"] == 58.7 and board.loc[CLAIM, "verdict"] == "entered"
    assert board.loc[CLAIM, "data"] == f"entered from the server: {LINK}, 2026-11-26"
    assert (board["verdict"] == "entered").sum() == 2
    page = BeautifulSoup(scoreboard_page([]), "html.parser")
    texts = [cell.get_text() for cell in page.select("td.v-entered")]
    assert texts == ["58.7 58.7a entered, not measured", "68.4 68.4a entered, not measured"]


@pytest.mark.parametrize("before, after, message", [
    ("recam_test", "recam_val", "is no number of the test split (did you mean"),
    (CLAIM, "xyz", "they look like table3.none"), ("58.7", "-1", "greater than or equal to 1"),
    ("58.7", "100.1", "less than or equal to 100"), ("58.7", "0.587", "greater than or equal to 1"),
    ("58.7", ".nan", "value"), ("58.7", "'58.7'", "value"), ("58.7", "true", "value"),
    ("2026-11-26", "soon", "date"), ("date: ", "day: ", "date"),
    (LINK, "javascript:alert(1)//anonymous/x", "link"), (LINK, "http://u:p@host/anonymous/x", "link"),
    (LINK, f"{SERVER}/leaderboard", "link"), (LINK, f"{LINK}<script>", "link"),
    (LINK, f"{LINK}](x)|", "link"), (GOOD, "[1]", "the file"), (GOOD, "{", "YAML"),
])  # fmt: skip
def test_an_edited_file_is_an_error_that_names_it(enter, before, after, message):
    enter(GOOD.replace(before, after))
    with pytest.raises(RecamError, match="server.yml") as caught:
        scoreboard_page([])
    assert message in str(caught.value)


def test_the_command_packs_and_says_how_to_upload(kit, recam, tmp_path):
    folder, archive = tmp_path / "predicted", tmp_path / "results.tgz"
    folder.mkdir()
    for id, mask in masks().items():
        Image.fromarray(mask).save(folder / f"{id}.png")  # grey indices get the palette
    done = recam("submit", folder, archive)
    assert done.exit_code == 0, done.stderr
    for text in ("4 masks for comp6", "this is a part", SERVER, "book/measured/server.yml"):
        assert text in done.stdout
    with tarfile.open(archive) as tar:
        assert len(tar.getnames()) == 4
    Image.fromarray(np.full((33, 5), 255, np.uint8)).save(folder / f"{IDS[2]}.png")
    done = recam("submit", folder, tmp_path / "b.tgz", "--competition", "comp5")
    assert done.exit_code == 1 and f"error: mask '{IDS[2]}' holds the value 255" in done.stderr
    (folder / f"{IDS[2]}.png").unlink()
    done = recam("submit", folder, tmp_path / "b.tgz")
    assert done.exit_code == 1 and f"1 of 4 masks are missing in {folder}, the first is" in done.stderr
    assert not list(tmp_path.glob("b.tgz*"))
