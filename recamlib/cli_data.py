"""The part of the command line that looks after data sets."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from recamlib.errors import DataError

out = Console(highlight=False, soft_wrap=True)
data = typer.Typer(no_args_is_help=True, help="Data sets: check, fetch, make.")


@data.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets, all if none is named.")] = None,
) -> None:
    """Decode every file of the data sets that are there; say which notebooks can run on them."""
    from recamlib.data.access import DATASETS
    from recamlib.data.check import check_dataset

    # what is not there is no error unless it was asked for by name
    reports = [check_dataset(name, progress=sys.stderr.isatty()) for name in names or DATASETS]
    for found in reports:
        out.print(str(found), markup=False)
    bad = [found.name for found in reports if found.problems or (names and not found.ok)]
    if bad:
        raise DataError(f"not as it should be: {', '.join(bad)} (see above)")


@data.command()
def fetch(
    name: Annotated[str, typer.Argument(help="voc12, sbd (after voc12) or coco14.")],
    keep: Annotated[bool, typer.Option(help="Keep the archives after unpacking.")] = False,
) -> None:
    """Download a data set into RECAM_DATA, or go on with it."""
    from recamlib.data.fetch import fetch as fetch_dataset

    out.print(f"{name} is in {fetch_dataset(name, keep=keep, progress=sys.stderr.isatty())}", markup=False)


@data.command()
def make(
    folder: Annotated[Path, typer.Argument(help="Where VOCdevkit/VOC2012 is written.")],
    train: Annotated[int, typer.Option(min=1, help="Training images.")] = 480,
    val: Annotated[int, typer.Option(min=1, help="Validation images.")] = 160,
    size: Annotated[int, typer.Option(min=48, max=2048, help="Side of an image, in pixels.")] = 96,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the scenes.")] = 0,
) -> None:
    """Write the embedded scenes as a VOC devkit."""
    from recamlib.data.access import open_images, open_masks
    from recamlib.data.export import write_voc

    for split, count in (("train", train), ("val", val)):
        options = {"count": count, "size": size, "seed": seed}
        images, masks = open_images("hoofed", split, **options), open_masks("hoofed", split, **options)
        written = write_voc(folder, images, masks, split=split)
        out.print(f"{split}: {len(images.ids)} images in {written}", markup=False)
