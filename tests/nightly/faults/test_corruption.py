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
from recamlib.stages import base


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", str(folder))
        return folder, small.digests()


@pytest.fixture
def results(whole, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "results")
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[min(int(at * len(content)), len(content) - 1)] ^= 1
    path.write_bytes(content)


def cut(path: Path, at: float) -> None:
    os.truncate(path, int(at * path.stat().st_size))


DAMAGE = {
    **{f"a bit at {at}": functools.partial(flip, at=at) for at in (0.2, 0.9)},
    "cut at 0.6": functools.partial(cut, at=0.6), "emptied": functools.partial(cut, at=0.0),
    "removed": Path.unlink,
}  # fmt: skip


@pytest.mark.parametrize("pattern", ["*-info.jsonl", "data/*.data", "*.yaml", "inflight.db", "*.safetensors"])
@pytest.mark.parametrize("damage", ["cut at 0.6", "emptied", "removed"])
def test_a_damaged_file_of_a_stage_gives_the_same_result(whole, results, capsys, pattern, damage):
    files = [file for stage in small.chain().values() for file in stage.folder.glob(pattern)]
    touched = [file for file in files if file.stat().st_size]
    for file in touched:
        DAMAGE[damage](file)
    assert touched
    for name, stage in small.chain().items():
        try:
            assert small.digest(small.run(stage)) == whole[1][name], f"{name} after {damage} in {pattern}"
        except ResultsError as error:  # settings that are not those of the stage: its folder is to be deleted
            assert pattern == "*.yaml" and f"delete {stage.folder}" in str(error)
            shutil.rmtree(stage.folder)
    assert small.digests() == whole[1]
    model = small.chain()["model"]
    base.check_weights(model.folder, model.result["weights"])
    told = capsys.readouterr().out
    if pattern in ("data/*.data", "*.safetensors"):
        assert "again" in told, "it was mended in silence"
    assert small.digests() == whole[1] and capsys.readouterr().out == ""  # whole from here on


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_pickle_planted_in_a_stage_is_refused_and_never_run(whole, results, tmp_path, capsys):
    mark, stage = tmp_path / "ran", small.chain()["cams"]
    (stage.folder / "data").mkdir(exist_ok=True)
    (stage.folder / "data" / "trap.pkl").write_bytes(pickle.dumps(Trap(mark)))
    np.save(stage.folder / "data" / "trap.npy", np.array([Trap(mark)], dtype=object))
    (index,) = stage.folder.glob("*-info.jsonl")
    for kind, file in (("Pickle", "trap.pkl"), ("NumpyArray", "trap.npy")):
        info = {"#type": kind, "filename": f"data/{file}"}
        lines = [json.loads(line) for line in index.read_bytes().splitlines() if line.strip()]
        index.write_text("".join(json.dumps({**info, "#key": line["#key"]}) + "\n" for line in lines))
        assert small.digest(small.run(small.chain()["cams"])) == whole[1]["cams"]
        assert "10 of 10 entries are damaged, made again" in capsys.readouterr().out and not mark.exists()
        (index,) = (p for p in stage.folder.glob("*-info.jsonl") if p.read_bytes().strip())


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("pattern", ["progress.json", "step_*.safetensors"])
def test_a_damaged_checkpoint_is_named(whole, tmp_path, monkeypatch, capsys, pattern, damage):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    original, stage, calls = engine._step, small.chain()["model"], []

    def stop(*args, **kwargs):
        calls.append(1)
        if len(calls) > 4:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            _ = stage.result
    (file,) = (stage.folder / "checkpoint").glob(pattern)
    DAMAGE[damage](file)
    assert small.digest(small.run(small.chain()["model"])) == whole[1]["model"]
    said = "".join(capsys.readouterr())
    assert ("is damaged" in said and "training starts again" in said) or (damage, pattern) == (
        "removed",
        "progress.json",
    )


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_named(tmp_path, monkeypatch, damage):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    parameters = {"profile": "smoke", "dataset": "hoofed", "backbone": "resnet_small"}
    rows = {"cam": 48.8, "more": [1, None, float("nan")]}
    path = rc.results.record("02_x", parameters=parameters, images={"train": 1}, rows=rows, claims={})
    assert read_sealed(path)["rows"]["cam"] == 48.8
    for file, read in ((path, lambda: read_sealed(path)),
                       (path.parent.parent / "latest_smoke.json", rc.results.load_results)):  # fmt: skip
        DAMAGE[damage](file)
        if file == path or damage != "removed":
            with pytest.raises(ResultsError, match=f"{file.name} .*(run|again|written)"):
                read()
