"""Faults planted one at a time: does the smoke run of a notebook notice, by what it shows and stores?

A notebook is played in this process without its figures, on a results folder of its own that holds the stages
which the fault cannot touch. What it prints and stores goes through the comparison that ``make test`` makes.
``RECAM_SOUND`` names a results folder of sound runs to start from; ``RECAM_KEEP_FAULTS=1`` keeps what moved
with the book.
"""

import contextlib
import io
import json
import os
import pkgutil
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import nbformat
import pytest
import torch

import recamlib
from recamlib.book.parameters import find_notebook
from recamlib.stages.classify import Reactivate
from recamlib.stages.maps import MapStage
from tests.nightly.faults.measured import keep
from tests.replay import equal, moved, numbers, stored

pytestmark = pytest.mark.timeout(3600)

FEWER = {  # parameters that leave out what no fault needs
    "02": {"sweep": []},
    "03": {"methods": ["none", "irn", "advcam"]},
    "06": {"backbones": {}, "changes": {"maps detached": {"Reactivate": {"detach_maps": True}}}},
}
MODELS = ("Features", "TrainClassifier", "Reactivate")
BOUNDARIES = ("ExtractCams", "ConfidentLabels", "TrainBoundary", "BoundaryMaps")


def planted(name: str, replace: Callable) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what puts ``replace(function)`` for a function of the library into every module that has it."""
    module, _, attribute = name.rpartition(".")

    def plant(patch: pytest.MonkeyPatch) -> None:
        for found in pkgutil.walk_packages(recamlib.__path__, "recamlib."):
            import_module(found.name)
        sound = getattr(import_module(f"recamlib.{module}"), attribute)
        for found in [m for name, m in sys.modules.items() if name.startswith("recamlib.")]:
            if vars(found).get(attribute) is sound:
                patch.setattr(found, attribute, replace(sound))

    return plant


def cut_higher(patch: pytest.MonkeyPatch) -> None:
    """Move the fixed background threshold of the embedded scenes by 0.1."""
    patch.setattr(MapStage, "embedded", MapStage.embedded + 0.1)


def without_rate(run: Callable) -> Callable:
    """Return a training in which FC2 stays as it started."""

    def training(stage: Any, model: Any, views: Any, step: Any, groups: list, **more: Any) -> Any:
        if isinstance(stage, Reactivate):
            groups[1]["lr"] = 0.0
        return run(stage, model, views, step, groups, **more)

    return training


def other_order(open_window: Callable) -> Callable:
    """Return an opening of images whose classes are counted from the last one."""

    def opened(data: Any, requests: Any) -> Any:
        present, pictures = open_window(data, requests)
        return [len(data.images("train").space) - 1 - k for k in present], pictures

    return opened


class Fault(NamedTuple):
    """What goes wrong, the notebook that should notice, and the stages that are as in a sound run."""

    what: str
    notebook: str
    plant: Callable[[pytest.MonkeyPatch], None]
    untouched: tuple[str, ...] = ()
    fewer: Mapping[str, Any] = MappingProxyType({})


FAULTS = [
    Fault("the maps of Eq. 5 are detached", "06", planted(
        "method.maps.class_activation_maps", lambda f: lambda *a, **k: f(*a, **k).detach()), MODELS[:2]),
    Fault("maps of the mirror image are not turned back", "02", planted(
        "engine.extract.pair_maps",
        lambda f: lambda pair, *a, **k: f(torch.stack([pair[0], pair[1].flip(2)]), *a, **k)), MODELS),
    Fault("w is taken for w'", "02", planted(
        "method.maps.combine_weights",
        lambda f: lambda fc1, fc2, *a, **k: f(fc1, fc2 if fc2 is None else fc1, *a, **k)), MODELS),
    Fault("BatchNorm stays in training mode", "02", planted(
        "models.base.freeze_batch_norm", lambda f: lambda module: module), (), {"seeds": [0]}),
    Fault("the fixed threshold is 0.1 higher", "02", cut_higher, (*MODELS, "ExtractCams")),
    Fault("classes are in another order", "02", planted("stages.maps.open_window", other_order), MODELS),
    Fault("the walk does not see the boundary", "03", planted(
        "method.walk._transitions", lambda f: lambda boundary, *a: f(0 * boundary, *a)),
        (*MODELS, *BOUNDARIES, "AdvCams")),
    Fault("AdvCAM steps down instead of up", "03", planted(
        "method.advcam.advcam_step", lambda f: lambda images, up, *a, **k: f(images, -up, *a, **k)),
        (*MODELS, *BOUNDARIES, "Walk")),
    Fault("FC2 has a rate of 0", "02", planted("stages.classify._train", without_rate), MODELS[:2],
          {"seeds": [0]}),
    Fault("scales are swapped, 2 for 0.5", "06", planted(
        "data.views.rescale", lambda f: lambda image, scale: f(image, 1 / scale)), MODELS),
]  # fmt: skip


def play(number: str, fewer: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Run a notebook's cells here, without figures; return what is not as stored: what it was, what it is."""
    notebook, fewer = find_notebook(number), {**FEWER[number], **fewer}
    scope: dict[str, Any] = {}
    differs: dict[str, tuple[Any, Any]] = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type != "code" or "hide-input" in tags:
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(cell.source, scope)
        if "parameters" in tags:
            scope |= fewer
        shown = "".join(out.text for out in cell.outputs if out.get("name") == "stdout").splitlines()
        if "nbval-ignore-output" not in tags and not any(re.search(rf"\b{n}\b", cell.source) for n in fewer):
            pairs = zip(shown, printed.getvalue().splitlines(), strict=True)
            differs |= dict([("printed line", pair) for pair in pairs if pair[0] != pair[1]][:1])
    found = json.loads(scope["result"].read_text())["rows"]
    wanted = json.loads(stored(notebook).read_text())["rows"]
    rows = {name: numbers(row) for name, row in found.items() if name in wanted}
    seeds = len(scope["seeds"])
    then, now = equal({name: {"per_seed": wanted[name]["per_seed"][:seeds]} for name in rows}), equal(rows)
    if new := [names for names in now if names not in then]:
        differs["two rows"] = ("differ", f"{new[0][-2]} = {new[0][-1]}")
    elif then != now:
        differs["two rows"] = ("are equal", "differ")
    return differs | moved(rows, wanted)


def telling(differs: Mapping[str, tuple[Any, Any]]) -> dict[str, Any]:
    """Return what says most: a printed line, rows that became equal, or the number that moved most."""
    first = next((name for name in ("printed line", "two rows") if name in differs), None)
    name = first or max(differs, key=lambda name: abs(differs[name][1] - differs[name][0]))
    then, now = differs[name]
    return {"number": name, "stored": then, "found": now, "differences": len(differs)}


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return Path(os.environ.get("RECAM_SOUND") or tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("number", sorted(FEWER))
def test_a_sound_run_gives_what_is_stored(number, sound, monkeypatch):
    monkeypatch.setenv("RECAM_RESULTS", str(sound))
    assert play(number, {}) == {}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_planted_fault_is_noticed(fault, sound, tmp_path, monkeypatch):
    for folder in (sound / "stages").glob("*"):
        if folder.name.split("-")[0] in fault.untouched:
            shutil.copytree(folder, tmp_path / "stages" / folder.name)
    monkeypatch.setenv("RECAM_RESULTS", str(tmp_path))
    fault.plant(monkeypatch)
    differs = play(fault.notebook, fault.fewer)
    assert differs
    keep("planted", {fault.what: {"notebook": fault.notebook, **telling(differs)}})
