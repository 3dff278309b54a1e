"""A disk that is full or read-only, clocks that go back, loaders that die, runs beside each other."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import small_stages as small
import torch
from measured import keep

import recamlib as rc
from recamlib.data.views import LabelledViews
from recamlib.engine import fit as engine
from recamlib.engine.fit import TrainingError
from recamlib.errors import ResultsError
from recamlib.stages import maps
from recamlib.stages.infra import Process


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", str(tmp_path_factory.mktemp("whole")))
        return small.digests()


@pytest.fixture
def mounted(tmp_path):
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("free", [0, 40])
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(whole, mounted, monkeypatch, free):
    monkeypatch.setenv("RECAM_RESULTS", str(mounted / "results"))
    filler = mounted / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(filler, max(0, filler.stat().st_size - free * 1024))
    with pytest.raises(ResultsError, match="No space left.*RECAM_RESULTS"):
        small.digests()
    assert not list(mounted.rglob("*.part-*"))
    filler.unlink()
    assert small.digests() == whole
    keep("surroundings", {"faults": {"full disk": "named; goes on when there is room"}})


def test_a_read_only_folder_serves_what_is_there_and_names_what_cannot_be_stored(whole, mounted, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(mounted / "results"))
    assert small.digests() == whole
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    assert small.digests() == whole
    with pytest.raises(ResultsError, match="Read-only file system"):
        _ = rc.TrainClassifier(**small.CLASSIFIER | {"seed": 5}).result
    with pytest.raises(ResultsError, match="Read-only file system"):
        rc.results.record("x", parameters={}, images={})
    keep(
        "surroundings",
        {"faults": {"read-only results folder": "what is complete is read; storing is refused by name"}},
    )


def test_a_place_that_is_no_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "file"))
    with pytest.raises(ResultsError, match="Not a directory|File exists"):
        small.chain()


def test_a_clock_that_goes_back_makes_nothing_stale(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    assert small.digests() == whole
    day = time.time() + 86_400
    for path in (tmp_path / "results").rglob("*"):  # made tomorrow, as it seems
        os.utime(path, (day, day))
    monkeypatch.setattr(engine, "_step", lambda *args, **kwargs: pytest.fail("trained again"))
    monkeypatch.setattr(maps, "extract_scale_maps", lambda *args, **kwargs: pytest.fail("extracted again"))
    assert small.digests() == whole
    keep("surroundings", {"faults": {"clock set back": "correct result, nothing made again"}})


def test_a_killed_loader_process_is_named_and_training_goes_on(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("RECAM_WORKERS", "1")
    original = LabelledViews.__getitem__

    def item(self, index):
        if torch.utils.data.get_worker_info() is not None and self.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelledViews, "__getitem__", item)
        with pytest.raises(TrainingError, match="loader process died .*RECAM_WORKERS=0"):
            small.digests()
    assert small.digests() == whole
    keep(
        "surroundings",
        {"faults": {"loader process killed": "named; goes on from the checkpoint to the same bytes"}},
    )


def test_two_runs_at_once_compute_everything_once(tmp_path):
    results, logs = tmp_path / "results", [tmp_path / "first", tmp_path / "second"]
    for process in [small.start("ExtractCams", results, log) for log in logs]:
        process.join()
    assert len({json.loads(Path(f"{log}.json").read_text())["digest"] for log in logs}) == 1
    keys = [
        json.loads(line)["#key"] for file in results.rglob("*ExtractCams*/**/*-info.jsonl")
        for line in file.read_bytes().splitlines() if line.strip()
    ]  # fmt: skip
    assert len(keys) == len(set(keys)) == 10
    steps = sum(log.read_bytes().count(b"s") for log in logs)
    assert steps == 3 * 2 + 2 * 2 + 40, "trained more than once"  # 40 of FC1 on untouched features
    keep("surroundings", {"faults": {"two runs at once": "same bytes, computed once"}})


def test_a_claim_of_a_process_with_the_same_number_is_not_waited_for():
    live = Process(host=os.uname().nodename, pid=os.getpid(), started=0.0)
    assert live.is_alive() is False  # after a restart, another process may have the number
    assert Process(host="elsewhere", pid=1, started=0.0).is_alive() is None
