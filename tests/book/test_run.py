"""The runner and the book: tiny notebooks, run for real."""

import contextlib
import json
import os
import re
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
    monkeypatch.setattr("papermill.execute_notebook", lambda *a, **k: pytest.fail("a kernel was started"))
    with pytest.raises(SettingsError, match="did you mean 'sce_weight'"):
        run_notebook("1", parameters={"sce_wight": 1}, folder=FOLDER, output_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


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
    program = f"""import signal, pathlib, recamlib.book.run as book
signal.signal(signal.SIGINT, signal.default_int_handler)
book.run_notebook("4", folder=pathlib.Path({str(FOLDER)!r}), output_dir=pathlib.Path({str(tmp_path)!r}))"""
    options = {"cwd": ROOT, "stderr": subprocess.DEVNULL, "start_new_session": True}
    runner = subprocess.Popen([sys.executable, "-c", program], **options)

    def printed() -> int:  # the kernel's process id, or 0
        texts = [text for path in tmp_path.glob(".running-*/04_sleeps.ipynb") for text in outputs(path)]
        return next((int(text) for text in texts if text.strip().isdigit()), 0)

    status = Path(f"/proc/{wait_for(printed)}/status")
    runner.send_signal(signal.SIGINT)
    assert runner.wait(300) != 0 and not list(tmp_path.iterdir())
    wait_for(lambda: not status.exists() or "\nState:\tZ" in status.read_text())


@pytest.fixture
def small_book(tmp_path):
    """Sources of a small book with the real configuration, and one executed notebook."""
    source = tmp_path / "book"
    source.mkdir()
    for name in ("_config.yml", "references.bib"):
        (source / name).write_bytes((book_dir() / name).read_bytes())
    toc = {"format": "jb-book", "root": "index", "chapters": [{"file": "notebooks/01_passes"}]}
    (source / "_toc.yml").write_text(json.dumps(toc))
    text = "# Title\n\n$$ a^2 $$ (eq-a)\n\n{eq}`eq-a`, {cite:p}`chen2022recam`\n\n```{bibliography}\n```\n"
    (source / "index.md").write_text(text)
    (source / "_static").mkdir()
    run_notebook("1", folder=FOLDER, output_dir=source / "executed")
    return source


def test_the_book_needs_no_network_and_stays_when_a_page_warns_or_is_not_there(small_book, tmp_path):
    index = build_book(source=small_book, executed=small_book / "executed")
    assert index == small_book / "_build" / "html" / "index.html"
    for page in (index, index.parent / "notebooks" / "01_passes.html"):
        html = page.read_text(encoding="utf-8")
        assert not re.search('src="http|rel="stylesheet" href="http|unpkg|cdn', html)
    assert "_static/mathjax/tex-chtml.js" in index.read_text(encoding="utf-8")
    assert list((index.parent / "_static" / "mathjax").rglob("*.woff"))
    assert [p.name for p in (small_book / "_build").iterdir()] == ["html"]
    (index.parent / "mark").write_text("earlier")
    pages = {"index.md": "# Title\n\nA dead link to {ref}`no-such-label`.\n"}
    with pytest.raises(BookError, match=r"index\.md.*no-such-label"):
        build_book(source=small_book, executed=small_book / "executed", pages=pages)
    assert (index.parent / "mark").read_text() == "earlier"
    with pytest.raises(BookError, match="01_passes.*recam run 01"):
        build_book(source=small_book, executed=tmp_path)
    for name in toc_files(book_dir() / "_toc.yml"):
        assert name.startswith("notebooks/") or (book_dir() / f"{name}.md").is_file(), name
