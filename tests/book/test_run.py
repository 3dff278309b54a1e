"""The runner and the book: tiny notebooks, run for real."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from recamlib.book.build import BookError, build_book, toc_files
from recamlib.book.run import NotebookError, run_notebook
from recamlib.errors import SettingsError
from recamlib.paths import ROOT, book_dir

FOLDER = Path(__file__).parents[1] / "notebooks"


def outputs(path: Path) -> list[str]:
    cells = nbformat.read(path, as_version=4).cells
    return ["".join(o.get("text", "") for o in c.outputs) for c in cells if c.cell_type == "code"]


def test_parameters_reach_the_notebook_and_the_kernel_is_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_DATA", "some/relative/folder")
    monkeypatch.chdir(tmp_path)
    # a kernel of the user's with our kernel's name, which would run something else
    spec = tmp_path / "home" / "kernels" / "python3"
    spec.mkdir(parents=True)
    (spec / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    for name in ("JUPYTER_DATA_DIR", "JUPYTER_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    (tmp_path / "executed" / ".running-4194305-left").mkdir(parents=True)  # of a run that was killed
    done = run_notebook("1", parameters={"sce_weight": "0.5"}, folder=FOLDER, output_dir=Path("executed"))
    assert done == tmp_path / "executed" / "01_passes.ipynb" and list(done.parent.iterdir()) == [done]
    first, second = map(json.loads, outputs(done)[-2:])
    assert first == [0.5, [1.0, 0.5], "w*w'", {"TrainClassifier": {"lr": 0.05}}]
    assert second["cwd"] == str(FOLDER) and second["data"] == str(tmp_path / "some/relative/folder")
    assert Path(second["python"]).samefile(sys.executable)
    assert Path(second["library"]).parent == ROOT / "recamlib"
    assert os.environ["RECAM_DATA"] == "some/relative/folder", "the runner's own environment stays as it was"


def test_a_wrong_parameter_stops_before_a_kernel_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("papermill.execute_notebook", lambda *a, **k: pytest.fail("a kernel was started"))
    with pytest.raises(SettingsError, match="did you mean 'sce_weight'"):
        run_notebook("1", parameters={"sce_wight": 1}, folder=FOLDER, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failing_cell_or_a_dead_kernel_is_named_in_one_line_and_what_ran_stays(tmp_path):
    earlier = tmp_path / "02_fails.ipynb"
    earlier.write_text("an earlier run")
    with pytest.raises(NotebookError, match=r"02_fails, cell 4, In \[3\]: ValueError: the first") as caught:
        run_notebook("2", folder=FOLDER, output_dir=tmp_path)
    failed = tmp_path / "02_fails.failed.ipynb"
    assert str(failed) in str(caught.value) and "\n" not in str(caught.value)
    assert "before\n" in outputs(failed) and earlier.read_text() == "an earlier run"
    with pytest.raises(NotebookError, match="03_dies: .*was it killed for memory"):
        run_notebook("3", folder=FOLDER, output_dir=tmp_path)


def wait_for(condition, seconds: float = 300.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):  # caught in the middle of a write
            if value := condition():
                return value
        time.sleep(0.1)
    pytest.fail("waited in vain")


def test_an_interrupt_leaves_nothing_half_written_and_no_kernel(tmp_path):
    # a shell that starts a job in the background has it ignore Ctrl-C, and children inherit that
    program = "import signal, sys, pathlib, recamlib.book.run as book\n" \
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n" \
        "here, out = map(pathlib.Path, sys.argv[1:])\n" \
        "book.run_notebook('4', folder=here, output_dir=out)"  # fmt: skip
    command = [sys.executable, "-c", program, str(FOLDER), str(tmp_path)]
    runner = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)

    def printed() -> int:
        """Return the process id that the sleeping notebook has printed, or 0."""
        texts = [text for path in tmp_path.glob(".running-*/04_sleeps.ipynb") for text in outputs(path)]
        return next((int(text) for text in texts if text.strip().isdigit()), 0)

    status = Path(f"/proc/{wait_for(printed)}/status")
    runner.send_signal(signal.SIGINT)
    assert runner.wait(300) != 0 and not list(tmp_path.iterdir())
    wait_for(lambda: not status.exists() or "\nState:\tZ" in status.read_text())


@pytest.fixture(scope="module")
def small_book(tmp_path_factory):
    """Sources of a small book with the real configuration, and one executed notebook."""
    source = tmp_path_factory.mktemp("book")
    for name in ("_config.yml", "references.bib"):
        (source / name).write_bytes((book_dir() / name).read_bytes())
    toc = {"format": "jb-book", "root": "index", "chapters": [{"file": "notebooks/01_passes"}]}
    (source / "_toc.yml").write_text(json.dumps(toc))
    text = "# Title\n\n$$ a^2 $$ (eq-a)\n\n{eq}`eq-a`, {cite:p}`chen2022recam`\n\n```{bibliography}\n```\n"
    (source / "index.md").write_text(text)
    (source / "_static").mkdir()
    run_notebook("1", folder=FOLDER, output_dir=source / "executed")
    return source


def test_the_book_needs_no_network(small_book):
    index = build_book(source=small_book, executed=small_book / "executed")
    assert index == small_book / "_build" / "html" / "index.html"
    for page in (index, index.parent / "notebooks" / "01_passes.html"):
        html = page.read_text(encoding="utf-8")
        assert 'src="http' not in html and 'rel="stylesheet" href="http' not in html
        assert "unpkg" not in html and "cdn" not in html
    assert "_static/mathjax/tex-chtml.js" in index.read_text(encoding="utf-8")
    assert list((index.parent / "_static" / "mathjax").rglob("*.woff"))
    assert [p.name for p in (small_book / "_build").iterdir()] == ["html"]


def test_a_warning_is_an_error_and_the_earlier_book_stays(small_book, tmp_path):
    built = small_book / "_build" / "html"
    built.mkdir(parents=True, exist_ok=True)
    (built / "mark").write_text("earlier")
    pages = {"index.md": "# Title\n\nA dead link to {ref}`no-such-label`.\n"}
    with pytest.raises(BookError, match=r"index\.md.*no-such-label"):
        build_book(source=small_book, executed=small_book / "executed", pages=pages)
    assert (built / "mark").read_text() == "earlier"
    with pytest.raises(BookError, match="01_passes.*recam run 01"):
        build_book(source=small_book, executed=tmp_path)


def test_the_table_of_contents_names_pages_that_exist():
    for name in toc_files(book_dir() / "_toc.yml"):
        assert name.startswith("notebooks/") or (book_dir() / f"{name}.md").is_file(), name
