"""Facts about the tree that no single module's test would notice."""

import ast
import importlib
import json
import re
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from recamlib.book.parameters import (
    list_notebooks,
    list_profiles,
    profile_parameters,
    read_parameters,
    stages_of,
)
from recamlib.cli import app
from recamlib.paths import ROOT, book_dir
from recamlib.studies.checks import checked

TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    if name and (ROOT / name).is_file()
]
NOTEBOOKS = list_notebooks()
MODULES = sorted((ROOT / "recamlib").rglob("*.py"))
PAGES = [path for path in TRACKED if path.suffix == ".md" and path.name != "CHANGELOG.md"]  # that is history
SUFFIXES = {".py", ".ipynb", ".md", ".yml", ".toml", ".cff", ".lock"}
TEXTS = [path for path in TRACKED if path.suffix in SUFFIXES]

notebooks = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def cells(notebook: Path) -> list[dict]:
    """Return the code cells of a notebook that hold anything."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return [c for c in content["cells"] if c["cell_type"] == "code" and "".join(c["source"]).strip()]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@notebooks
def test_a_notebook_was_run_once_from_top_to_bottom(notebook):
    # nbval passes a cell without outputs whatever it would print, and refuses one without a count
    counts = [cell["execution_count"] for cell in cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    assert not [o for c in cells(notebook) for o in c["outputs"] if o["output_type"] == "error"]


@notebooks
def test_a_notebook_keeps_text_and_drops_what_is_heavy_or_somebodys(notebook):
    assert notebook.stat().st_size < 200_000
    content = json.loads(notebook.read_text(encoding="utf-8"))
    assert not {"papermill", "language_info"} & content["metadata"].keys()
    assert content["metadata"]["kernelspec"]["name"] == "python3"
    kinds = {kind for c in cells(notebook) for o in c["outputs"] for kind in o.get("data", {})}
    assert not {kind for kind in kinds if kind.startswith("image/") or "widget" in kind}  # debris of bars
    assert not [o for c in cells(notebook) for o in c["outputs"] if o.get("name") == "stderr"]  # warnings
    assert not [c for c in cells(notebook) if "papermill" in c["metadata"] or "execution" in c["metadata"]]


@notebooks
def test_cells_are_short_and_do_no_library_work(notebook):
    for number, cell in enumerate(cells(notebook), 1):
        text = source(cell)
        parameters = "parameters" in cell["metadata"].get("tags", [])  # one literal a line
        assert parameters or len(text.splitlines()) <= 20, f"In [{number}] is over 20 lines"
        assert not re.search(r"^\s*[!%]|pip install|os\.chdir", text, flags=re.MULTILINE), f"In [{number}]"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 5, f"In [{number}]: move {node.name} out"


@notebooks
def test_papermill_sees_every_parameter(notebook):
    # an '=' inside a comment hides that parameter from papermill
    from papermill import inspect_notebook

    (cell,) = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    comments = [line.partition("#")[2] for line in source(cell).splitlines()]
    assert not [text for text in comments if "=" in text]
    names = [node.target.id for node in ast.parse(source(cell)).body]
    assert list(inspect_notebook(str(notebook))) == names and len(names) <= 12


@notebooks
def test_defaults_are_within_their_own_ranges_and_explained(notebook):
    known = read_parameters(notebook)
    values = {name: parameter.default for name, parameter in known.items()}
    assert checked(**values) == values
    assert set(values["settings"]) <= set(stages_of(known))
    for parameter in known.values():
        assert parameter.comment, f"{parameter.name} has no comment"


@pytest.mark.parametrize("profile", list_profiles())
@notebooks
def test_profiles_fit_the_notebooks(notebook, profile):
    profile_parameters(profile, notebook.stem)


def test_no_tracked_file_is_large():
    limits = {".safetensors": 2**21}  # small networks trained here
    assert [short(p) for p in TRACKED if p.stat().st_size > limits.get(p.suffix, 2**20)] == []


def test_nothing_that_runs_code_when_it_loads_data():
    # put together so that this file does not hold them
    patterns = ["allow_pickle=" + "True", "weights_only=" + "False", r"pickle\.loads?\(", r"yaml\.load\("]
    found = [
        f"{short(path)}: {match[0]}"
        for path in TEXTS
        if path.suffix in {".py", ".ipynb"}
        for match in re.finditer("|".join(patterns), path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_no_path_of_anybodys_machine():
    homes = "|".join([re.escape(f"{ROOT.parent}/"), "/ho" + "me/", "/Us" + "ers/", "/ro" + "ot/"])
    found = [
        f"{short(path)}: {match[0]}"
        for path in TEXTS
        for match in re.finditer(homes, path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_devices_are_followed_not_named_and_bars_fit_notebooks():
    found = [
        f"{short(path)}: {match[0]}"
        for path in MODULES
        for match in re.finditer(
            r"\.cuda\(|device *= *\"cuda|from tqdm import|^\s*import tqdm\b",
            path.read_text(encoding="utf-8"),
            flags=re.MULTILINE,
        )
    ]
    assert found == []


def test_no_training_code_names_a_mask():
    found = [
        f"{short(path)}: {alias.name}"
        for path in MODULES
        if path.parent.name in {"engine", "models", "method"}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name in {"MaskSet", "open_masks"}
    ]
    assert found == []


def commands(group: typer.core.TyperGroup, prefix: str = "") -> set[str]:
    """Return every command of the command line, groups spelled out."""
    found = set()
    for name, command in group.commands.items():
        found.add(f"{prefix}{name}")
        if hasattr(command, "commands"):
            found |= commands(command, f"{prefix}{name} ")
    return found


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_commands_and_files_that_pages_name_exist(page):
    text = page.read_text(encoding="utf-8")
    known = commands(typer.main.get_command(app))
    for match in re.finditer(r"(?:^|`)recam ((?:data )?[a-z]+)", text, flags=re.MULTILINE):
        assert match[1] in known, f"recam {match[1]}"
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for match in re.finditer(r"(?:^|`)make ([a-z][a-z-]*)", text, flags=re.MULTILINE):
        assert match[1] in targets, f"make {match[1]}"
    for match in re.finditer(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
        assert (page.parent / match[1]).exists() or is_book_notebook(page, match[1]), match[1]


def is_book_notebook(page: Path, link: str) -> bool:
    """Return whether a link of a book page leads to a notebook, which lies there in the built book only."""
    in_book = page.parent == book_dir() and link.startswith("notebooks/")
    return in_book and (not NOTEBOOKS or (ROOT / link).is_file())


def test_functions_that_the_method_page_names_exist():
    names = set(re.findall(r"`(recamlib(?:\.\w+)+)`", (book_dir() / "method.md").read_text(encoding="utf-8")))
    assert len(names) > 10
    for name in names:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_workflows_run_commands_of_the_makefile():
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    workflows = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    steps = [step.get("run", "") for w in workflows for job in w["jobs"].values() for step in job["steps"]]
    for target in ("test", "test-all", "report"):
        assert any(re.match(rf"make {target}\b(?!-)", step) for step in steps), target
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
