"""The command line: what it says, and how it ends."""

import subprocess
import sys

import pytest

from recamlib.book import parameters
from recamlib.book import run as runner
from recamlib.errors import RecamError
from recamlib.paths import ROOT


@pytest.fixture(autouse=True)
def samples(monkeypatch, tmp_path):
    monkeypatch.setattr(parameters, "notebooks_dir", lambda: ROOT / "tests" / "notebooks")
    monkeypatch.setattr(runner, "book_dir", lambda: tmp_path)


def one_error_line(result) -> str:
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("error: ") and result.exit_code == 1
    return line.removeprefix("error: ")


def test_run_says_what_runs_with_what_and_where_it_went(recam, tmp_path):
    result = recam("run", "1", "--profile", "mini", "-p", "sce_weight=0.5", "-p", "option=w+w'")
    assert result.exit_code == 0, result.stderr
    first, last = result.stdout.strip().splitlines()
    assert first.startswith("01_passes: profile mini, ")
    assert "sce_weight=0.5" in first and "dataset='voc12'" in first and '''option="w+w'"''' in first
    assert last.endswith(str(tmp_path / "executed" / "01_passes.ipynb"))
    assert (tmp_path / "executed" / "01_passes.ipynb").is_file()


@pytest.mark.parametrize("words, message", [
    (("run", "9"), "'9'"), (("run", "1", "-p", "sce_wight=1"), "did you mean 'sce_weight'"),
    (("run", "1", "--profile", "mni"), "did you mean 'mini'"), (("list", "nothing"), "'nothing'"),
    (("run", "2"), "02_fails, cell 4, In [3]: ValueError: the first line and the last line"),
    (("data", "check", "voc21"), "did you mean 'voc12'"), (("data", "fetch", "coco"), "'coco14'"),
    (("report", "--profile", "quik"), "'quik'"),  # before the first notebook runs
    (("book",), "recam run 01; recam run 02"),  # at once
])  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(recam, monkeypatch, words, message):
    monkeypatch.setattr("shutil.copytree", lambda *_, **__: pytest.fail("work has begun"))
    assert message in one_error_line(recam(*words))


def test_list_is_a_manual(recam):
    everything = recam("list").stdout
    assert "01_passes" in everything and "profiles: smoke, mini" in everything
    one = recam("list", "1").stdout
    assert "lambda of the joint loss" in one and "rate=0.1" in one
    assert "TrainClassifier.lr=0.05" in one and "Reactivate.lr=0.0005" in one


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork beside threads, which hold nothing here
@pytest.mark.parametrize("fails", [True, False])
def test_report_runs_everything_and_builds_no_book_when_one_fails(recam, monkeypatch, tmp_path, fails):
    def run(name, **_):
        (tmp_path / name).touch()
        if fails and name == "02_fails":
            raise RecamError("a cell failed")

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("recamlib.book.run.run_notebook", run)
    monkeypatch.setattr("recamlib.book.build.build_book", lambda **_: tmp_path / "index.html")
    result = recam("report", "--profile", "smoke")
    ran = sorted(path.name for path in tmp_path.iterdir())
    assert ran == ["01_passes", "02_fails", "03_dies", "04_sleeps"] and result.exit_code == fails
    assert result.stdout.strip().endswith((tmp_path / "index.html").as_uri()) is not fails
    assert ("1 of 4 notebooks failed (02_fails)" in result.stderr) is fails


def test_data_make_writes_what_data_check_approves(recam, tmp_path, monkeypatch):
    result = recam("data", "make", tmp_path, "--train", 3, "--val", 2, "--size", 48)
    assert result.exit_code == 0, result.stderr
    assert "train: 3 images" in result.stdout and "val: 2 images" in result.stdout
    monkeypatch.setenv("RECAM_DATA", str(tmp_path))
    found = recam("data", "check", "voc12")
    assert "5 images checked" in found.stdout and "classes than the labels" not in found.stdout
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages").rename(tmp_path / "elsewhere")
    assert recam("data", "check", "voc12").exit_code == 1
    monkeypatch.setenv("RECAM_DATA", str(tmp_path / "empty"))  # what is not there is an error only by name
    assert "not as it should be: voc12" in one_error_line(recam("data", "check", "voc12"))
    assert recam("data", "check").exit_code == 0


def test_doctor_approves_of_this_environment_and_names_what_is_broken(recam, results, tmp_path, monkeypatch):
    result = recam("doctor")
    assert result.exit_code == 0, result.stdout
    lines = {line.split()[1]: line.split()[0] for line in result.stdout.splitlines()}
    assert all(lines[what] == "ok" for what in ("packages", "torch", "results"))
    (tmp_path / "a file").touch()
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "a file"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.1")
    result = recam("doctor")
    assert result.exit_code == 1 and "broken: packages, results" in result.stderr
    assert "torch 0.0.1 is not >=2.11" in result.stdout


def test_the_module_starts_without_torch_and_an_error_of_the_installed_command_is_one_line():
    program = "import sys, recamlib.cli; sys.exit('torch' in sys.modules or 'papermill' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
    command = [sys.executable, "-m", "recamlib.cli", "run", "99"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr
