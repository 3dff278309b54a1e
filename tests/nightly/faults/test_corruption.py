"""What is stored is damaged in every file it is stored in: named, forgotten, made again to the same bits."""

import functools
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_stages as small

import recamlib as rc
from recamlib.engine import fit as engine
from recamlib.errors import ResultsError
from recamlib.files import read_sealed
from tests.stages.chain import interrupt


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a bit at 0.2": functools.partial(flip, at=0.2), "a bit at 0.9": functools.partial(flip, at=0.9),
    "cut at 0.6": lambda path: os.truncate(path, int(0.6 * path.stat().st_size)),
    "emptied": lambda path: os.truncate(path, 0), "removed": Path.unlink,
}  # fmt: skip


@pytest.mark.parametrize("pattern", ["*-info.jsonl", "data/*.data", "*.yaml", "inflight.db", "*.safetensors"])
@pytest.mark.parametrize("damage", ["cut at 0.6", "emptied", "removed"])
def test_a_damaged_file_of_a_stage_gives_the_same_result(whole, copied, capsys, pattern, damage):
    touched = [f for stage in small.chain().values() for f in stage.folder.glob(pattern) if f.stat().st_size]
    for file in touched:
        DAMAGE[damage](file)
    assert touched
    for name, stage in small.chain().items():
        try:
            assert small.digest(small.run(stage)) == whole[name], f"{name} after {damage} in {pattern}"
        except ResultsError as error:  # settings that are not those of the stage: its folder is to be deleted
            assert pattern == "*.yaml" and f"delete {stage.folder}" in str(error)
            shutil.rmtree(stage.folder)
    assert small.digests() == whole
    small.chain()["model"].load()  # checks the weights
    assert "again" in capsys.readouterr().out or not pattern.endswith(("data", "tensors")), "in silence"
    assert small.digests() == whole and capsys.readouterr().out == ""  # whole from here on


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_pickle_planted_in_a_stage_is_refused_and_never_run(whole, copied, tmp_path, capsys):
    mark, stage = tmp_path / "ran", small.chain()["cams"]
    (stage.folder / "data" / "trap.pkl").write_bytes(pickle.dumps(Trap(mark)))
    np.save(stage.folder / "data" / "trap.npy", np.array([Trap(mark)], dtype=object))
    for kind, file in (("Pickle", "trap.pkl"), ("NumpyArray", "trap.npy")):
        (index,) = (p for p in stage.folder.glob("*-info.jsonl") if p.read_bytes().strip())
        lines = [json.loads(line) for line in index.read_bytes().splitlines() if line.strip()]
        planted = [{"#type": kind, "filename": f"data/{file}", "#key": line["#key"]} for line in lines]
        index.write_text("".join(json.dumps(line) + "\n" for line in planted))
        assert small.digest(small.run(small.chain()["cams"])) == whole["cams"]
        assert "10 of 10 entries are damaged, made again" in capsys.readouterr().out and not mark.exists()


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("pattern", ["progress.json", "step_*.safetensors"])
def test_a_damaged_checkpoint_is_named(whole, results, monkeypatch, capsys, pattern, damage):
    stage = small.chain()["model"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupt(patch, engine, "_step", at=5)
        _ = stage.result
    (file,) = (stage.folder / "checkpoint").glob(pattern)
    DAMAGE[damage](file)
    assert small.digest(small.run(small.chain()["model"])) == whole["model"]
    told = "".join(capsys.readouterr())
    silent = (damage, pattern) == ("removed", "progress.json")
    assert ("is damaged" in told and "training starts again" in told) or silent


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_named(results, damage):
    parameters = {"profile": "smoke", "dataset": "hoofed", "backbone": "resnet_small"}
    rows = {"cam": 48.8, "more": [1, None, float("nan")]}
    path = rc.results.record("02_x", parameters=parameters, images={"train": 1}, rows=rows, claims={})
    assert read_sealed(path)["rows"]["cam"] == 48.8
    latest = path.parent.parent / "latest_smoke.json"
    for file, read in ((path, lambda: read_sealed(path)), (latest, rc.results.load_results)):
        DAMAGE[damage](file)
        if file == path or damage != "removed":
            with pytest.raises(ResultsError, match=f"{file.name} .*(run|again|written)"):
                read()
