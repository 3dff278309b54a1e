"""Build the book from its sources and the executed notebooks, offline, warnings being errors."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from recamlib.book.explorer import explorer_page, latest
from recamlib.book.run import executed_dir, kernel_environment
from recamlib.book.scoreboard import scoreboard_page
from recamlib.book.sections import dress
from recamlib.errors import RecamError
from recamlib.paths import book_dir
from recamlib.report.results import load_results

# what tex-chtml.js loads on demand: fonts and TeX packages; the rest (speech, menus) is twenty times as big
_MATHJAX_PARTS = ("tex-chtml.js", "output", "input/tex")


class BookError(RecamError):
    """The book cannot be built; the message holds Sphinx's warnings."""


def build_book(
    *, source: Path | None = None, executed: Path | None = None, pages: Mapping[str, str] | None = None
) -> Path:
    """Build the book and return the path of its ``index.html``; only a complete one replaces an earlier one.

    `source` is the folder of ``_config.yml``, ``_toc.yml`` and the pages (``book/``), `executed` that of the
    executed notebooks (``book/executed``), `pages` text by path inside the book (scoreboard, explorer's
    data).

    Raises
    ------
    BookError
        If a notebook of the table of contents has not been run, or Sphinx warns about anything.
    """
    source, executed = source or book_dir(), executed or executed_dir()
    notebooks = executed_notebooks(source / "_toc.yml", executed)  # before any work
    build = source / "_build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=build) as temporary:
        staged = Path(temporary) / "source"
        shutil.copytree(source, staged, ignore=shutil.ignore_patterns("_build", "executed", ".*"))
        for path, text in (pages_of_results() if pages is None else pages).items():
            (staged / path).write_text(text, encoding="utf-8")
        (staged / "notebooks").mkdir()
        for notebook in notebooks:
            text = dress(notebook, staged / "_static")
            (staged / "notebooks" / notebook.name).write_text(text, encoding="utf-8")
        html = _sphinx(staged, Path(temporary))
        # only now: jupyter-book loads every script it finds in the sources' _static on every page
        _copy_mathjax(html / "_static" / "mathjax")
        _mend_pages(html)
        previous = build / "html"
        if previous.exists():
            previous.rename(Path(temporary) / "previous")
        html.rename(previous)
    return build / "html" / "index.html"


def pages_of_results() -> dict[str, str]:
    """Return the parts of the book that are made from results, by their path inside it."""
    results = load_results()
    return {"scoreboard.md": scoreboard_page(results), "explorer_data.md": explorer_page(latest(results))}


def toc_files(toc: Path) -> list[str]:
    """Return every ``file`` of a table of contents, without suffix, in order."""

    def walk(node: object) -> list[str]:
        if isinstance(node, list):
            return [name for item in node for name in walk(item)]
        if isinstance(node, dict):
            own = [str(node[key]) for key in ("root", "file") if key in node]
            return own + [name for value in node.values() for name in walk(value)]
        return []

    return [name.removesuffix(".md").removesuffix(".ipynb") for name in walk(yaml.safe_load(toc.read_text()))]


def executed_notebooks(toc: Path, executed: Path) -> list[Path]:
    """Return the executed copies of a table of contents' notebooks; a missing one is an error."""
    names = [n.removeprefix("notebooks/") for n in toc_files(toc) if n.startswith("notebooks/")]
    missing = [name for name in names if not (executed / f"{name}.ipynb").is_file()]
    if missing:
        commands = "; ".join(f"recam run {name[:2]}" for name in missing)
        raise BookError(f"the book needs {', '.join(missing)}, not run yet: {commands}")
    return [executed / f"{name}.ipynb" for name in names]


def _copy_mathjax(target: Path) -> None:
    """Copy MathJax from the package that carries it, so that pages need no network."""
    spec = importlib.util.find_spec("sphinx-mathjax-offline")
    if spec is None or spec.origin is None:
        raise BookError("MathJax is missing: pip install sphinx-mathjax-offline")
    mathjax = Path(spec.origin).parent / "static" / "mathjax"
    for part in _MATHJAX_PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (mathjax / part).is_dir() else shutil.copy
        copy(mathjax / part, target / part)


def _mend_pages(html: Path) -> None:
    """Drop the scripts of live cells, which name a server; let frames of pages scroll, by keyboard too."""
    script = re.compile(r"\s*<script[^>]*(?:>const THEBE_JS_URL[^<]*|sphinx-thebe\.js[^>]*>)</script>")
    frame = re.compile(r'<div class="output text_html">(?=\s*<div>\s*<style scoped>)')
    scrolls = '<div class="output text_html wide" tabindex="0" role="region" aria-label="Table">'
    for page in html.rglob("*.html"):
        text = frame.sub(scrolls, script.sub("", page.read_text(encoding="utf-8")))
        page.write_text(text, encoding="utf-8")


def _sphinx(staged: Path, output: Path) -> Path:
    """Run jupyter-book on the staged sources and return the folder of the pages."""
    start = "from jupyter_book.cli.main import main; main()"  # the package has no __main__
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
