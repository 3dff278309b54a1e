"""Pages of the book that say what to type: what they say is done here, as it stands."""

import shlex
import shutil
from pathlib import Path

import pytest

from recamlib.book import parameters
from recamlib.book import run as runner
from recamlib.paths import book_dir, notebooks_dir
from recamlib.report.results import read
from recamlib.report.tables import scoreboard
from tests.book.test_pages import blocks, run
from tests.data.devkits import NAMES, write_kit

OWN = book_dir() / "your_data.md"


def test_the_page_on_extending_runs(results, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = "\n".join(blocks(book_dir() / "extend.md", "python"))
    assert code.count("assert") >= 6
    names = run(book_dir() / "extend.md", code)
    assert names["score"].interval()[0] < names["score"].miou < names["score"].interval()[1]


@pytest.fixture(scope="module")
def own_data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("own") / "mydata"
    write_kit(root, repeat=5, size=(80, 100))  # forty pictures, as the page says
    return root


def test_the_page_on_your_own_data_runs(own_data, results, recam, tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    monkeypatch.setattr(runner, "book_dir", lambda: tmp_path)
    (folder / "profiles").mkdir(parents=True)  # the page's profile must not land in the checkout
    for notebook in parameters.list_notebooks(notebooks_dir()):
        (folder / notebook.name).write_bytes(notebook.read_bytes())
    monkeypatch.setattr(parameters, "notebooks_dir", lambda: folder)
    (profile,) = blocks(OWN, "yaml")
    (folder / "profiles" / "mydata.yml").write_text(profile)
    for line in "".join(blocks(OWN, "bash")).splitlines():
        if line.startswith("export RECAM_DATA"):
            monkeypatch.setenv("RECAM_DATA", str(own_data))
            continue
        program, *words = shlex.split(line, comments=True)
        assert program == "recam"
        if "mini" in words:  # needs ImageNet weights
            continue
        short = ["TrainClassifier.epochs=2", "Reactivate.epochs=1", "sweep=[]"]  # enough to see that it works
        more = [word for each in short for word in ("-p", each)] if words[0] == "run" else []
        done = recam(*words, *more)
        assert done.exit_code == 0, f"{line}: {done.stderr or done.exception}"
    result = read(results / "02_table1_ablations" / "latest_mydata.json")
    assert result["images"] == {"train": 30, "scored": 30} and result["own_classes"] == list(NAMES)
    assert set(result["rows"]["bce_only"]["per_class"]) == {"background", *NAMES}
    assert set(scoreboard([result])["verdict"]) <= {"not run", "entered"}


def test_the_lines_for_data_without_masks_run(own_data, results, tmp_path, monkeypatch):
    root = shutil.copytree(own_data, tmp_path / "data", ignore=shutil.ignore_patterns("SegmentationClass"))
    monkeypatch.setenv("RECAM_DATA", str(root))
    monkeypatch.chdir(tmp_path)
    run(OWN, blocks(OWN, "python")[0], epochs="1")
    assert len(list(tmp_path.glob("p*_mask.png"))) == 10
