"""The part of the command line that puts two runs side by side."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

out = Console(highlight=False, soft_wrap=True)


def compare(
    run_a: Annotated[str, typer.Argument(help="A result.json, or NOTEBOOK/PROFILE such as 02/quick.")],
    run_b: Annotated[str, typer.Argument(help="Another run of the same notebook.")],
) -> None:
    """Say what differs between two runs, and what moved by more than noise."""
    from recamlib.report.compare import RULE, comparison, load_run, title_of
    from recamlib.report.tables import shown

    a, b = load_run(run_a), load_run(run_b)
    tables = comparison(a, b)
    out.print(f"A: {title_of(a)}\nB: {title_of(b)}", markup=False)
    for title, frame in tables.items():
        out.print(f"\n{title}" if len(frame) else f"\n{title}: none", markup=False)
        if len(frame):
            text = shown(frame)
            table = Table(box=None, pad_edge=False)
            for name in ("", *text.columns):
                table.add_column(name, overflow="fold")
            for name, row in text.iterrows():
                table.add_row(*(str(cell).replace("[", "\\[") for cell in (name, *row)))
            out.print(table)
    out.print(f"\n{RULE}", markup=False)
