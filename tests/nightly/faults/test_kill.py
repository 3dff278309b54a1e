"""Kill -9 at random moments in every kind of stage; the run that follows must be as if nothing had happened.

``RECAM_KILLS`` is the number of kills: from 14 on they go round every kind of stage, fewer go round four.
``RECAM_KEEP_FAULTS=1`` writes what was found to ``book/measured/faults.json``.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
import small_stages as small
from measured import keep
from server import Server

from recamlib.stages.base import Stage

KILLS = int(os.environ.get("RECAM_KILLS", 4))
KINDS = (
    tuple(small.stages()) if len(small.stages()) <= KILLS
    else ("TrainClassifier", "Reactivate", "ExtractCams", "PseudoMasks")
)  # fmt: skip
SEED = int(os.environ.get("RECAM_KILL_SEED", 0))


@pytest.fixture(scope="module")
def unbroken(server, tmp_path_factory):
    """For each kind of stage: results with all it is made from, seconds, and its own digest."""
    base = tmp_path_factory.mktemp("unbroken")
    known = {}
    for name in KINDS:
        before = base / f"before_{name}"
        shutil.copytree(base / "results", before) if known else before.mkdir()
        log = base / name
        seconds = server.run(name, base / "results", log)
        folder = Path(json.loads(Path(f"{log}.json").read_text())["folder"])
        known[name] = {"before": before, "entries": len(lines_of(folder)), "seconds": seconds,
                       "steps": log.read_bytes().count(b"s"),
                       **json.loads(Path(f"{log}.json").read_text())}  # fmt: skip
    return known


def lines_of(folder: Path) -> set[bytes]:
    """Return the whole lines of a stage's indexes, each of them an entry with the seconds it took."""
    found = [line for file in folder.glob("*-info.jsonl") for line in file.read_bytes().splitlines(True)]
    return {line for line in found if line.strip() and line.endswith(b"\n")}


def progress(log: Path, folder: Path) -> int:
    """Return the number of finished training steps and stored entries of a run."""
    return (log.stat().st_size if log.exists() else 0) + len(lines_of(folder))


def leftovers(results: Path) -> list[str]:
    """Return files that a run should have cleared away."""
    marks = re.compile(r".*\.part-.*|checkpoint")
    return [str(p) for p in results.rglob("*") if marks.fullmatch(p.name)]


def one_kill(server: Server, name: str, facts: dict, folder: Path, draw: random.Random) -> dict:
    """Kill a stage at a random moment, run it again, and return what came of it.

    Every second moment is a random time within the run, every other one follows a random number of finished
    training steps or stored entries, so that all of a run is struck however busy the machine is.
    """
    results = folder / "results"
    shutil.copytree(facts["before"], results)
    mine = results / Path(facts["folder"]).relative_to(Path(facts["folder"]).parents[2])
    others = {p: p.read_bytes() for p in results.rglob("*-info.jsonl")}
    first, second = folder / "first", folder / "second"
    after = draw.randrange(0, facts["steps"] + facts["entries"]) if draw.random() < 0.5 else 0
    moment = draw.uniform(0.0, 0.02 if after else facts["seconds"])
    pid = server.start(name, results, first)
    end = time.monotonic() + 60
    while after and time.monotonic() < end and progress(first, mine) < after:
        time.sleep(0.004)
    time.sleep(moment)
    killed = True
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        killed = False
    killed &= server.wait() == signal.SIGKILL
    complete = lines_of(mine)
    seconds = server.run(name, results, second)
    steps = sum(f.read_bytes().count(b"s") for f in (first, second) if f.exists())
    again = json.loads(Path(f"{second}.json").read_text())["digest"]
    return {
        "stage": name, "moment": round(moment, 3), "after": after, "killed": killed,
        "complete": len(complete), "same_bytes": again == facts["digest"], "kept": complete <= lines_of(mine),
        "upstream_untouched": all(p.read_bytes() == content for p, content in others.items()),
        "leftovers": leftovers(results), "steps": steps,
        "steps_repeated": steps - facts["steps"], "seconds": round(seconds, 2),
    }  # fmt: skip


def test_a_killed_run_goes_on_as_if_nothing_had_happened(server, unbroken, tmp_path):
    known = unbroken
    draw = random.Random(SEED)
    names = list(known)
    rows = []
    while sum(row["killed"] for row in rows) < KILLS:
        name = names[len(rows) % len(names)]
        folder = tmp_path / str(len(rows))
        folder.mkdir()
        row = one_kill(server, name, known[name], folder, draw)
        shutil.rmtree(folder)
        rows.append(row)
        assert row["same_bytes"], row
        assert row["kept"] and row["upstream_untouched"], row
        assert not row["leftovers"], row
        # a checkpoint is written at the end of each epoch (2 steps) or every second step
        assert row["steps_repeated"] <= 2, row
        assert len(rows) < 3 * KILLS + 6, "most runs ended before they were killed"
    struck = sum(row["killed"] for row in rows)
    keep("kills", {
        "kills": struck, "runs": len(rows), "seed": SEED,
        "stages": {name: sum(r["killed"] for r in rows if r["stage"] == name) for name in names},
        "with_complete_entries": sum(r["killed"] and r["complete"] > 0 for r in rows),
        "steps_repeated": sum(max(0, r["steps_repeated"]) for r in rows),
        "different_bytes": sum(not r["same_bytes"] for r in rows),
        "recomputed": sum(not (r["kept"] and r["upstream_untouched"]) for r in rows),
        "files_left": sum(len(r["leftovers"]) for r in rows),
    })  # fmt: skip


def kinds(base: type) -> set[str]:
    """Return the names of the library's stages."""
    own = "stage" in base.model_fields and base.__module__.startswith("recamlib.")
    return ({base.__name__} if own else set()).union(*(kinds(kind) for kind in base.__subclasses__()))


def test_every_kind_of_stage_is_killed():
    assert kinds(Stage) == set(small.stages())
