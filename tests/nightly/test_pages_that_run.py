"""Pages of the book that say what to type: what they say is done here, as it stands."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from recamlib.book import parameters
from recamlib.book import run as runner
from recamlib.cli import app
from recamlib.data.labels import VOC12
from recamlib.paths import book_dir, notebooks_dir
from recamlib.report.results import read

CLASSES = ("ring", "cross", "bar")


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a page in one language."""
    text = (book_dir() / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_the_page_on_extending_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "\n".join(blocks("extend.md", "python"))
    assert code.count("assert") >= 6
    names: dict = {"__name__": "extend_page"}
    exec(compile(code, "extend.md", "exec"), names)
    assert names["score"].interval()[0] < names["score"].miou < names["score"].interval()[1]


def draw(
    rng: np.random.Generator, shown: tuple[int, ...], height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture (H, W, 3) with the shapes asked for, each in its half, and its mask (H, W)."""
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), np.uint8)
    for place, k in enumerate(shown):
        y, x = (
            height / 2 + rng.uniform(-8, 8),
            width * (1 + 2 * place) / (2 * len(shown)) + rng.uniform(-6, 6),
        )
        dy, dx, size = rows - y, columns - x, rng.uniform(16, 22)
        distance = np.hypot(dy, dx)
        shapes = (
            (distance < size) & (distance > size / 2),
            (np.minimum(abs(dy), abs(dx)) < size / 4) & (np.maximum(abs(dy), abs(dx)) < size),
            (abs(dy) < size / 3) & (abs(dx) < size),
        )
        mask[shapes[k]] = k + 1
    colours = np.array([[90, 110, 90], [220, 70, 50], [60, 90, 220], [230, 200, 60]])
    noise = rng.normal(0, 12, (height, width, 3))
    return np.clip(colours[mask] + noise, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def own_data(tmp_path_factory) -> Path:
    """Forty drawn pictures of three classes, laid out by hand as the page says."""
    root, rng = tmp_path_factory.mktemp("own") / "mydata", np.random.default_rng(0)
    kit = root / "VOCdevkit" / "VOC2012"
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (kit / part).mkdir(parents=True)
    (kit / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    ids = [f"photo-{number:02d}" for number in range(40)]
    for number, id in enumerate(ids):
        shown = ((0,), (1,), (2,), (0, 1), (1, 2))[number % 5]
        picture, mask = draw(rng, shown, 80, 100 + 4 * (number % 3))
        Image.fromarray(picture).save(kit / "JPEGImages" / f"{id}.jpg")
        Image.fromarray(mask).save(kit / "SegmentationClass" / f"{id}.png")
        things = "".join(f"<object><name>{CLASSES[k]}</name></object>" for k in shown)
        (kit / "Annotations" / f"{id}.xml").write_text(f"<annotation>{things}</annotation>")
    for split, part in (("train", ids[:30]), ("val", ids[30:])):
        (kit / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(part) + "\n")
    return root


def test_the_page_on_your_own_data_runs(own_data, tmp_path, monkeypatch):
    results, folder = tmp_path / "results", tmp_path / "notebooks"
    monkeypatch.setenv("RECAM_RESULTS", str(results))
    monkeypatch.setattr(runner, "book_dir", lambda: tmp_path)
    (folder / "profiles").mkdir(parents=True)  # the page's profile must not land in the checkout
    for notebook in parameters.list_notebooks(notebooks_dir()):
        (folder / notebook.name).write_bytes(notebook.read_bytes())
    monkeypatch.setattr(parameters, "notebooks_dir", lambda: folder)
    (profile,) = blocks("your_data.md", "yaml")
    (folder / "profiles" / "mydata.yml").write_text(profile)
    said = {}
    for line in "".join(blocks("your_data.md", "bash")).splitlines():
        if line.startswith("export RECAM_DATA"):
            monkeypatch.setenv("RECAM_DATA", str(own_data))
            continue
        words = line.split()
        assert words[0] == "recam"
        more = (
            ["-p", "TrainClassifier.epochs=2", "-p", "sweep=[]"] if words[1] == "run" else []
        )  # enough to see that it works
        done = CliRunner().invoke(app, [*words[1:], *more])
        assert done.exit_code == 0, f"{line}: {done.stderr or done.exception}"
        said[line] = done.stdout
    assert "30 images" in said["recam data check voc12"] and "10 images" in said["recam data check voc12"]
    result = read(results / "02_table1_ablations" / "latest_mydata.json")
    assert result["images"] == {"train": 30, "scored": 30}
    assert result["own_classes"] == list(CLASSES)
    assert set(result["rows"]["bce_only"]["per_class"]) == {"background", *CLASSES}
    from recamlib.report.tables import scoreboard

    assert set(scoreboard([result])["verdict"]) <= {"not run", "entered"}


def test_the_lines_for_data_without_masks_run(own_data, tmp_path, monkeypatch, capsys):
    root = tmp_path / "mydata"
    shutil.copytree(own_data, root, ignore=shutil.ignore_patterns("SegmentationClass"))
    for name, value in (("RECAM_RESULTS", tmp_path / "results"), ("RECAM_DATA", root)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    code = blocks("your_data.md", "python")[0]
    assert "epochs=15" in code and "epochs=4" in code
    code = code.replace("epochs=15", "epochs=1").replace("epochs=4", "epochs=1")
    exec(compile(code, "your_data.md", "exec"), {"__name__": "page"})
    assert len(list(tmp_path.glob("photo-*_mask.png"))) == 10


def test_classes_of_ones_own_are_checked(own_data, tmp_path, monkeypatch):
    from recamlib.data.voc import VocImages, own_classes
    from recamlib.errors import DataError
    from recamlib.stages import DataSettings

    assert own_classes(own_data) == CLASSES and own_classes(tmp_path) == ()
    monkeypatch.setenv("RECAM_DATA", str(own_data))
    before = DataSettings(name="voc12").fingerprint
    listed = own_data / "VOCdevkit" / "VOC2012" / "classes.txt"
    try:
        for text, message in (
            ("ring\ncross\n", "names the class 'bar'"), ("ring\nring\nbar\n", "none twice"),
            ("", "at least one class"),
            ("background\nring\n", "always there"),
        ):  # fmt: skip
            listed.write_text(text)
            with pytest.raises(DataError, match=message):
                VocImages(own_data, "train").label_matrix()
        listed.unlink()
        with pytest.raises(DataError, match=f"unknown to {VOC12.name}"):
            VocImages(own_data, "train").label_matrix()
        listed.write_text("bar\nring\ncross\n")
        assert VocImages(own_data, "train_aug").space.classes == ("bar", "ring", "cross")
        from recamlib.stages import base

        base._fingerprint.cache_clear()
        assert DataSettings(name="voc12").fingerprint != before
    finally:
        listed.write_text("\n".join(CLASSES) + "\n")
