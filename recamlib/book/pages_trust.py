"""Tables of the book's page on trust, from what the fault tests and the scale benchmark kept."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from recamlib import paths
from recamlib.report.tables import escaped

NOT_YET = "Not measured yet."
TRAINING = ("TrainClassifier", "Reactivate", "TrainBoundary", "TrainSegmenter", "TrainUpperBound")
Row = Sequence[Any]


def trust_pages() -> dict[str, str]:
    """Return the measured parts of the page by their path inside the book."""
    faults, scale = (kept(name) for name in ("faults.json", "scale.json"))
    parts: dict[str, tuple[Callable[[Mapping[str, Any]], str], Any]] = {
        "kills": (kills_table, faults.get("kills")), "fuzz": (fuzz_table, faults.get("fuzz")),
        "surroundings": (surroundings_table, faults.get("surroundings")),
        "bits": (bits_table, faults.get("bits")), "scale": (scale_table, scale),
    }  # fmt: skip
    return {
        f"measured_{name}.md": make(found) + source_line(found) if found else NOT_YET
        for name, (make, found) in parts.items()
    }


def kills_table(found: Mapping[str, Any]) -> str:
    """Return how often each kind of stage was killed, and what came of it."""
    killed = [(name, count) for name, count in found["stages"].items()]
    wrong = [
        ("runs killed", found["kills"]),
        ("of these while training", sum(count for name, count in killed if name in TRAINING)),
        ("of these with entries complete", found["with_complete_entries"]),
        ("results with other bytes than the unbroken run's", found["different_bytes"]),
        ("complete entries computed again", found["recomputed"]),
        ("temporary files left", found["files_left"]),
        ("training steps taken twice, in all", found["steps_repeated"]),
    ]  # fmt: skip
    tables = (("kill -9", "number"), wrong), (("kind of stage", "kills"), killed)
    return "\n\n".join(markdown_table(*table) for table in tables)


def fuzz_table(found: Mapping[str, Any]) -> str:
    """Return inputs, refusals and the slowest input of every reader."""
    rows = [
        (name, f"{row['inputs']:,}", f"{row['refused']:,}", f"{1e3 * row['slowest']:.0f} ms")
        for name, row in found["readers"].items()
    ]
    rows.append(("all", f"{found['inputs']:,}", f"{found['refused']:,}", f"{1e3 * found['slowest']:.0f} ms"))
    table = markdown_table(("reader", "inputs", "refused by name", "slowest (processor time)"), rows)
    return f"{table}\n\nBeside these, {found['bombs']} inputs made to do harm were refused by name."


def surroundings_table(found: Mapping[str, Any]) -> str:
    """Return what came of each fault of the surroundings."""
    return markdown_table(("what goes wrong", "what happens"), found["faults"].items())


def bits_table(found: Mapping[str, Any]) -> str:
    """Return the largest difference that each change of the run makes, relative to the largest number."""
    rows = [(name, "none" if gap == 0 else f"{gap:.1e}") for name, gap in found["differences"].items()]
    return markdown_table(("what differs between two runs", "largest relative difference"), rows)


def scale_table(found: Mapping[str, Any]) -> str:
    """Return what a data set of COCO's size takes."""
    rows = [
        ("images, regions", f"{found['images']:,}, {found['regions']:,}"),
        ("index file", f"{found['index_mb']:.0f} MB"),
        ("opening images and labels", f"{found['open_cpu_seconds']:.1f} s"),
        ("opening the masks after that", f"{found['masks_cpu_seconds']:.1f} s"),
        ("storing a step, an image", f"{found['fill_cpu_ms']:.2f} ms"),
        ("reading a stored step, an image", f"{found['read_cpu_ms']:.2f} ms"),
        ("asking for one image alone", f"{found['read_alone_cpu_ms']:.2f} ms"),
        ("peak memory of it all", f"{found['peak_memory_mib']:,} MiB"),
        ("of which before the index is opened", f"{found['base_memory_mib']:,} MiB"),
        ("files in the results folder", found["files"]), ("their size", f"{found['cache_mb']:,} MB"),
    ]  # fmt: skip
    return markdown_table(("", "measured, times in seconds of the processor"), rows)


def kept(name: str) -> dict[str, Any]:
    """Return what is kept with the book under a name, or nothing."""
    path = paths.book_dir() / "measured" / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def markdown_table(head: Row, rows: Iterable[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(escaped(cell) for cell in row)} |" for row in rows)])


def source_line(found: Mapping[str, Any]) -> str:
    """Return date, device and versions of a measurement as a line."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return f"\n\n*{escaped(found['date'])}, {escaped(found['device'])}, {escaped(versions)}.*\n"
