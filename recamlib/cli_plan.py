"""The part of the command line that says what a run will take before it runs."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from recamlib.parameters import parse_assignments
from recamlib.profiles import DEFAULT, all_parameters, find_notebook, list_notebooks

out = Console(highlight=False, soft_wrap=True)
HEAD = ("notebook", "stage", "stages", "images", "done", "hours", "left", "disk", "memory", "basis")


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
    from recamlib.forecast import check, forecast, keep_check, summary
    from recamlib.planned import data_is_here

    paths = [find_notebook(notebook)] if notebook else list_notebooks()
    given = parse_assignments(parameter or [])
    data = {all_parameters(profile, path.stem, extra=given)["dataset"] for path in paths}
    nominal = not all(data_is_here(name) for name in data)
    frame = forecast([p.stem for p in paths], profile=profile, gpus=gpus, extra=given, nominal=nominal)
    table = Table(box=None, pad_edge=False)
    for name in HEAD:
        table.add_column(name, justify="left" if name in ("notebook", "stage", "basis") else "right")
    for row in summary(frame).to_dict("records"):
        cells = (row["notebook"], row["stage"], row["stages"], f"{row['images']:,}", f"{row['done']:.0%}",
                 hours(row["seconds"]), hours(row["left"]), f"{row['disk']:,.0f} MB",
                 f"{row['memory']:,.0f} MiB", row["basis"])  # fmt: skip
        table.add_row(*(str(cell).replace("nan", "?") for cell in cells))
    out.print(table)
    cards = f"on {gpus} GPU{'s' if gpus > 1 else ''}, if all share the work evenly"
    where = cards if gpus else "on one machine"
    all_, left = hours(frame["seconds"].sum()), hours(frame["left"].sum())
    out.print(f"\n{len(frame)} stages, {all_} h on one device; {left} h left {where}", markup=False)
    disk, memory = frame["disk"].sum() / 1000, frame["memory"].max()
    out.print(f"{disk:,.1f} GB on the disk, up to {memory:,.0f} MiB of memory", markup=False)
    if unknown := frame["seconds"].isna().sum():
        out.print(f"{unknown} stages were never measured and are not in the sum", markup=False)
    if nominal:
        out.print(f"{', '.join(sorted(data))} is not here: official numbers of images", markup=False)
    found = check(frame)
    if len(found) > 1:
        last = found.loc["all"]
        said, seen = hours(last["seconds"]), hours(last["measured"])
        text = f"of what is done, {said} h forecast, {seen} h measured: {last['ratio']:.2f} times"
        out.print(text, markup=False)
    if keep:
        what = f"profile {profile}" + (f", notebook {paths[0].stem}" if notebook else "")
        out.print(f"kept {keep_check(frame, what=', '.join([what, *(parameter or [])]))}", markup=False)


def hours(seconds: float) -> str:
    """Return seconds as hours, with as many digits as mean something.

    Examples
    --------
    >>> hours(36), hours(7200), hours(3.6e6)
    ('0.01', '2.0', '1,000')
    """
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
