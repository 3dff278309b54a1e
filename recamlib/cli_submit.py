"""The part of the command line for the test split: the package for the server, numbers from it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recamlib.errors import DataError, nearest
from recamlib.paths import data_dir

out = Console(highlight=False, soft_wrap=True)
submit = typer.Typer(no_args_is_help=True, help="Test split of VOC: package for its server, numbers from it.")

SHOWN = 20  # findings printed; the rest is counted


@submit.command()
def check(archive: Annotated[Path, typer.Argument(help="A .tar.gz, .tgz or .tar file.")]) -> None:
    """Check an archive before it is uploaded; nothing is unpacked."""
    from recamlib.book.submit import TestImages, check_submission

    images = TestImages(data_dir())
    findings = check_submission(archive, ids=images.ids, sizes=images.size)
    for finding in findings[:SHOWN]:
        out.print(finding, markup=False)
    if len(findings) > SHOWN:
        out.print(f"and {len(findings) - SHOWN:,} more", markup=False)
    if findings:
        raise DataError(f"{archive}: {len(findings):,} problem{'s' if len(findings) > 1 else ''}")
    out.print(f"{archive}: {len(images):,} masks, nothing wrong", markup=False)
    _say_part(images.part)


@submit.command()
def write(
    folder: Annotated[Path, typer.Argument(help="Predicted masks, ID.png, PNGs of class indices.")],
    archive: Annotated[Path, typer.Argument(help="The .tar.gz or .tgz file to write.")],
    competition: Annotated[str, typer.Option(help="comp5: trained on VOC alone; comp6: on more.")] = "comp6",
) -> None:
    """Pack predicted masks for the evaluation server."""
    from recamlib.book.submit import TestImages, write_submission
    from recamlib.data.images import read_mask
    from recamlib.report.entered import SERVER

    images = TestImages(data_dir())
    there = {path.stem for path in folder.glob("*.png")}
    missing = [id for id in images.ids if id not in there]
    if missing:
        hint = nearest(missing[0], sorted(there)[:2000])
        count = f"{len(missing):,} of {len(images):,} masks"
        raise DataError(f"{count} are missing in {folder}, the first is {missing[0]}.png{hint}")
    masks = ((id, read_mask(folder / f"{id}.png")) for id in images.ids)
    write_submission(masks, archive, ids=images.ids, sizes=images.size, competition=competition)
    out.print(f"{archive}: {len(images):,} masks for {competition}", markup=False)
    others = len(there) - len(images)
    if others:
        out.print(f"{others:,} PNG files in {folder} are not on the list and were left out", markup=False)
    _say_part(images.part)
    out.print(f"Sign in at {SERVER}/ and upload it as segmentation, {competition}, VOC2012.", markup=False)
    out.print("Then take the link of the anonymous result page and enter the mean IoU:", markup=False)
    out.print(f"recam submit enter CLAIM PERCENT {SERVER}/anonymous/NAME.html", markup=False)


@submit.command()
def enter(
    claim_id: Annotated[str, typer.Argument(help="Such as table3.none.deeplabv2_recam_test.voc12.")],
    value: Annotated[float, typer.Argument(help="Mean IoU in percent.")],
    link: Annotated[str, typer.Argument(help="Anonymous result page of the server.")],
) -> None:
    """Record a number that the server returned, shown as entered, not measured."""
    from recamlib.report.claims import paper_value
    from recamlib.report.entered import enter_number, entered_numbers

    earlier = entered_numbers().get(claim_id)
    path = enter_number(claim_id, value, link)
    instead = f", instead of {earlier['value']:g}" if earlier else ""
    out.print(f"{claim_id}: {value:g}{instead}, in the paper {paper_value(claim_id)}", markup=False)
    out.print(f"kept in {path}, to be committed", markup=False)


def _say_part(part: str) -> None:
    """Print that the list is not the official one, if so."""
    if part:
        out.print(f"{part}; the server scores whole lists only", markup=False)
