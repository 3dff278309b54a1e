"""Parameters of notebooks and profiles of them: read, merged, and checked before a kernel starts.

``notebooks/profiles/NAME.yml`` holds what differs from the cells: ``parameters`` of all notebooks that have
them, those of single notebooks under their number, and one block a stage.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from recamlib.errors import SettingsError, check_choice, nearest
from recamlib.files import read_yaml
from recamlib.paths import notebooks_dir

DEFAULT = "smoke"
Values = Mapping[str, Any]


class Parameter(NamedTuple):
    """One parameter of a notebook, from a line of its cell."""

    name: str
    annotation: str
    default: Any
    comment: str


def _checks() -> ModuleType:
    from recamlib.studies import checks  # it loads torch, which listing notebooks does not need

    return checks


def list_notebooks(folder: Path | None = None) -> list[Path]:
    """Return the notebooks of the report in reading order."""
    return sorted((folder or notebooks_dir()).glob("[0-9][0-9]_*.ipynb"))


def find_notebook(which: str, folder: Path | None = None) -> Path:
    """Return the notebook that a number (``"02"``, ``"2"``), a stem or a file name stands for."""
    stem = Path(which).name.removesuffix(".ipynb")
    number = f"{int(stem):02d}" if stem.isdecimal() and len(stem) < 9 else stem
    notebooks = {path.stem: path for path in list_notebooks(folder)}
    for name, path in notebooks.items():
        if name == stem or name.startswith(f"{number}_"):
            return path
    hint = nearest(which, notebooks) or f"; there are {', '.join(notebooks) or 'none'}"
    raise SettingsError(f"no notebook {which!r}{hint}")


def list_profiles(folder: Path | None = None) -> list[str]:
    """Return the names of the profiles, ``smoke`` first."""
    files = ((folder or notebooks_dir()) / "profiles").glob("*.yml")
    return [DEFAULT, *sorted({path.stem for path in files} - {DEFAULT})]


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """Return the parameters of a notebook by name, in the order of its cell."""
    from papermill import inspect_notebook

    try:
        cell = inspect_notebook(notebook).values()
    except Exception as error:  # papermill hands on whatever nbformat met
        raise SettingsError(f"{notebook} is no notebook ({' '.join(repr(error).split())[:200]})") from None
    if not cell:
        raise SettingsError(f"{notebook.name} has no parameters: it needs a cell tagged 'parameters'")
    known = {}
    for item in cell:
        try:
            default = ast.literal_eval(item["default"])
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            raise SettingsError(
                f"{notebook.name}: a default has to be a literal, not {item['name']} = {item['default']}"
            ) from None
        known[item["name"]] = Parameter(item["name"], item["inferred_type_name"], default, item["help"])
    return known


def stages_of(parameters: Mapping[str, Parameter]) -> list[str]:
    """Return the stages that a notebook's ``settings`` are of: the classes that its comment names."""
    comment = parameters["settings"].comment if "settings" in parameters else ""
    return [word for word in re.findall(r"\w+", comment) if word in _checks().SETTABLE]


def fields_of(stage: str) -> dict[str, tuple[str, Any]]:
    """Return the fields of a stage that ``settings`` may set: name to type as text, and default."""
    import recamlib as rc

    def words(kind: Any) -> str:
        return kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")

    fields = getattr(rc, stage).model_fields
    names = _checks().settable(stage).model_fields
    return {name: (words(fields[name].annotation), fields[name].default) for name in names}


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Return ``name=value`` texts as parameters; ``Stage.field=value`` goes into ``settings``."""
    given: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not name.strip() or not equals:
            raise SettingsError(f"-p takes name=value or Stage.field=value, not {text!r}")
        stage, dot, field = name.strip().partition(".")
        if dot:
            stage, value = "settings", {stage: {field: value}}
        elif stage == "settings":
            value = _checks().plain(value)
        given = _checks().merged(given, {stage: value})
    return given


def profile_parameters(
    profile: str, which: str, *, extra: Values | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Return those of `all_parameters` that differ from the notebook's cell: none of a plain smoke run."""
    known = read_parameters(find_notebook(which, folder))
    values = all_parameters(profile, which, extra=extra, folder=folder)
    return {name: value for name, value in values.items() if value != known[name].default}


def all_parameters(
    profile: str, which: str, *, extra: Values | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Return every parameter of one notebook, checked: of its cell, then of the profile, then `extra`."""
    notebook = find_notebook(which, folder)
    known = read_parameters(notebook)
    values = {name: parameter.default for name, parameter in known.items()}
    path = (folder or notebooks_dir()) / "profiles" / f"{profile}.yml"
    if path.is_file():
        try:
            values = _joined(values, _of_profile(path, notebook, known))
        except SettingsError as error:
            raise SettingsError(f"profile {profile}: {error}") from None
    else:
        check_choice("profile", profile, list_profiles(folder))
    if "profile" in known:
        values["profile"] = profile
    return _joined(values, _checked(notebook, known, extra or {}))


def _of_profile(path: Path, notebook: Path, known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return what a profile says of a notebook; its other notebooks are checked when they run."""
    content = read_yaml(path) or {}
    if not isinstance(content, dict) or not all(isinstance(block, dict) for block in content.values()):
        raise SettingsError("parameters, a notebook or a stage to a mapping of names to values")
    blocks = {str(key): block for key, block in content.items()}
    common = blocks.pop("parameters", {})
    numbers = [key for key in blocks if key[:1].isdigit()]
    sections = {find_notebook(key, notebook.parent): blocks.pop(key) for key in numbers}
    names = {name for place in list_notebooks(notebook.parent) for name in read_parameters(place)}
    if unknown := sorted(set(common) - names):
        raise SettingsError(f"no notebook has the parameter {unknown[0]!r}{nearest(unknown[0], names)}")
    given = {name: value for name, value in common.items() if name in known}
    if "settings" in known:
        settings = _checks().fitted({"settings": blocks}, {"settings": ""})["settings"]
        if "sce_weight" in known:
            settings.get("Reactivate", {}).pop("sce_weight", None)
        given["settings"] = {stage: settings[stage] for stage in stages_of(known) if stage in settings}
    return _joined(_checked(notebook, known, given), _checked(notebook, known, sections.get(notebook, {})))


def _joined(usual: Values, given: Values) -> dict[str, Any]:
    both = {**usual, **given}
    if "settings" in given:
        both["settings"] = _checks().merged(usual.get("settings", {}), given["settings"])
    return both


def _checked(notebook: Path, known: Mapping[str, Parameter], given: Values) -> dict[str, Any]:
    stages = stages_of(known)
    for name in [name for name in given if name not in known]:
        homes = [f"{stage}.{name}" for stage in stages if name in fields_of(stage)]
        hint = f"; there is {' and '.join(homes)}" if homes else nearest(name, known)
        raise SettingsError(f"{notebook.stem} has no parameter {name!r}{hint}")
    return _checks().fitted(given, {name: item.annotation for name, item in known.items()}, stages)
