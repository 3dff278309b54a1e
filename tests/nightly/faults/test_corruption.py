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
from recamlib.errors import ResultsError, WeightsError
from recamlib.files import read_sealed, write_sealed
from recamlib.models.weights import read_weights
from recamlib.stages import base


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Results of a classifier and its maps, and the digests of both."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", str(folder))
        made = chain()
        return folder, {name: small.digest(small.run(stage)) for name, stage in made.items()}


@pytest.fixture
def results(whole, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "results")
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path / "results"))
    return tmp_path / "results"


def chain():
    classifier = rc.TrainClassifier(**small.CLASSIFIER)
    return {"model": classifier, "cams": rc.ExtractCams(model=classifier, scales=(1.0, 0.5))}


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


@pytest.mark.parametrize(
    "pattern", ["*-info.jsonl", "data/*.data", "*.yaml", "inflight.db", "*.safetensors"]
)
@pytest.mark.parametrize("damage", ["cut at 0.6", "emptied", "removed"])
def test_a_damaged_file_of_a_stage_gives_the_same_result(whole, results, capsys, pattern, damage):
    touched = []
    for stage in chain().values():
        for file in stage.folder.glob(pattern):
            if file.stat().st_size:
                DAMAGE[damage](file)
                touched.append(file)
    assert touched
    for name, stage in chain().items():
        try:
            assert small.digest(small.run(stage)) == whole[1][name], f"{name} after {damage} in {pattern}"
        except ResultsError as error:  # settings that are not those of the stage: its folder is to be deleted
            assert pattern == "*.yaml" and f"delete {stage.folder}" in str(error)
            shutil.rmtree(stage.folder)
    for name, stage in chain().items():
        assert small.digest(small.run(stage)) == whole[1][name]
        if list(stage.folder.glob("*.safetensors")):
            base.check_weights(stage.folder, stage.result["weights"])
    told = capsys.readouterr().out
    if pattern in ("data/*.data", "*.safetensors"):
        assert "again" in told, "it was mended in silence"
    for name, stage in chain().items():  # whole from here on
        assert small.digest(small.run(stage)) == whole[1][name]
    assert capsys.readouterr().out == ""


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_pickle_planted_in_a_stage_is_refused_and_never_run(whole, results, tmp_path, capsys):
    mark, stage = tmp_path / "ran", chain()["cams"]
    (stage.folder / "data").mkdir(exist_ok=True)
    (stage.folder / "data" / "trap.pkl").write_bytes(pickle.dumps(Trap(mark)))
    np.save(stage.folder / "data" / "trap.npy", np.array([Trap(mark)], dtype=object))
    (index,) = stage.folder.glob("*-info.jsonl")
    for kind, file in (("Pickle", "trap.pkl"), ("NumpyArray", "trap.npy")):
        info = {"#type": kind, "filename": f"data/{file}"}
        lines = [json.loads(line) for line in index.read_bytes().splitlines() if line.strip()]
        index.write_text("".join(json.dumps({**info, "#key": line["#key"]}) + "\n" for line in lines))
        assert small.digest(small.run(chain()["cams"])) == whole[1]["cams"]
        assert "10 of 10 entries are damaged, made again" in capsys.readouterr().out
        assert not mark.exists()
        (index,) = (p for p in stage.folder.glob("*-info.jsonl") if p.read_bytes().strip())


def test_an_index_line_cannot_make_objects_of_bytes(whole, results):
    stage = chain()["cams"]
    (index,) = stage.folder.glob("*-info.jsonl")
    line = json.loads(index.read_bytes().splitlines()[0])
    line["content"]["scales"][0]["dtype"] = "object"
    index.write_text(json.dumps(line) + "\n")
    with pytest.raises(TypeError):
        stage.infra.cache_dict[line["#key"]]


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_pickle_planted_as_weights_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"x": Trap(tmp_path / "ran")}, protocol=2))
    with pytest.raises(WeightsError, match="cannot read weights"):
        read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("pattern", ["progress.json", "step_*.safetensors"])
def test_a_damaged_checkpoint_is_named(tmp_path, monkeypatch, capsys, pattern, damage):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    original, stage = engine._step, rc.TrainClassifier(**small.CLASSIFIER)
    calls = []

    def stop(*args, **kwargs):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            _ = stage.result
    (file,) = (stage.folder / "checkpoint").glob(pattern)
    DAMAGE[damage](file)
    assert small.digest({"model": rc.TrainClassifier(**small.CLASSIFIER).result}) == reference()
    said = capsys.readouterr()
    if not (damage == "removed" and pattern == "progress.json"):
        assert "is damaged" in said.out + said.err and "training starts again" in said.out + said.err


@functools.cache
def reference() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECAM_RESULTS", os.environ["RECAM_RESULTS"] + "_reference")
        return small.digest({"model": rc.TrainClassifier(**small.CLASSIFIER).result})


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_named(tmp_path, damage):
    path = tmp_path / "result.json"
    write_sealed(path, {"rows": {"cam": 48.8}, "more": [1, None, float("nan")]})
    assert read_sealed(path)["rows"] == {"cam": 48.8}
    DAMAGE[damage](path)
    with pytest.raises(ResultsError, match="result.json .*(run|again)"):
        read_sealed(path)


def test_the_scoreboard_refuses_a_damaged_result(tmp_path, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    parameters = {"profile": "smoke", "dataset": "hoofed", "backbone": "resnet_small"}
    images = {"train": 1, "scored": 1}
    path = rc.results.record("02_x", parameters=parameters, images=images, rows={}, claims={})
    latest = path.parent.parent / "latest_smoke.json"
    latest.write_text(latest.read_text().replace('"scored": 1', '"scored": 7'))
    with pytest.raises(ResultsError, match="latest_smoke.json is not as it was written"):
        rc.results.load_results()
