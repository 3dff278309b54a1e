"""The command line: run notebooks, build the report, look after data, results and the machine."""

import multiprocessing
import os
import sys
import time
from multiprocessing.connection import wait
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from recamlib.book import parameters as params
from recamlib.book.parameters import DEFAULT, find_notebook, list_notebooks, parse_assignments
from recamlib.errors import DataError, RecamError
from recamlib.paths import ROOT, data_dir, results_dir

say = typer.secho
ORDER = "02 01 04 05 06 03"  # first what others take their maps from, then the longest ones


class Commands(TyperGroup):
    """Turns errors that are the user's to fix into one line and exit status 1."""

    def invoke(self, ctx: typer.Context) -> object:
        try:
            return super().invoke(ctx)
        except (RecamError, OSError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise
            say(f"error: {error}", fg="red", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, help="Class Re-Activation Maps: notebooks, report, data.",
)  # fmt: skip
data = typer.Typer(no_args_is_help=True, help="Data sets: check, fetch, make.")
app.add_typer(data, name="data")

Profile = Annotated[str, typer.Option(help="Kind of run: a file in notebooks/profiles.")]
Notebook = Annotated[str, typer.Argument(help="Number or name, such as 02.")]
Cluster = Annotated[str, typer.Option(
    envvar="RECAM_CLUSTER", metavar="KIND[,NAME=VALUE,...]", show_default=False,
    help="Send stages to slurm, or to processes of this machine (local).",
)]  # fmt: skip
Assignments = Annotated[list[str] | None, typer.Option(
    "--parameter", "-p", metavar="NAME=VALUE", help="Set a parameter or setting: Reactivate.lr=0.05"
)]  # fmt: skip


@app.callback()
def _main(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    pass


@app.command()
def run(
    notebook: Notebook, profile: Profile = DEFAULT, parameter: Assignments = None,
    output: Annotated[Path | None, typer.Option(help="Folder for the executed copy.")] = None,
    cluster: Cluster = "",
) -> None:  # fmt: skip
    """Run one notebook, reusing what has run before; `recam list 02` shows its parameters."""
    from recamlib.book.run import run_notebook

    _send_to(cluster)
    name, given = find_notebook(notebook).stem, parse_assignments(parameter or [])
    settings = params.profile_parameters(profile, name, extra=given)
    shown = [f"{key}={value!r}" for key, value in settings.items() if key != "profile"]
    say(", ".join([f"{name}: profile {profile}", *shown]))
    start = time.monotonic()
    done = run_notebook(name, profile=profile, parameters=given, output_dir=output)
    say(f"done in {time.monotonic() - start:.0f} s: {done}")


@app.command()
def report(profile: Profile = "quick", cluster: Cluster = "") -> None:
    """Run all notebooks and build the book."""
    _send_to(cluster)
    notebooks = sorted(list_notebooks(), key=lambda path: ORDER.find(path.stem[:2]))
    for path in notebooks:  # all of them are checked before the first one runs
        params.profile_parameters(profile, path.stem)

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
    forked = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    words = [["run", path.stem, "--profile", profile] for path in notebooks]
    jobs = [forked.Process(target=main, args=(each,)) for each in words]
    for number, job in enumerate(jobs):  # two at a time: what both need is computed by one of them
        while len(alive := [earlier for earlier in jobs[:number] if earlier.is_alive()]) > 1:
            wait([earlier.sentinel for earlier in alive])
        job.start()
    for job in jobs:
        job.join()
    failed = [path.stem for path, job in zip(notebooks, jobs) if job.exitcode]
    if failed:
        count = f"{len(failed)} of {len(notebooks)}"
        raise RecamError(f"{count} notebooks failed ({', '.join(failed)}), so no book was built")
    say("building the book; open it with a browser:")
    book()


@app.command()
def book() -> None:
    """Build the book from notebooks that have run."""
    from recamlib.book.build import build_book

    say(build_book().as_uri())


@app.command()
def store(
    notebook: Annotated[str, typer.Argument(help='Number or name of a run, a result.json, or "bench".')],
    profile: Annotated[str, typer.Option(help="The profile it ran with.")] = "mini",
) -> None:
    """Store the numbers of a notebook's latest run, of a result.json or of "bench" in book/measured."""
    from recamlib.report import results as stored

    if notebook == "bench":
        say(f"stored {stored.store_benchmarks()}")
        return
    path = Path(notebook)
    if not path.is_file():
        path = results_dir() / find_notebook(notebook).stem / f"latest_{profile}.json"
    if not path.is_file():
        raise RecamError(f"nothing to store: recam run {notebook} --profile {profile} has not finished here")
    say(f"stored {stored.store(stored.read(path))}")


@app.command("map")
def map_photos(
    photos: Annotated[list[Path], typer.Argument(help="Pictures of any size and mode.")],
    classes: Annotated[str, typer.Option(help="Classes they show, such as cat,dog; else those seen.")] = "",
    weights: Annotated[str, typer.Option(help="Weights that ReCAM is read with (Eq. 9).")] = "w*w'",
    backbone_weights: Annotated[
        str, typer.Option(help="ImageNet weights of MobileNetV2.")] = "mobilenet_v2_imagenet",
    output: Annotated[Path, typer.Option(help="Folder for pictures, masks and npz files.")] = Path("maps"),
) -> None:  # fmt: skip
    """CAM, ReCAM and pseudo mask of your own photographs, for the twenty classes of VOC."""
    from recamlib.studies.photo import map_photo, write_photo

    failed = False
    for photo in photos:
        try:
            names = [name for name in classes.split(",") if name]
            maps = map_photo(photo, classes=names, weights=weights, backbone_weights=backbone_weights)
        except RecamError as error:
            say(error, fg="red")
            failed = True
            continue
        seen = ", ".join(f"{name} {score:.0%}" for name, score in zip(maps.classes, maps.scores))
        say(f"{photo.name}: {seen}; wrote {write_photo(maps, output, photo.stem)[0]}")
    if failed:
        raise typer.Exit(1)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A finished run: NOTEBOOK/PROFILE such as 04/mini.")],
    row: Annotated[str, typer.Argument(help="A row of its result, such as irn.deeplabv2_recam_val.")],
    target: Annotated[Path, typer.Argument(help="The .safetensors file to write; the model card is .md.")],
    seed: Annotated[int, typer.Option(min=0, help="Which of the run's seeds, counted from 0.")] = 0,
) -> None:
    """Write backbone and heads, or a segmentation network, of a finished run with a model card."""
    from recamlib.book.export import export_row
    from recamlib.report.compare import load_run

    for path in export_row(load_run(run), row, target, seed=seed):
        say(f"wrote {path}")


@app.command()
def results() -> None:
    """Write RESULTS.md and README's table from the stored results."""
    from recamlib.report.summary import write_results

    for path in write_results(ROOT):
        say(f"wrote {path}")


@app.command()
def compare(
    run_a: Annotated[str, typer.Argument(help="A result.json, or NOTEBOOK/PROFILE such as 02/quick.")],
    run_b: Annotated[str, typer.Argument(help="Another run of the same notebook.")],
) -> None:
    """Say what differs between two runs, and what moved by more than noise."""
    from recamlib.report.compare import RULE, comparison, load_run
    from recamlib.report.tables import describe_data, shown

    a, b = load_run(run_a), load_run(run_b)
    tables = comparison(a, b)
    for name, run in (("A", a), ("B", b)):
        say(f"{name}: {describe_data(run)}, {run['provenance']['date']}")
    for title, frame in tables.items():
        say(f"\n{title}\n{shown(frame).to_string()}" if len(frame) else f"\n{title}: none")
    say(f"\n{RULE}")


@app.command("list")
def list_(notebook: Annotated[str | None, typer.Argument(help="Number or name, such as 02.")] = None) -> None:
    """List notebooks, or one notebook's parameters."""
    for path in [find_notebook(notebook)] if notebook else list_notebooks():
        say(path.stem)
    if notebook is None:
        say(f"profiles: {', '.join(params.list_profiles())}")
        return
    known = params.read_parameters(path)
    own = known["settings"].default if "settings" in known else {}
    for item in known.values():
        if item.name != "settings":
            say(f"  {f'{item.name}={item.default!r}':<45} {item.annotation:<12} {item.comment}")
    for stage in params.stages_of(known):
        for name, (kind, default) in params.fields_of(stage).items():
            say(f"  {f'{stage}.{name}={own.get(stage, {}).get(name, default)!r}':<45} {kind}")


@app.command()
def doctor() -> None:
    """Check versions, device, space, data."""
    from recamlib.book.doctor import examine

    broken = []
    for what, ok, detail in examine():
        mark, colour = {True: ("ok", "green"), False: ("broken", "red"), None: ("--", None)}[ok]
        say(f"{mark:<7}{what:<13}{detail}", fg=colour)
        broken += [what] * (ok is False)
    if broken:
        raise RecamError(f"broken: {', '.join(broken)}")


@app.command()
def pretrain(
    output: Annotated[Path | None, typer.Option(help="File to write; the package's own by default.")] = None,
    scenes: Annotated[int, typer.Option(min=32, help="Scenes to learn from.")] = 6000,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over them.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="What all draws come from.")] = 0,
) -> None:
    """Train the small backbone on scenes of other classes: makes the weights named scenes."""
    from recamlib.engine.pretrain import pretrain as train_backbone
    from recamlib.models.weights import PACKAGED

    path = output or PACKAGED
    made = train_backbone(path, scenes=scenes, epochs=epochs, seed=seed)
    say(f"{path}: accuracy {made['accuracy']:.1%} on other scenes, in {made['seconds']} s")


@data.command("check")
def check_data(
    names: Annotated[list[str] | None, typer.Argument(help="Data sets, all if none is named.")] = None,
) -> None:
    """Decode every file of the data sets that are there; say which notebooks can run on them."""
    from recamlib.data.access import DATASETS
    from recamlib.data.check import check_dataset

    # what is not there is no error unless it was asked for by name
    reports = [check_dataset(name, progress=sys.stderr.isatty()) for name in names or DATASETS]
    for checked in reports:
        say(checked)
    bad = [checked.name for checked in reports if checked.problems or (names and not checked.ok)]
    if bad:
        raise DataError(f"not as it should be: {', '.join(bad)} (see above)")


@data.command("fetch")
def fetch_data(
    name: Annotated[str, typer.Argument(help="voc12, sbd (after voc12) or coco14.")],
    keep: Annotated[bool, typer.Option(help="Keep the archives after unpacking.")] = False,
) -> None:
    """Download a data set into RECAM_DATA, or go on with it."""
    from recamlib.data.fetch import fetch

    say(f"{name} is in {fetch(name, keep=keep, progress=sys.stderr.isatty())}")


@data.command("make")
def make_data(
    folder: Annotated[Path, typer.Argument(help="Where VOCdevkit/VOC2012 is written.")],
    train: Annotated[int, typer.Option(min=1, help="Training images.")] = 480,
    val: Annotated[int, typer.Option(min=1, help="Validation images.")] = 160,
    size: Annotated[int, typer.Option(min=48, max=2048, help="Side of an image, in pixels.")] = 96,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the scenes.")] = 0,
) -> None:
    """Write the embedded scenes as a VOC devkit."""
    from recamlib.data.access import open_images, open_masks
    from recamlib.data.voc import write_voc

    for split, count in (("train", train), ("val", val)):
        options = {"count": count, "size": size, "seed": seed}
        images, masks = open_images("hoofed", split, **options), open_masks("hoofed", split, **options)
        say(f"{split}: {len(images.ids)} images in {write_voc(folder, images, masks, split=split)}")


@app.command()
def submit(
    source: Annotated[Path, typer.Argument(
        help="A network of `recam export`, or a folder of masks ID.png, class indices.")],
    archive: Annotated[Path, typer.Argument(help="The .tar.gz or .tgz file to write.")],
    competition: Annotated[str, typer.Option(help="comp5: trained on VOC alone; comp6: on more.")] = "comp6",
    parameter: Annotated[list[str] | None, typer.Option(
        "--parameter", "-p", metavar="NAME=VALUE", help="Of SegmentationScore: scales=[0.5,1]")] = None,
) -> None:  # fmt: skip
    """Predict VOC's test split with a trained network and pack the masks for its evaluation server."""
    from recamlib.book.submit import OFFICIAL, TestImages, predicted, read_predicted, write_submission
    from recamlib.report.claims import SERVER
    from recamlib.studies.checks import checked

    images = TestImages(data_dir())
    given = {"SegmentationScore": parse_assignments(parameter or [])}
    how = checked(settings=given)["settings"]["SegmentationScore"]
    masks = read_predicted(source, images.ids) if source.is_dir() else predicted(source, images, **how)
    write_submission(masks, archive, size=images.size, space=images.space, competition=competition)
    say(f"{archive}: {len(images):,} masks for {competition}")
    if len(images) != OFFICIAL:
        say(f"this is a part: the list has {len(images)} ids, the official one, which is scored, {OFFICIAL}")
    say(f"Sign in at {SERVER}/ and upload it as segmentation, {competition}, VOC2012.")
    say("Then put the mean IoU and the link of the anonymous result page into book/measured/server.yml:")
    say("table3.none.deeplabv2_recam_test.voc12: {value: PERCENT, link: LINK, date: YYYY-MM-DD}")


def _send_to(cluster: str) -> None:
    if cluster:  # checked here, handed to kernels by the environment; it is part of no key
        from recamlib.stages.infra import read_cluster

        read_cluster(cluster)
        os.environ["RECAM_CLUSTER"] = cluster


def main(words: list[str] | None = None) -> None:
    app(words)


if __name__ == "__main__":
    main()
