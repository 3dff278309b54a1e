"""Pages with code cells: every cell runs, on what is stored with the book."""

import importlib.util
import re

import pytest

from recamlib.paths import book_dir


@pytest.mark.parametrize("page", ["results.md", "cost.md", "trust.md", "random_walk.md"])
def test_the_cells_of_a_page_run_on_what_is_stored(page, tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    monkeypatch.chdir(book_dir())
    text = (book_dir() / page).read_text(encoding="utf-8")
    assert text.startswith("---\nfile_format: mystnb\n")
    cells = re.findall(r"^```{code-cell} ipython3\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    names: dict = {"__name__": page}
    for cell in cells:
        options = re.match(r"---\n.*?\n---\n|(:[^\n]*\n)*", cell, flags=re.DOTALL)[0]
        code = re.sub(r"^%.*\n", "", cell.removeprefix(options), flags=re.MULTILINE)
        exec(compile(code, page, "exec"), names)
    assert len(cells) > 2 and "pd" in names


@pytest.mark.parametrize("page", sorted(book_dir().glob("*.md")), ids=lambda path: path.name)
def test_what_a_page_names_is_where_it_says(page):
    for name in set(re.findall(r"`(recamlib(?:\.\w+)+)`", page.read_text(encoding="utf-8"))):
        module, _, last = name.rpartition(".")
        if importlib.util.find_spec(module) and hasattr(found := importlib.import_module(module), last):
            home = getattr(getattr(found, last), "__module__", module)
            assert home in (module, name) or module == "recamlib", name
        else:
            importlib.import_module(name)
