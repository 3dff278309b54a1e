"""Facts about the tree that no single module's test would notice."""

import ast
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
import typer
import yaml

from recamlib.book import parameters
from recamlib.cli import app
from recamlib.paths import ROOT, book_dir
from recamlib.studies.checks import checked

FILES = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
TRACKED = [ROOT / name for name in FILES.split("\0") if name and (ROOT / name).is_file()]
MODULES = sorted((ROOT / "recamlib").rglob("*.py"))
PAGES = [path for path in TRACKED if path.suffix == ".md" and path.name != "CHANGELOG.md"]  # that is history
SUFFIXES = {".py", ".ipynb", ".md", ".yml", ".toml", ".cff", ".lock"}
TEXTS = [path for path in TRACKED if path.suffix in SUFFIXES]

notebooks = pytest.mark.parametrize("notebook", parameters.list_notebooks(), ids=lambda path: path.stem)
# put together so that this file does not hold them
HOMES = "|".join([re.escape(f"{ROOT.parent}/"), "/ho" + "me/", "/Us" + "ers/", "/ro" + "ot/"])
RUNS_CODE = "|".join([
    "allow_pickle=" + "True", "weights_only=" + "False", r"pickle\.loads?\(", r"yaml\.load\(",
])  # fmt: skip


def cells(notebook: Path) -> list[dict]:
    content = nbformat.read(notebook, as_version=4)
    return [c for c in content.cells if c.cell_type == "code" and c.source.strip()]


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@notebooks
def test_a_notebook_was_run_once_and_keeps_text_alone(notebook):
    # nbval passes a cell without outputs whatever it would print, and refuses one without a count
    code, metadata = cells(notebook), nbformat.read(notebook, as_version=4).metadata
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert notebook.stat().st_size < 300_000 and metadata["kernelspec"]["name"] == "python3"
    assert not {"papermill", "language_info"} & metadata.keys()
    assert not [c for c in code if {"papermill", "execution"} & c["metadata"].keys()]
    outputs = [(c["metadata"]["tags"], output) for c in code for output in c["outputs"]]
    assert not [o for _, o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]  # warnings
    found = [(tags, kind) for tags, output in outputs for kind in output.get("data", {})]
    assert not [kind for _, kind in found if "widget" in kind]  # debris of bars
    (tags,) = [tags for tags, kind in found if kind.startswith("image/")]
    assert "keep_output" in tags  # what a reader sees without running anything
    assert any("| paper |" in o.get("data", {}).get("text/markdown", "") for _, o in outputs)


@notebooks
def test_cells_are_short_do_no_library_work_and_fit_their_profiles(notebook):
    for number, cell in enumerate(cells(notebook), 1):
        text, literals = cell.source, "parameters" in cell.metadata.get("tags", [])  # one a line
        assert literals or len(text.splitlines()) <= 20, f"In [{number}] is over 20 lines"
        assert not re.search(r"^\s*[!%]|pip install|os\.chdir", text, flags=re.MULTILINE), f"In [{number}]"
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        assert all(node.end_lineno - node.lineno < 5 for node in functions), f"In [{number}]: move them out"
    # parameters are seen, explained, and within their own ranges
    known = parameters.read_parameters(notebook)
    (cell,) = [c for c in cells(notebook) if "parameters" in c["metadata"].get("tags", [])]
    # an '=' inside a comment hides that parameter from papermill
    assert list(known) == [node.target.id for node in ast.parse(cell.source).body] and len(known) <= 12
    values = {name: parameter.default for name, parameter in known.items()}
    assert checked(**values) == values and set(values["settings"]) <= set(parameters.stages_of(known))
    assert all(parameter.comment for parameter in known.values())
    for profile in parameters.list_profiles():
        parameters.profile_parameters(profile, notebook.stem)


@pytest.mark.parametrize("files, pattern", [
    pytest.param([p for p in TEXTS if p.suffix in {".py", ".ipynb"}], RUNS_CODE, id="runs code on load"),
    pytest.param(TEXTS, HOMES, id="a path of somebody's machine"),
    pytest.param(MODULES, r'\.cuda\(|device *= *"cuda', id="a device that is named"),
    pytest.param(MODULES, r"(?m)from tqdm import|^\s*import tqdm\b", id="a bar that is not ours"),
])  # fmt: skip
def test_no_file_is_large_or_holds(files, pattern):
    limits = {".safetensors": 2**21}  # small networks trained here
    assert [short(p) for p in TRACKED if p.stat().st_size > limits.get(p.suffix, 2**20)] == []
    pairs = ((path, path.read_text(encoding="utf-8")) for path in files)
    assert [f"{short(p)}: {m[0]}" for p, text in pairs for m in re.finditer(pattern, text)] == []


def commands(group: typer.core.TyperGroup, prefix: str = "") -> set[str]:
    inner = [commands(c, f"{name} ") for name, c in group.commands.items() if hasattr(c, "commands")]
    return {f"{prefix}{name}" for name in group.commands}.union(*inner)


@pytest.mark.parametrize("page", PAGES, ids=short)
def test_commands_and_files_that_pages_name_exist(page):
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    known = commands(typer.main.get_command(app))
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    named = re.findall(r"(?:^|`)recam ((?:data )?[a-z]+)", text, flags=re.MULTILINE)
    assert set(named) <= known
    assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", text, flags=re.MULTILINE)) <= targets
    for link in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text):
        # a page of the book may lead to a notebook, which lies there in the built book only
        notebook = page.parent == book_dir() and link.startswith("notebooks/") and (ROOT / link).is_file()
        assert notebook or (page.parent / link).exists(), link


def test_workflows_run_commands_of_the_makefile():
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    workflows = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    steps = [step.get("run", "") for w in workflows for job in w["jobs"].values() for step in job["steps"]]
    for target in ("test", "test-all", "report"):
        assert any(re.match(rf"make {target}\b(?!-)", step) for step in steps), target
    assert "make test" in (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
