"""The command line: run notebooks, build the report, look after data and machine."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperGroup

from recamlib.book.parameters import (
    DEFAULT,
    fields_of,
    find_notebook,
    list_notebooks,
    list_profiles,
    parse_assignments,
    profile_parameters,
    read_parameters,
    stages_of,
)
from recamlib.cli_cluster import Cluster, set_environment
from recamlib.cli_compare import compare
from recamlib.cli_data import data
from recamlib.cli_submit import submit
from recamlib.errors import RecamError
from recamlib.paths import results_dir

out = Console(highlight=False, soft_wrap=True)
err = Console(highlight=False, soft_wrap=True, stderr=True)


class Commands(TyperGroup):
    """Turns errors that are the user's to fix into one line and a non-zero exit status."""

    def invoke(self, ctx: typer.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (RecamError, OSError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise
            err.print(f"error: {error}", style="red", markup=False)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Class Re-Activation Maps: notebooks, report, data.",
)


@app.callback()
def _main(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    pass


@app.command()
def run(
    notebook: Annotated[str, typer.Argument(help="Number or name, such as 02.")],
    profile: Annotated[str, typer.Option(help="Kind of run: a file in notebooks/profiles.")] = DEFAULT,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter or setting: Reactivate.lr=0.05"
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the executed copy.")] = None,
    cluster: Cluster = "",
) -> None:
    """Run one notebook, reusing what has run before.

    Stages with the same settings come from the cache. `recam list 02` shows a notebook's parameters.
    """
    from recamlib.book.run import run_notebook

    given = parse_assignments(parameter or [])
    path = find_notebook(notebook)
    settings = profile_parameters(profile, path.stem, extra=given)
    set_environment(cluster)
    _announce(path.stem, profile, settings)
    start = time.monotonic()
    done = run_notebook(path.stem, profile=profile, parameters=given, output_dir=output)
    out.print(f"done in {_duration(time.monotonic() - start)}: {done}", markup=False)


@app.command()
def report(
    profile: Annotated[str, typer.Option(help="Kind of run: a file in notebooks/profiles.")] = "quick",
    pdf: Annotated[bool, typer.Option("--pdf", help="Print it to one PDF too, through Chromium.")] = False,
    cluster: Cluster = "",
) -> None:
    """Run all notebooks and build the book."""
    from recamlib.book.run import NotebookError, run_notebook

    if pdf:
        from recamlib.book.chromium import require_chromium

        require_chromium()  # before an hour of notebooks, not after
    set_environment(cluster)
    notebooks = list_notebooks()
    # all of them are checked before the first one runs
    settings = [profile_parameters(profile, path.stem) for path in notebooks]
    failed = []
    begin = time.monotonic()
    for number, (path, values) in enumerate(zip(notebooks, settings), 1):
        _announce(f"[{number}/{len(notebooks)}] {path.stem}", profile, values)
        start = time.monotonic()
        try:
            run_notebook(path.stem, profile=profile)
        except NotebookError as error:
            err.print(f"error: {error}", style="red", markup=False)
            failed.append(path.stem)
        else:
            out.print(f"      done in {_duration(time.monotonic() - start)}", markup=False)
    if failed:
        count = f"{len(failed)} of {len(notebooks)}"
        raise RecamError(f"{count} notebooks failed ({', '.join(failed)}), so no book was built")
    out.print("building the book")
    index = _build_book()
    out.print(f"the report took {_duration(time.monotonic() - begin)}; open it with a browser:", markup=False)
    out.print(index.as_uri(), markup=False)
    if pdf:
        from recamlib.book.pdf import print_book
        from recamlib.paths import book_dir

        target = index.parent.parent / "report.pdf"
        out.print(f"printed: {print_book(index.parent, book_dir() / '_toc.yml', target)}", markup=False)


@app.command()
def keep(
    notebook: Annotated[
        str,
        typer.Argument(help="A notebook that has run (number or name), a result.json, or bench."),
    ],
    profile: Annotated[str, typer.Option(help="The profile it ran with.")] = "mini",
) -> None:
    """Copy the numbers of a finished run, or of "bench", to book/measured, tracked and shown.

    Of a notebook the latest run of the profile is taken, of earlier ones the result.json that they left.
    """
    from recamlib.report.claims import read
    from recamlib.report.kept import keep_benchmarks, save_measured

    if notebook == "bench":
        out.print(f"kept {keep_benchmarks()}", markup=False)
        return
    found = Path(notebook)
    if not found.is_file():
        found = results_dir() / find_notebook(notebook).stem / f"latest_{profile}.json"
    if not found.is_file():
        raise RecamError(f"nothing to keep: recam run {notebook} --profile {profile} has not finished here")
    out.print(f"kept {save_measured(read(found))}", markup=False)


@app.command()
def book() -> None:
    """Build the book from notebooks that have run."""
    out.print(_build_book().as_uri(), markup=False)


app.command()(compare)


@app.command("list")
def list_(
    notebook: Annotated[str | None, typer.Argument(help="Number or name, such as 02.")] = None,
) -> None:
    """List notebooks, or one notebook's parameters."""
    if notebook is None:
        for path in list_notebooks():
            out.print(f"{path.stem}: {_title(path)}", markup=False)
        out.print(f"profiles: {', '.join(list_profiles())}", markup=False)
        return
    path = find_notebook(notebook)
    out.print(f"{path.stem}: {_title(path)}", markup=False)
    known = read_parameters(path)
    plain = [p for p in known.values() if p.name != "settings"]
    lines = [(f"{p.name}={p.default!r}", p.annotation, p.comment) for p in plain]
    own = known["settings"].default if "settings" in known else {}
    for stage in stages_of(known):
        lines += [(f"{stage}.{name}={own.get(stage, {}).get(name, default)!r}", kind, "")
                  for name, (kind, default) in fields_of(stage).items()]  # fmt: skip
    wide, typed = (max(len(line[i]) for line in lines if len(line[i]) < 60) for i in (0, 1))
    for assignment, annotation, comment in lines:
        out.print(f"  {assignment:<{wide}}  {annotation:<{typed}}  {comment}".rstrip(), markup=False)


app.add_typer(data, name="data")
app.add_typer(submit, name="submit")


@app.command()
def doctor() -> None:
    """Check versions, device, space, data, weights."""
    from recamlib.book.doctor import examine

    broken = []
    for finding in examine():
        mark, style = {True: ("ok", "green"), False: ("broken", "red"), None: ("--", "")}[finding.ok]
        out.print(f"{mark:<7}{finding.what:<13}{finding.detail}", style=style, markup=False)
        if finding.ok is False:
            broken.append(finding.what)
    if broken:
        raise RecamError(f"broken: {', '.join(broken)}")


def _build_book() -> Path:
    """Build the book with the scoreboard of all results at hand."""
    from recamlib.book.build import build_book
    from recamlib.book.pages import book_pages

    return build_book(pages=book_pages())


def _announce(what: str, profile: str, settings: dict[str, object]) -> None:
    """Say which notebook runs with what, and what of it this machine is slow at."""
    from recamlib.book.doctor import slow_precision

    shown = ", ".join(f"{name}={value!r}" for name, value in settings.items() if name != "profile")
    out.print(f"{what}: profile {profile}" + (f", {shown}" if shown else ""), markup=False)
    if hint := slow_precision(settings):
        out.print(hint, style="yellow", markup=False)


def _title(path: Path) -> str:
    """Return the first heading of a notebook."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for line in "".join(cell["source"]).splitlines():
            if cell["cell_type"] == "markdown" and line.startswith("# "):
                return line.removeprefix("# ")
    return ""


def _duration(seconds: float) -> str:
    """Return a duration for people.

    Examples
    --------
    >>> _duration(7.31), _duration(750)
    ('7 s', '12 min 30 s')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def main() -> None:
    """Entry point of the `recam` command."""
    app()


if __name__ == "__main__":
    main()
