"""Which values parameters of notebooks and settings of stages may have."""

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, Field, NonNegativeInt, ValidationError, create_model

import recamlib as library
from recamlib.errors import SettingsError, nearest
from recamlib.report.cells import KINDS, METHODS
from recamlib.stages.base import Settings
from recamlib.stages.maps import OPTIONS
from recamlib.studies.table3 import RECIPES

# Stages whose fields ``settings`` may set, and the fields that a table gives itself.
SETTABLE = {
    "DataSettings": ("name", "classes", "single_label", "limit", "train_count", "val_count", "fingerprint"),
    "TrainClassifier": ("backbone", "weights", "loss", "probe"),
    "Reactivate": (), "ExtractCams": ("weights", "reading"), "AdvCams": ("weights", "scales"),
    "TrainBoundary": ("power",), "Walk": ("power",), "SaliencyMerge": (), "PseudoMasks": (),
    "TrainSegmenter": ("arch",), "Score": (), "SaliencyScore": ("theta",), "SegmentationScore": (),
}  # fmt: skip
_NEVER = ("seed", "split", "stage", "infra")
# closer than the stages' own
_CLOSER = {"scales": Annotated[tuple[pydantic.PositiveFloat, ...], Field(min_length=1)]}
_PLAIN = {
    "str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict,
    "list[str]": list[str], "list[int]": list[int], "list[float]": list[float],
}  # fmt: skip


class _Names(BaseModel):
    """Values by name, of which any may be left out; an unknown name gets the nearest."""

    model_config = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        known = cls.model_fields
        for name in values if isinstance(values, Mapping) else ():
            if name not in known:
                hint = nearest(name, known) or f"; there is {', '.join(known)}"
                raise ValueError(f"no {name!r} here{hint}")
        return values


def merged(first: Any, second: Any) -> Any:
    """Return two nested mappings as one; the second wins, and so does whatever is no mapping."""
    if not (isinstance(first, Mapping) and isinstance(second, Mapping)):
        return second
    return {**first, **{key: merged(first.get(key), value) for key, value in second.items()}}


def checked(**parameters: Any) -> dict[str, Any]:
    """Return the parameters of a notebook in their types, or raise a SettingsError."""
    return fitted(parameters, dict.fromkeys(parameters, ""))


def fitted(
    given: Mapping[str, Any], known: Mapping[str, str], stages: Sequence[str] = tuple(SETTABLE)
) -> dict[str, Any]:
    """Return some parameters in their types, lists and mappings as in JSON; text is read as YAML if need be.

    `known` has all parameters of the notebook with their annotations, which count where a name has no kind
    here; `stages` are those that ``settings`` may name.
    """
    try:
        model = _parameters(tuple(known.items()), tuple(stages)).model_validate(dict(given))
    except ValidationError as error:
        raise _one_line(given, error.errors()[0]) from None
    values = model.model_dump(mode="json", exclude_unset=True)
    if "sce_weight" in known and "sce_weight" in values.get("settings", {}).get("Reactivate", {}):
        raise SettingsError("Reactivate.sce_weight is a parameter here: set sce_weight")
    return values


def _one_line(given: Mapping[str, Any], first: Mapping[str, Any]) -> SettingsError:
    where, value = "", given
    for part in first["loc"]:  # other parts of it are names that pydantic gives to kinds
        if isinstance(value, Mapping) and part in value:
            where, value = f"{where}.{part}", value[part]
        elif isinstance(part, int):
            where += f"[{part}]"
    problem = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    came = "" if first["type"] == "value_error" else f", not {first['input']!r}"
    return SettingsError(f"{where.removeprefix('.').removeprefix('settings.')}: {problem}{came}")


@functools.cache
def settable(stage: str) -> type[BaseModel]:
    """Return the fields of a stage that ``settings`` may set, with their types and defaults."""
    return create_model(stage, __base__=_Names, **{
        name: (Annotated[_CLOSER.get(name, info.annotation), *info.metadata, _SPELT], info.default)
        for name, info in getattr(library, stage).model_fields.items()
        if name not in (*_NEVER, *SETTABLE[stage]) and not _is_upstream(info.annotation)
    })  # fmt: skip


def _is_upstream(annotation: Any) -> bool:
    kinds = (annotation, *getattr(annotation, "__args__", ()))
    return any(isinstance(kind, type) and issubclass(kind, Settings) for kind in kinds)


def plain(text: Any) -> Any:
    """Return what a text spells in YAML, or what came."""
    try:
        return yaml.safe_load(text) if isinstance(text, str) else text
    except yaml.YAMLError:
        return text


def _spelt(value: Any, fits: Any) -> Any:
    """Read a text as YAML where it does not fit as it stands."""
    try:
        return fits(value)
    except ValidationError:
        if isinstance(plain(value), str) or not isinstance(value, str):
            raise
        return fits(plain(value))


_SPELT = pydantic.WrapValidator(_spelt)


def _distinct(values: list) -> list:
    if len({str(value) for value in values}) < len(values):
        raise ValueError(f"every item may come once: {values}")
    return values


def _several(kind: Any, *, at_least: int = 1) -> Any:
    return Annotated[list[kind], Field(min_length=at_least), pydantic.AfterValidator(_distinct)]


def _named(value: Any) -> Any:
    return {str(name): {} for name in _distinct(value)} if isinstance(value, list) else value


@functools.cache
def _parameters(known: tuple[tuple[str, str], ...], stages: tuple[str, ...]) -> type[BaseModel]:
    settings = create_model("settings", __base__=_Names, **{s: (settable(s), None) for s in stages})
    kinds = {**_kinds(), "settings": settings, "changes": dict[str, settings]}
    return create_model("parameters", __base__=_Names, **{
        name: (Annotated[kinds.get(name) or _PLAIN.get(annotation, Any), _SPELT], None)
        for name, annotation in known
    })  # fmt: skip


@functools.cache
def _kinds() -> dict[str, Any]:
    """Return what parameters may be, by name: the stages' own fields wherever there is one."""

    def field(stage: type[Settings], name: str) -> Any:
        info = stage.model_fields[name]
        return Annotated[info.annotation, Field(), *info.metadata]

    weight = Annotated[field(library.Reactivate, "sce_weight"), Field(gt=0)]
    backbone = create_model("backbone", __base__=settable("TrainClassifier"), weights=(str, ""))
    networks = dict[Literal[tuple(RECIPES)], settable("TrainSegmenter")]
    return {
        "profile": Annotated[str, pydantic.StringConstraints(pattern=r"^[\w.-]+$")],
        "dataset": field(library.DataSettings, "name"), "train_images": NonNegativeInt,
        "groups": _several(Literal["hoofed", "all"]), "weights": str,
        "backbone": Annotated[str, pydantic.StringConstraints(min_length=1)],
        "seeds": _several(field(library.TrainClassifier, "seed")), "sce_weight": weight,
        "sweep": _several(weight, at_least=0), "methods": _several(Literal[tuple(METHODS)]),
        "networks": Annotated[networks, Field(min_length=1), pydantic.BeforeValidator(_named)],
        "backbones": Annotated[dict[str, backbone], pydantic.BeforeValidator(_named)],
        "advcam_images": NonNegativeInt, "upper_bound": bool, "kind_images": NonNegativeInt,
        "saliency_folder": str, "irn": bool, "reading": field(library.ExtractCams, "reading"),
        "network": Literal[tuple(arch for arch in RECIPES if arch.startswith("deeplab"))],
        "options": _several(Literal[OPTIONS], at_least=0),
        "segmented": _several(Literal[tuple(KINDS)], at_least=0),
    }  # fmt: skip
