"""Runs that are planned before they are read: a centre, one factor moved at a time, several seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recamlib.engine.device import bar
from recamlib.errors import SettingsError, nearest
from recamlib.paths import notebooks_dir
from recamlib.stages import DataSettings, ExtractCams, Reactivate, Score, TrainClassifier

PARTS = ("data", "classifier", "reactivation", "maps")
CENTRE = "centre"
_KEYS = ("why", "centre", "seeds", "limit", "factors")

Changes = Mapping[str, Any]
"""``part.setting`` to value, for example ``{"reactivation.momentum": 0.9}``."""


@dataclass(frozen=True)
class Level:
    """One factor at one value: what it changes in the settings of the centre."""

    factor: str
    name: str
    changes: Changes

    @property
    def title(self) -> str:
        """How the level is called in tables: ``"momentum 0.0001"``."""
        return self.factor if self.factor == CENTRE else f"{self.factor} {self.name}"


@dataclass(frozen=True)
class Plan:
    """A centre, the levels that depart from it one at a time, and the seeds each of them is run with.

    Attributes
    ----------
    centre
        Settings of each part: ``data`` (of `DataSettings`), ``classifier``, ``reactivation`` and ``maps``
        (of `ExtractCams`).
    levels
        The centre itself first.
    seeds
        Of the classifier and its reactivation; differences are paired by them.
    limit
        Size of the random part of ``train`` that is scored, 0 for all.
    """

    name: str
    centre: Mapping[str, Mapping[str, Any]]
    levels: tuple[Level, ...]
    seeds: tuple[int, ...]
    limit: int = 0
    why: str = ""

    def settings(self, level: Level) -> dict[str, dict[str, Any]]:
        """Return the settings of every part at a level."""
        settings = {part: dict(self.centre.get(part, {})) for part in PARTS}
        for key, value in level.changes.items():
            part, _, name = key.partition(".")
            if part not in PARTS or not name:
                raise SettingsError(f"{key!r} in {level.title}: write part.setting, part one of {PARTS}")
            settings[part][name] = value
        return settings

    def stages(self, level: Level, seed: int) -> tuple[ExtractCams, ExtractCams]:
        """Return the maps of the classifier and of its reactivation at a level."""
        settings = self.settings(level)
        base = TrainClassifier(
            dataset=DataSettings(**settings["data"]), seed=seed, **settings["classifier"]
        )  # fmt: skip
        model = Reactivate(base=base, **settings["reactivation"])
        maps = settings["maps"]
        weights = maps.pop("weights", "w*w'") if model.sce_weight else "w"  # the control has no second layer
        maps.pop("weights", None)
        return ExtractCams(model=base, **maps), ExtractCams(model=model, weights=weights, **maps)

    def scores(self, level: Level, seed: int) -> tuple[Score, Score]:
        """Return the scores of both, on the same images; what is missing is computed when they are read."""
        cam, recam = (Score(of=maps, split="train", limit=self.limit) for maps in self.stages(level, seed))
        return cam, recam


def load_plans(
    name: str, *, centre: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], limit: int = 0
) -> dict[str, Plan]:
    """Return the plans of a file ``notebooks/plans/NAME.yml``, on top of a notebook's own settings.

    A plan of the file may hold ``why``, changes to the ``centre``, ``seeds`` and ``limit`` of its own, and
    ``factors``: factor to level to changes.

    Raises
    ------
    SettingsError
        If the file, a key or a setting is unknown; every stage is put together once, so that a plan with a
        mistake fails before it runs.
    """
    folder = notebooks_dir() / "plans"
    path = folder / f"{name}.yml"
    if not path.is_file():
        known = [file.stem for file in sorted(folder.glob("*.yml"))]
        raise SettingsError(f"no plan {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    return parse_plans(read_plans(path), centre=centre, seeds=seeds, limit=limit)


def read_plans(path: Path) -> dict[str, Any]:
    """Return what a file of plans holds, or raise SettingsError if that is no mapping of mappings."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"plans {path.stem} are not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise SettingsError(f"plans {path.stem}: every plan is a mapping")
    return content


def parse_plans(
    content: Mapping[str, Any],
    *,
    centre: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    limit: int = 0,
) -> dict[str, Plan]:
    """Return plans from plain values; see `load_plans`.

    Examples
    --------
    >>> content = {"momentum": {"factors": {"momentum": {"0.9": {"reactivation.momentum": 0.9}}}}}
    >>> plan = parse_plans(content, centre={}, seeds=[0])["momentum"]
    >>> [level.title for level in plan.levels], plan.stages(plan.levels[1], 0)[1].model.momentum
    (['centre', 'momentum 0.9'], 0.9)
    """
    plans = {}
    for name, entry in content.items():
        for key in entry:
            if key not in _KEYS:
                raise SettingsError(f"plan {name} has no key {key!r}{nearest(key, _KEYS)}: use {_KEYS}")
        given = Level(CENTRE, "", entry.get("centre") or {})
        own = Plan(name, centre, (given,), ()).settings(given)
        levels = [Level(CENTRE, "", {})]
        for factor, values in (entry.get("factors") or {}).items():
            levels += [Level(factor, str(value), changes) for value, changes in values.items()]
        plan = Plan(
            name, own, tuple(levels), tuple(entry.get("seeds") or seeds), entry.get("limit", limit),
            entry.get("why", ""),
        )  # fmt: skip
        for level in plan.levels:
            plan.stages(level, plan.seeds[0])
        plans[name] = plan
    return plans


def run(plan: Plan) -> list[dict[str, Any]]:
    """Run a plan, or read back what of it has run, and return one response for every level and seed.

    Returns
    -------
    Per level and seed ``cam`` and ``recam`` (mIoU, percent, cross-fitted threshold), and under ``cross`` and
    ``fixed`` (the published threshold of either) ReCAM minus CAM: ``miou``, and the shares of the scored
    pixels that are wrongly given to a class, ``false_positives``, or kept from theirs, ``false_negatives``.
    ``counts`` holds those per image, ``(N, K + 1, 3)``, of ReCAM and CAM.
    """
    responses = []
    for level in bar(plan.levels, desc=plan.name):
        for seed in plan.seeds:
            cam, recam = plan.scores(level, seed)
            response: dict[str, Any] = {"level": level.title, "factor": level.factor, "seed": seed}
            response |= {"cam": cam.miou, "recam": recam.miou}
            counts = {}
            for at in ("cross", "fixed"):
                pair = [np.asarray(score.result[at], dtype=np.int64) for score in (recam, cam)]
                after, before = (wrong_pixels(c) for c in pair)
                values = [getattr(score, "miou" if at == "cross" else "fixed") for score in (recam, cam)]
                response[at] = {"miou": values[0] - values[1]}
                response[at] |= {key: after[key] - before[key] for key in after}
                counts[at] = pair
            responses.append(response | {"counts": counts})
    return responses


def wrong_pixels(counts: np.ndarray) -> dict[str, float]:
    """Return the shares, percent, of scored pixels wrongly given to a class and wrongly kept from theirs.

    Examples
    --------
    Ten pixels: the class has three, is given four, two of them rightly.

    >>> wrong_pixels(np.array([[[5, 6, 7], [2, 4, 3]]]))
    {'false_positives': 20.0, 'false_negatives': 10.0}
    """
    both, predicted, true = np.moveaxis(counts.sum(0), -1, 0)  # (K + 1,) each
    scale = 100 / true.sum()
    return {
        "false_positives": float(scale * (predicted - both)[1:].sum()),
        "false_negatives": float(scale * (true - both)[1:].sum()),
    }
