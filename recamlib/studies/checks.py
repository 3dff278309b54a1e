"""Which values parameters of notebooks and settings of stages may have."""

import functools
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)  # fmt: skip

from recamlib import stages
from recamlib.errors import SettingsError, nearest
from recamlib.report.cells import KINDS, METHODS
from recamlib.stages.base import Settings
from recamlib.studies.table3 import RECIPES

# Classes whose fields ``settings`` may set, and the fields that a table gives itself.
_GIVEN = {
    "DataSettings": ("name", "classes", "single_label", "limit", "train_count", "val_count", "fingerprint"),
    "TrainClassifier": ("backbone", "weights", "loss", "probe"),
    "Reactivate": (), "ExtractCams": ("weights", "reading"), "AdvCams": ("weights", "scales"),
    "TrainBoundary": ("power",), "Walk": ("power",), "SaliencyMerge": (), "PseudoMasks": (),
    "TrainSegmenter": ("arch",), "Score": (), "SaliencyScore": ("theta",), "SegmentationScore": (),
}  # fmt: skip
_NEVER = ("seed", "split", "stage", "infra")
_OWN = {"sce_weight": ("Reactivate", "sce_weight")}  # parameters that are a setting where a table has them
_Positive = Annotated[float, Field(gt=0)]
_CLOSER = {"scales": Annotated[tuple[_Positive, ...], Field(min_length=1)]}  # than the stages' own annotation


def merged(first: Any, second: Any) -> Any:
    """Return two nested mappings as one; the second wins, and so does whatever is no mapping.

    Examples
    --------
    >>> merged({"Reactivate": {"lr": 0.1, "epochs": 4}}, {"Reactivate": {"lr": 0.2}})
    {'Reactivate': {'lr': 0.2, 'epochs': 4}}
    """
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return second
    return {**first, **{key: merged(first.get(key), value) for key, value in second.items()}}


def checked(**parameters: Any) -> dict[str, Any]:
    """Return the parameters of a notebook in their types.

    Raises
    ------
    SettingsError
        Naming the parameter or setting whose value does not fit, what fits, and what came.

    Examples
    --------
    >>> checked(seeds=[0, 1], settings={"Reactivate": {"lr": 1}})
    {'seeds': [0, 1], 'settings': {'Reactivate': {'lr': 1.0}}}
    """
    return {name: check(name, value, own=parameters) for name, value in parameters.items()}


def check(
    name: str, value: Any, *, annotation: str = "", stages: Iterable[str] = _GIVEN, own: Collection[str] = ()
) -> Any:
    """Return the value of one parameter in its type, lists and mappings as in JSON.

    Parameters
    ----------
    name, value
        Text is read as YAML where it does not fit as it stands.
    annotation
        Type of a parameter that has no kind of its own here, for example ``"list[float]"``.
    stages
        Stages that ``settings`` may name.
    own
        Parameters of the notebook: what one of them sets is no setting.

    Raises
    ------
    SettingsError
        As `checked`.
    """
    if name == "settings":
        return _settings(_fitting(name, dict[str, dict[str, Any]], value), tuple(stages), own)
    if name == "networks":
        return _by_name(name, value, settable()["TrainSegmenter"])
    if name == "backbones":
        return _by_name(name, value, settable()["TrainClassifier"] | {"weights": str})
    if name == "changes":
        changes = _fitting(name, dict[str, dict[str, dict[str, Any]]], value)
        return {title: _settings(change, tuple(stages), own) for title, change in changes.items()}
    kind = _kinds().get(name) or _PLAIN.get(annotation)
    if kind is None:
        raise SettingsError(f"{name} cannot be of type {annotation}: use one of {', '.join(_PLAIN)}")
    return _fitting(name, kind, value)


@functools.cache
def settable() -> dict[str, dict[str, Any]]:
    """Return the fields that ``settings`` may set, with what they may be: stage to field to type."""
    return {
        name: {
            field: _CLOSER.get(field) or Annotated[info.annotation, info]
            for field, info in getattr(stages, name).model_fields.items()
            if field not in (*_NEVER, *given) and not _is_upstream(info.annotation)
        }
        for name, given in _GIVEN.items()
    }


def owned(parameters: Collection[str]) -> set[tuple[str, str]]:
    """Return the stages and fields that parameters of a notebook set."""
    return {place for name, place in _OWN.items() if name in parameters}


def _is_upstream(annotation: Any) -> bool:
    """Return whether a field holds another stage, or other settings."""
    kinds = (annotation, *getattr(annotation, "__args__", ()))
    return any(isinstance(kind, type) and issubclass(kind, Settings) for kind in kinds)


def _settings(value: Mapping[str, Any], known: Collection[str], own: Collection[str]) -> dict[str, Any]:
    """Return settings in their types; unknown names get the nearest."""
    for stage in value:
        if stage not in known:
            hint = nearest(stage, known) or f"; there are {', '.join(known)}"
            raise SettingsError(f"no settings of {stage!r} here{hint}")
        for parameter, (owner, field) in _OWN.items():
            if parameter in own and owner == stage and field in value[stage]:
                raise SettingsError(f"{stage}.{field} is a parameter here: set {parameter}")
    return {stage: _block(stage, block, settable()[stage]) for stage, block in value.items()}


def _block(where: str, block: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    for field in block:
        if field not in fields:
            hint = nearest(field, fields) or f"; it has {', '.join(fields)}"
            raise SettingsError(f"{where} has no setting {field!r}{hint}")
    return {field: _fitting(f"{where}.{field}", fields[field], value) for field, value in block.items()}


def _by_name(name: str, value: Any, fields: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return networks by name with settings of their own; names alone have none."""
    value = _fitting(name, dict[str, dict[str, Any]] | list[str], value)
    if isinstance(value, list):
        value = {key: {} for key in _fitting(name, _several(str), value)}
    if name == "networks":
        _fitting(name, _kinds()["networks"], list(value))
    return {key: _block(f"{name}.{key}", block, fields) for key, block in value.items()}


def _fitting(where: str, kind: Any, value: Any) -> Any:
    """Return a value as a type has it, as in JSON; text that does not fit is read as YAML."""
    adapter = TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError as error:
        first = error.errors()[0]
    if isinstance(value, str):
        try:
            spelt = yaml.safe_load(value)
        except yaml.YAMLError:
            spelt = value
        if not isinstance(spelt, str):
            return _fitting(where, kind, spelt)
    item = "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
    problem = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    raise SettingsError(f"{where}{item}: {problem}, not {first['input']!r}") from None


def _several(kind: Any, *, at_least: int = 1) -> Any:
    return Annotated[list[kind], Field(min_length=at_least), AfterValidator(_distinct)]


def _distinct(values: list) -> list:
    if len({str(value) for value in values}) < len(values):
        raise ValueError("every item may come once")
    return values


_PLAIN = {
    "str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict,
    "list[str]": list[str], "list[int]": list[int], "list[float]": list[float],
}  # fmt: skip


@functools.cache
def _kinds() -> dict[str, Any]:
    """Return what the notebooks' parameters may be, by name: the stages' own fields wherever there is one."""
    def field(stage: type[Settings], name: str) -> Any:
        return Annotated[stage.model_fields[name].annotation, stage.model_fields[name]]

    weight = Annotated[field(stages.Reactivate, "sce_weight"), Field(gt=0)]
    name = Annotated[str, StringConstraints(min_length=1)]
    return {
        "profile": Annotated[str, StringConstraints(pattern=r"^[\w.-]+$")],
        "dataset": field(stages.DataSettings, "name"), "train_images": NonNegativeInt,
        "groups": _several(Literal["hoofed", "all"]), "backbone": name, "weights": str,
        "seeds": _several(field(stages.TrainClassifier, "seed")), "sce_weight": weight,
        "sweep": _several(weight, at_least=0), "methods": _several(Literal[tuple(METHODS)]),
        "networks": _several(Literal[tuple(RECIPES)]), "advcam_images": NonNegativeInt,
        "upper_bound": bool, "kind_images": NonNegativeInt, "saliency_folder": str, "irn": bool,
        "reading": field(stages.ExtractCams, "reading"), "network": Literal["deeplabv2", "deeplabv2_small"],
        "segmented": _several(Literal[tuple(KINDS)], at_least=0), "scored": NonNegativeInt,
    }  # fmt: skip
