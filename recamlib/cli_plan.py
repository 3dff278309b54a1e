"""The part of the command line that says what a run will take before it runs."""

import math
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from recamlib.book.parameters import parse_assignments
from recamlib.book.profiles import DEFAULT, all_parameters, find_notebook, list_notebooks

out = Console(highlight=False, soft_wrap=True)
HEAD = ("", "stage", "stages", "images", "done", "time", "left", "disk", "memory", "time is")
LEFT = ("", "stage", "time is")


def plan(
    notebook: Annotated[str | None, typer.Argument(help="Number or name, all if none is named.")] = None,
    profile: Annotated[str, typer.Option(help="Kind of run: a file in notebooks/profiles.")] = DEFAULT,
    gpus: Annotated[int, typer.Option(help="GPUs that share the work, 0 for the processor.", min=0)] = 0,
    parameter: Annotated[
        list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="Set one parameter.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep forecast beside measurement of what is done, for the book.")
    ] = False,
) -> None:
    """Forecast time, disk and memory of every stage before it runs."""
    from recamlib.book.forecast import check, forecast, keep_check, summary
    from recamlib.book.planned import data_is_here

    paths = [find_notebook(notebook)] if notebook else list_notebooks()
    given = parse_assignments(parameter or [])
    data = {all_parameters(profile, path.stem, extra=given)["dataset"] for path in paths}
    nominal = not all(data_is_here(name) for name in data)
    frame = forecast([p.stem for p in paths], profile=profile, gpus=gpus, extra=given, nominal=nominal)
    table = Table(box=None, pad_edge=False)
    for name in HEAD:
        table.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for row in summary(frame).to_dict("records"):
        cells = (row["notebook"], row["stage"], row["stages"], f"{row['images']:,}", f"{row['done']:.0%}",
                 duration(row["seconds"]), duration(row["left"]), f"{row['disk']:,.0f} MB",
                 f"{row['memory']:,.0f} MiB", row["basis"])  # fmt: skip
        table.add_row(*(str(cell).replace("nan MB", "?").replace("nan MiB", "?") for cell in cells))
    (out if out.is_terminal else Console(width=140)).print(table)  # a file has no narrow window
    where = {0: "on this machine", 1: "on one GPU"}.get(gpus, f"on {gpus} GPUs that share it evenly")
    whole, left = duration(frame["seconds"].sum()), duration(frame["left"].sum())
    out.print(f"\n{len(frame)} stages, {whole} on one device; {left} left {where}", markup=False)
    disk, memory = frame["disk"].sum() / 1000, frame["memory"].max()
    out.print(f"{disk:,.1f} GB on the disk, up to {memory:,.0f} MiB of memory", markup=False)
    if unknown := frame["seconds"].isna().sum():
        out.print(f"{unknown} stages were never measured and are not in the sum", markup=False)
    if nominal:
        out.print(f"{', '.join(sorted(data))} is not here: official numbers of images", markup=False)
    found = check(frame)
    if len(found) > 1:
        last = found.loc["all"]
        said, seen, ratio = duration(last["seconds"]), duration(last["measured"]), last["ratio"]
        out.print(f"of what is done, {said} forecast, {seen} measured: {ratio:.2f} times", markup=False)
    if keep:
        what = f"profile {profile}" + (f", notebook {paths[0].stem}" if notebook else "")
        out.print(f"kept {keep_check(frame, what=', '.join([what, *(parameter or [])]))}", markup=False)


def duration(seconds: float) -> str:
    """Return seconds in the unit that suits them; what is not known has a question mark.

    Examples
    --------
    >>> duration(36), duration(600), duration(9000), duration(3.6e6)
    ('36 s', '10 min', '2.5 h', '1,000 h')
    """
    if math.isnan(seconds):
        return "?"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.{0 if seconds > 360_000 else 1}f} h"
