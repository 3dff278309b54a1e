"""Kill -9 at random moments in every kind of stage; the run that follows must be as if nothing had happened.

``RECAM_KILLS`` is the number of kills: from 14 on they go round every kind of stage, fewer go round four.
``RECAM_KEEP_FAULTS=1`` writes what was found to ``book/measured/faults.json``.
"""

import os
import random
import shutil
import time
from pathlib import Path

import pytest
import small_stages as small
from measured import keep

from recamlib.stages.base import Stage
from tests.stages.chain import kinds

KILLS, SEED = (int(os.environ.get(f"RECAM_{name}", most)) for name, most in (("KILLS", 4), ("KILL_SEED", 0)))
FEW = ("TrainClassifier", "Reactivate", "ExtractCams", "PseudoMasks")
KINDS = tuple(small.stages()) if len(small.stages()) <= KILLS else FEW


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """For each kind of stage: results with all it is made from, seconds, and its own digest."""
    base, known = tmp_path_factory.mktemp("unbroken"), {}
    for name in KINDS:
        before = base / f"before_{name}"
        shutil.copytree(base / "results", before) if known else before.mkdir()
        known[name] = {"before": before, **small.finished(name, base / "results", base / name)}
        known[name]["entries"] = len(lines_of(Path(known[name]["folder"])))
    return known


def lines_of(folder: Path) -> set[bytes]:
    """Return the whole lines of a stage's indexes, each of them an entry with the seconds it took."""
    found = [line for file in folder.glob("*-info.jsonl") for line in file.read_bytes().splitlines(True)]
    return {line for line in found if line.strip() and line.endswith(b"\n")}


def one_kill(name: str, facts: dict, folder: Path, draw: random.Random) -> dict:
    """Kill a stage at a random moment, run it again, and return what came of it.

    Every second moment is a random time within the run, every other one follows a random number of finished
    training steps or stored entries, so that all of a run is struck however busy the machine is.
    """
    results, first = folder / "results", folder / "first"
    shutil.copytree(facts["before"], results)
    mine = results / Path(facts["folder"]).relative_to(Path(facts["folder"]).parents[2])
    others = {p: p.read_bytes() for p in results.rglob("*-info.jsonl")}
    after = draw.randrange(0, facts["steps"] + facts["entries"]) if draw.random() < 0.5 else 0
    moment = draw.uniform(0.0, 0.02 if after else facts["seconds"])

    def steps() -> int:
        return first.stat().st_size if first.exists() else 0

    process, end = small.start(name, results, first), time.monotonic() + 60
    while after and time.monotonic() < end and steps() + len(lines_of(mine)) < after:
        time.sleep(0.004)
    time.sleep(moment)
    process.kill()
    process.join()
    complete = lines_of(mine)
    again = small.finished(name, results, folder / "second")
    return {
        "stage": name, "moment": round(moment, 3), "after": after, "killed": process.exitcode == -9,
        "complete": len(complete), "same_bytes": again["digest"] == facts["digest"],
        "kept": complete <= lines_of(mine), "steps_repeated": again["steps"] + steps() - facts["steps"],
        "upstream_untouched": all(p.read_bytes() == content for p, content in others.items()),
        "leftovers": [str(p) for p in results.rglob("*") if ".part-" in p.name or p.name == "checkpoint"],
    }  # fmt: skip


def test_a_killed_run_goes_on_as_if_nothing_had_happened(unbroken, tmp_path):
    draw, names, rows = random.Random(SEED), list(unbroken), []
    while sum(row["killed"] for row in rows) < KILLS:
        name, folder = names[len(rows) % len(names)], tmp_path / str(len(rows))
        row = one_kill(name, unbroken[name], folder, draw)
        shutil.rmtree(folder)
        rows.append(row)
        assert row["same_bytes"] and row["kept"] and row["upstream_untouched"] and not row["leftovers"], row
        # a checkpoint is written at the end of each epoch (2 steps) or every second step
        assert row["steps_repeated"] <= 2, row
        assert len(rows) < 3 * KILLS + 6, "most runs ended before they were killed"
    struck = [row for row in rows if row["killed"]]
    keep("kills", {
        "kills": len(struck), "runs": len(rows), "seed": SEED,
        "stages": {name: sum(row["stage"] == name for row in struck) for name in names},
        "with_complete_entries": sum(row["complete"] > 0 for row in struck),
        "steps_repeated": sum(max(0, row["steps_repeated"]) for row in rows),
        "different_bytes": 0, "recomputed": 0, "files_left": 0,
    })  # fmt: skip


def test_every_kind_of_stage_is_killed():
    assert {k.__name__ for k in kinds(Stage) if k.__module__.startswith("recamlib.")} == set(small.stages())
