"""Disks that are full or read-only, clocks that go back, loaders that die, runs at once; the same bits."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import small_stages as small
import torch
from measured import keep
from safetensors.numpy import load_file

import recamlib as rc
from recamlib.data.views import LabelledViews
from recamlib.engine import fit as engine
from recamlib.engine.fit import TrainingError
from recamlib.errors import ResultsError
from recamlib.stages import maps
from recamlib.stages.infra import Process


def happens(fault: str, what: str) -> None:
    keep("surroundings", {"faults": {fault: what}})


@pytest.fixture
def mounted(tmp_path, monkeypatch):
    """A small disk of its own, with the results on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    monkeypatch.setenv("RECAM_RESULTS", str(folder / "results"))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("free", [0, 40])
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(whole, mounted, free):
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
    happens("full disk", "named; goes on when there is room")


def test_a_read_only_folder_serves_what_is_there_and_names_what_cannot_be_stored(whole, mounted):
    assert small.digests() == whole
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    assert small.digests() == whole
    with pytest.raises(ResultsError, match="Read-only file system"):
        _ = small.classifier(seed=5).result
    with pytest.raises(ResultsError, match="Read-only file system"):
        rc.results.record("x", parameters={}, images={})
    happens("read-only results folder", "what is complete is read; storing is refused by name")


def test_a_place_that_is_no_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "file"))
    with pytest.raises(ResultsError, match="Not a directory|File exists"):
        small.chain()


def test_a_clock_that_goes_back_makes_nothing_stale(whole, copied, monkeypatch):
    day = time.time() + 86_400
    for path in copied.rglob("*"):  # made tomorrow, as it seems
        os.utime(path, (day, day))
    for module, name in ((engine, "_step"), (maps, "extract_scale_maps")):
        monkeypatch.setattr(module, name, lambda *args, **kwargs: pytest.fail("made again"))
    assert small.digests() == whole
    happens("clock set back", "correct result, nothing made again")


def test_a_killed_loader_process_is_named_and_training_goes_on(whole, results, monkeypatch):
    monkeypatch.setenv("RECAM_WORKERS", "1")
    original = LabelledViews.__getitem__

    def item(self, index):
        if torch.utils.data.get_worker_info() is not None and self.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(LabelledViews, "__getitem__", item)
        with pytest.raises(TrainingError, match="loader process died .*RECAM_WORKERS=0"):
            small.digests()
    assert small.digests() == whole
    happens("loader process killed", "named; goes on from the checkpoint to the same bytes")


def test_two_runs_at_once_compute_everything_once(tmp_path):
    results, logs = tmp_path / "results", [tmp_path / "first", tmp_path / "second"]
    for process in [small.start("ExtractCams", results, log) for log in logs]:
        process.join()
    assert len({json.loads(Path(f"{log}.json").read_text())["digest"] for log in logs}) == 1
    indexes = b"".join(file.read_bytes() for file in results.rglob("*ExtractCams*/**/*-info.jsonl"))
    keys = [json.loads(line)["#key"] for line in indexes.splitlines() if line.strip()]
    assert len(keys) == len(set(keys)) == 10
    steps = sum(log.read_bytes().count(b"s") for log in logs)
    assert steps == 3 * 2 + 2 * 2 + 40, "trained more than once"  # 40 of FC1 on untouched features
    happens("two runs at once", "same bytes, computed once")


def test_a_claim_of_a_process_with_the_same_number_is_not_waited_for():
    live = Process(host=os.uname().nodename, pid=os.getpid(), started=0.0)
    assert live.is_alive() is False  # after a restart, another process may have the number
    assert Process(host="elsewhere", pid=1, started=0.0).is_alive() is None


def made(folder, *, threads=1, **environment) -> dict[str, np.ndarray]:
    """Return weights and maps of a chain of stages computed in a folder of its own, by name."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"RECAM_RESULTS": str(folder), **environment}.items():
            patch.setenv(name, value)
        model, cams = small.chain().values()
        found = load_file(model.folder / model.result["weights"]["file"])
        for name, item in cams.run("train"):
            found |= {f"{name}.{i}": np.array(m) for i, m in enumerate(item["scales"])}
    torch.set_num_threads(before)
    return found


def gap(name: str, one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """Return and keep the largest difference, relative to the largest number of each array."""
    assert one.keys() == other.keys()
    found = max(
        float(np.abs(m.astype(float) - other[k]).max() / max(np.abs(m).max(), 1e-30)) for k, m in one.items()
    )
    keep("bits", {"differences": {name: found}, "cores": os.cpu_count()})
    return found


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    return made(tmp_path_factory.mktemp("first"))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than cores
@pytest.mark.parametrize("what, window, environment", [
    ("the same run twice, one thread", 10, {}),
    *((f"{n} loader processes instead of none", 10, {"RECAM_WORKERS": str(n)}) for n in (1, 2)),
    *((f"maps of {n} images at once instead of 10", n, {}) for n in (1, 3)),
])  # fmt: skip
def test_nothing_changes_more_than_a_rounding(first, tmp_path, monkeypatch, what, window, environment):
    monkeypatch.setattr(maps, "WINDOW", window)  # a batch of another size may be summed in another order
    assert gap(what, first, made(tmp_path, **environment)) <= (0 if window == 10 else 1e-6)


def test_another_number_of_threads_changes_little(first, tmp_path):
    two, again = (made(tmp_path / name, threads=2) for name in "ab")
    assert gap("the same run twice, two threads", two, again) == 0
    assert gap("two threads instead of one", first, two) < 1e-3
