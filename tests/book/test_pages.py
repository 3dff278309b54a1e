"""README and pages with code cells: every line runs, on what is stored with the book."""

import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image

from recamlib.paths import ROOT, book_dir


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def run(page: Path, code: str, **shorter: str) -> dict:
    """Run some lines; where a number is given less is done, which shows as much."""
    for name, value in shorter.items():
        code, count = re.subn(rf"{name}=\d+", f"{name}={value}", code)
        assert count
    names: dict = {"__name__": page.stem}
    exec(compile(code, page.name, "exec"), names)
    return names


def test_the_lines_that_open_the_readme_run(results, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(ROOT / "README.md", "python")
    run(ROOT / "README.md", code, train_count="32", epochs="1")
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told if "mIoU" in line] == ["CAM", "ReCAM"]
    with Image.open("hero.png") as picture:
        assert picture.width > picture.height / 2 > 100


@pytest.mark.parametrize("page", ["results.md", "cost.md", "trust.md", "random_walk.md"])
def test_the_cells_of_a_page_run_on_what_is_stored(page, results, monkeypatch):
    monkeypatch.chdir(book_dir())
    page = book_dir() / page
    assert page.read_text(encoding="utf-8").startswith("---\nfile_format: mystnb\n")
    cells = blocks(page, "{code-cell} ipython3")
    options = re.compile(r"\A(---\n.*?\n---\n|(:[^\n]*\n)*)", flags=re.DOTALL)
    code = "".join(re.sub(r"^%.*\n", "", options.sub("", cell), flags=re.MULTILINE) for cell in cells)
    assert len(cells) > 2 and "pd" in run(page, code)


@pytest.mark.parametrize("page", sorted(book_dir().glob("*.md")), ids=lambda path: path.name)
def test_what_a_page_names_is_where_it_says(page):
    for name in set(re.findall(r"`(recamlib(?:\.\w+)+)`", page.read_text(encoding="utf-8"))):
        module, _, last = name.rpartition(".")
        if importlib.util.find_spec(module) and hasattr(found := importlib.import_module(module), last):
            home = getattr(getattr(found, last), "__module__", module)
            assert home in (module, name) or module == "recamlib", name
        else:
            importlib.import_module(name)
