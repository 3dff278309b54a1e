"""Pages of the book that say what to type: what they say is done here, as it stands."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from recamlib.book import parameters
from recamlib.book import run as runner
from recamlib.cli import app
from recamlib.paths import book_dir, notebooks_dir
from recamlib.report.results import read
from recamlib.report.tables import scoreboard
from tests.data.devkits import NAMES, write_kit


def blocks(page: str, language: str) -> list[str]:
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


@pytest.fixture(scope="module")
def own_data(tmp_path_factory) -> Path:
    """Forty pictures of three classes, laid out by hand as the page says."""
    root = tmp_path_factory.mktemp("own") / "mydata"
    write_kit(root, repeat=5, size=(80, 100))
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
    for line in "".join(blocks("your_data.md", "bash")).splitlines():
        if line.startswith("export RECAM_DATA"):
            monkeypatch.setenv("RECAM_DATA", str(own_data))
            continue
        program, *words = line.split()
        assert program == "recam"
        short = ["TrainClassifier.epochs=2", "Reactivate.epochs=1", "sweep=[]"]  # enough to see that it works
        more = [word for each in short for word in ("-p", each)] if words[0] == "run" else []
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, f"{line}: {done.stderr or done.exception}"
    result = read(results / "02_table1_ablations" / "latest_mydata.json")
    assert result["images"] == {"train": 30, "scored": 30} and result["own_classes"] == list(NAMES)
    assert set(result["rows"]["bce_only"]["per_class"]) == {"background", *NAMES}
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
    assert len(list(tmp_path.glob("p*_mask.png"))) == 10
