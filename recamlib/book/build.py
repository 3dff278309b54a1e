"""Build the book from its sources and the executed notebooks, offline, warnings being errors."""

import html
import importlib.resources
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from sphinx_external_toc.parsing import parse_toc_yaml

from recamlib.book.explorer import explorer_page, latest
from recamlib.book.parameters import DEFAULT, all_parameters, read_parameters
from recamlib.book.run import executed_dir, kernel_environment
from recamlib.book.scoreboard import scoreboard_page
from recamlib.errors import RecamError, SettingsError
from recamlib.paths import book_dir
from recamlib.report.results import load_measured, load_results, read, result_path
from recamlib.report.summary import readme_table
from recamlib.report.tables import escaped

# of MathJax: tex-chtml.js never loads these, which are twenty times as big as the rest
_LEFT_OUT = shutil.ignore_patterns("a11y", "adaptors", "sre", "ui", "asciimath*", "*mml*", "*svg*", "*full*")


class BookError(RecamError):
    """The book cannot be built; the message holds Sphinx's warnings."""


def build_book(
    *, source: Path | None = None, executed: Path | None = None, pages: Mapping[str, str] | None = None
) -> Path:
    """Build the book and return the path of its ``index.html``; only a complete one replaces an earlier one.

    `source` is the folder of its pages, `executed` that of the executed notebooks, `pages` text by path. A
    notebook that has not run is a BookError, and so is anything that Sphinx warns of.
    """
    source, executed = source or book_dir(), executed or executed_dir()
    notebooks = executed_notebooks(source / "_toc.yml", executed)  # before any work
    build = source / "_build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=build) as temporary:
        staged = Path(temporary) / "source"
        shutil.copytree(source, staged, ignore=shutil.ignore_patterns("_build", "executed", ".*"))
        if pages is None:
            results = load_results()
            pages = {
                "first_answer.md": readme_table(load_measured()), "scoreboard.md": scoreboard_page(results),
                "explorer_data.md": explorer_page(latest(results)),
            }  # fmt: skip
        for path, text in pages.items():
            (staged / path).write_text(text, encoding="utf-8")
        (staged / "notebooks").mkdir()
        for notebook in notebooks:
            text = dress(notebook, staged / "_static")
            (staged / "notebooks" / notebook.name).write_text(text, encoding="utf-8")
        built = _sphinx(staged, Path(temporary))
        # only now: jupyter-book loads every script it finds in the sources' _static on every page
        mathjax = Path(str(importlib.resources.files("sphinx-mathjax-offline"))) / "static" / "mathjax"
        shutil.copytree(mathjax, built / "_static" / "mathjax", ignore=_LEFT_OUT)
        _mend_pages(built)
        previous = build / "html"
        if previous.exists():
            previous.rename(Path(temporary) / "previous")
        built.rename(previous)
    return build / "html" / "index.html"


def toc_files(toc: Path) -> list[str]:
    """Return every ``file`` of a table of contents."""
    return list(parse_toc_yaml(toc))


def executed_notebooks(toc: Path, executed: Path) -> list[Path]:
    """Return the executed copies of a book's notebooks; a missing one is an error."""
    names = [n.removeprefix("notebooks/") for n in toc_files(toc) if n.startswith("notebooks/")]
    missing = [name for name in names if not (executed / f"{name}.ipynb").is_file()]
    if missing:
        commands = "; ".join(f"recam run {name[:2]}" for name in missing)
        raise BookError(f"the book needs {', '.join(missing)}, not run yet: {commands}")
    return [executed / f"{name}.ipynb" for name in names]


def _mend_pages(built: Path) -> None:
    """Drop scripts of live cells, which name a server; frames scroll by keyboard too, buttons have names."""
    script = re.compile(r"\s*<script[^>]*(?:>const THEBE_JS_URL[^<]*|sphinx-thebe\.js[^>]*>)</script>")
    frame = re.compile(r'<div class="output text_html">(?=\s*<div>\s*<style scoped>)')
    scrolls = '<div class="output text_html wide" tabindex="0" role="region" aria-label="Table">'
    button = re.compile(r'<summary>(?=\s*<span class="toctree-toggle")')  # of the sidebar
    for page in built.rglob("*.html"):
        text = frame.sub(scrolls, script.sub("", page.read_text(encoding="utf-8")))
        text = button.sub('<summary aria-label="Pages below">', text)
        page.write_text(text, encoding="utf-8")


def _sphinx(staged: Path, output: Path) -> Path:
    start = (  # two pages at a time: jupyter-book's command cannot say it, and some extensions do not
        "from functools import partial; import jupyter_book.sphinx as jb, sphinx.application as app; "
        "app.Sphinx.is_parallel_allowed = lambda *_: True; jb.build_sphinx = partial(jb.build_sphinx, jobs=2)"
        "; from jupyter_book.cli.main import main; main()"
    )
    command = [sys.executable, "-c", start, "build", str(staged), "--path-output", str(output)]
    with kernel_environment():  # pages run their cells in kernels of this environment
        done = subprocess.run(
            [*command, "-W", "-n", "--keep-going", "-q"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, env=os.environ | {"PYTHONWARNINGS": "ignore"}, check=False,
        )  # fmt: skip
    if done.returncode:
        lines = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout).splitlines()  # Sphinx colours even a pipe
        shown = [line for line in lines if "WARNING: " in line or "ERROR: " in line] or lines[-5:]
        text = "\n  ".join(line.replace(f"{staged}{os.sep}", "") for line in shown)
        raise BookError(f"the book did not build without warnings:\n  {text}")
    return output / "_build" / "html"


def dress(notebook: Path, static: Path) -> str:
    """Return an executed notebook as JSON: command on top, provenance at the end, figures in `static`."""
    content = nbformat.read(notebook, as_version=4)
    folder, address = static / "sections" / notebook.stem, f"../_static/sections/{notebook.stem}"
    folder.mkdir(parents=True, exist_ok=True)
    ran = content.metadata.get("papermill", {})
    parameters = {name: item.default for name, item in read_parameters(notebook).items()}
    parameters |= dict(ran.get("parameters", {}))
    _replace_outputs(content, folder, address)
    content.metadata.pop("widgets", None)  # bars that nobody will move
    box = f"```bash\n{command(notebook.stem, parameters)}\n```"
    box = f"::::{{admonition}} Run this page again\n:class: rerun\n\n{box}\n::::\n"
    content.cells.insert(1, nbformat.v4.new_markdown_cell(box))
    path = result_path(notebook.stem, parameters)
    if path.is_file():
        result = read(path)
        (folder / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        rows = pd.json_normalize(list(result["rows"].values()), sep=" ").set_index(pd.Index(result["rows"]))
        rows.to_csv(folder / "rows.csv", index_label="row")
        where = escaped("commit {commit}, {date}, {device}".format(**result["provenance"]))
        seconds = f"{ran.get('duration') or 0:.0f} seconds, stored results read back where there were any"
        box = (
            f":::{{admonition}} Where these numbers come from\n:class: provenance\n{where}; {seconds}.\n\n"
            f'<p class="download">Download <a href="{address}/rows.csv" download>every row as CSV</a> · '
            f'<a href="{address}/result.json" download>the whole result as JSON</a></p>\n:::\n'
        )
        content.cells.append(nbformat.v4.new_markdown_cell(box))
    return nbformat.writes(content)


def command(stem: str, parameters: dict[str, Any]) -> str:
    """Return the command that runs a notebook with these parameters: profile, then what differs from it."""
    profile = parameters.get("profile", DEFAULT)
    try:
        usual = _assignments(all_parameters(profile, stem))
    except SettingsError:  # the profile is gone, or the notebook has changed since: everything is listed
        usual = {}
    words = ["recam", "run", stem[:2], "--profile", profile]
    for name, value in _assignments(parameters).items():
        if name != "profile" and (name not in usual or usual[name] != value):
            words += ["-p", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]
    return shlex.join(words)


def _assignments(parameters: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in parameters.items() if name != "settings"}
    for stage, block in parameters.get("settings", {}).items():
        flat |= {f"{stage}.{field}": value for field, value in block.items()}
    return flat


def _replace_outputs(content: nbformat.NotebookNode, folder: Path, address: str) -> None:
    figures = 0
    for cell in content.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/svg+xml" in data:
                figures += 1
                name, picture = f"{address}/figure_{figures}.svg", data.pop("image/svg+xml")
                (folder / f"figure_{figures}.svg").write_text(picture, encoding="utf-8")
                title = re.search(r"<title>(.*?)</title>", picture, flags=re.DOTALL)
                alt = title[1] if title else ""  # of a picture that is not a figure of ours
                link = f'<p class="download"><a href="{name}" download>Figure as SVG</a></p>'
                image = f'<img src="{name}" alt="{html.escape(html.unescape(alt))}">'
                data["text/html"] = f'<figure class="plot">{image}{link}</figure>'
            elif 'class="dataframe"' in data.get("text/html", ""):
                table = re.search(r"<table.*?</table>", data["text/html"], flags=re.DOTALL)[0]
                # a box that scrolls, by keyboard too
                box = '<div class="wide" tabindex="0" role="region" aria-label="Table">'
                data["text/html"] = box + table.replace(' border="1"', "") + "</div>"
