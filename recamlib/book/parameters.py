"""Parameters of notebooks and profiles of them: read, merged, and checked before a kernel starts.

A parameters cell has at most twelve annotated literals; ``settings`` holds everything else, by the name of a
stage's class and of its field, and the comment behind it names the stages that the notebook has::

    settings: dict = {}  # of TrainClassifier, Reactivate, ExtractCams

``notebooks/profiles/NAME.yml`` holds ``parameters`` of all notebooks that have them, parameters of single
notebooks under their number, and one block a stage: what differs from the cell. The cell itself is the
profile ``smoke``.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from recamlib.errors import SettingsError, nearest
from recamlib.files import read_yaml
from recamlib.paths import notebooks_dir

DEFAULT = "smoke"
Values = Mapping[str, Any]


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: name, annotation, default and the comment behind it."""

    name: str
    annotation: str
    default: Any
    comment: str


def _checks() -> ModuleType:
    """Return what checks values; it loads torch, which listing notebooks does not need."""
    from recamlib.studies import checks

    return checks


def list_notebooks(folder: Path | None = None) -> list[Path]:
    """Return the notebooks of the report in reading order (``01_*.ipynb``, ``02_*.ipynb`` ...)."""
    return sorted((folder or notebooks_dir()).glob("[0-9][0-9]_*.ipynb"))


def find_notebook(which: str, folder: Path | None = None) -> Path:
    """Return the notebook that a number (``"02"``, ``"2"``), a stem or a file name stands for.

    Raises
    ------
    SettingsError
        Naming the nearest, or what there is.
    """
    notebooks = list_notebooks(folder)
    if not notebooks:
        raise SettingsError(f"there are no notebooks in {folder or notebooks_dir()}")
    stem = Path(which).name.removesuffix(".ipynb")
    number = f"{int(stem):02d}" if stem.isdecimal() and len(stem) < 9 else stem
    found = [path for path in notebooks if path.stem == stem or path.stem.startswith(f"{number}_")]
    if len(found) == 1:
        return found[0]
    stems = [path.stem for path in notebooks]
    raise SettingsError(f"no notebook {which!r}{nearest(stem, stems) or '; there are ' + ', '.join(stems)}")


def list_profiles(folder: Path | None = None) -> list[str]:
    """Return the names of the profiles, ``smoke`` first."""
    files = ((folder or notebooks_dir()) / "profiles").glob("*.yml")
    return [DEFAULT, *sorted({path.stem for path in files} - {DEFAULT})]


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """Return the parameters of a notebook by name, in the order of its cell.

    Raises
    ------
    SettingsError
        If the file is no notebook, has no cell tagged ``parameters``, or a default is not a literal.
    """
    from papermill import inspect_notebook

    try:
        found = inspect_notebook(notebook).values()
    except Exception as error:  # papermill hands on whatever nbformat met
        raise SettingsError(f"{notebook} is no notebook ({' '.join(repr(error).split())[:200]})") from None
    if not found:
        raise SettingsError(f"{notebook.name} has no parameters: it needs a cell tagged 'parameters'")
    known = {}
    for item in found:
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
    words = re.findall(r"\w+", parameters["settings"].comment) if "settings" in parameters else ()
    return [word for word in words if word in _checks().settable()]


def fields_of(stage: str) -> dict[str, tuple[str, Any]]:
    """Return the fields of a stage that ``settings`` may set: name to type as text, and default."""
    from recamlib import stages

    found = {name: getattr(stages, stage).model_fields[name] for name in _checks().settable()[stage]}
    return {name: (_words(info.annotation), info.default) for name, info in found.items()}


def _words(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Return ``name=value`` texts as parameters; ``Stage.field=value`` goes into ``settings``.

    Raises
    ------
    SettingsError
        For a text without ``=``.

    Examples
    --------
    >>> parse_assignments(["sce_weight=0.1", "Reactivate.lr=0.05"])
    {'sce_weight': '0.1', 'settings': {'Reactivate': {'lr': '0.05'}}}
    """
    given: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not name.strip() or not equals:
            raise SettingsError(f"-p takes name=value or Stage.field=value, not {text!r}")
        stage, dot, field = name.strip().partition(".")
        if dot:
            name, value = "settings", {stage: {field: value}}
        elif stage == "settings":
            value = _plain(value)
        given = _checks().merged(given, {name.strip(): value})
    return given


def profile_parameters(
    profile: str, which: str, *, extra: Values | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Return the checked parameters of one notebook that differ from its cell: profile first, then `extra`.

    Settings are merged field by field, of anything else the last one counts. A smoke run without `extra` is
    the notebook as it stands.

    Raises
    ------
    SettingsError
        If the profile does not exist, or a name or a value in it or in `extra` does not fit.
    """
    notebook = find_notebook(which, folder)
    known = read_parameters(notebook)
    usual = {name: parameter.default for name, parameter in known.items()}
    path = (folder or notebooks_dir()) / "profiles" / f"{profile}.yml"
    if path.is_file():
        usual = _joined(usual, _of_profile(path, notebook, known))
    elif profile != DEFAULT:
        names = list_profiles(folder)
        raise SettingsError(f"no profile {profile!r}{nearest(profile, names)}; there are {', '.join(names)}")
    if "profile" in known:
        usual["profile"] = profile
    asked = _joined(usual, _checked(notebook, known, extra or {}))
    return {name: value for name, value in asked.items() if value != known[name].default}


def all_parameters(
    profile: str, which: str, *, extra: Values | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Return every parameter of a notebook under a profile; errors are those of `profile_parameters`."""
    known = read_parameters(find_notebook(which, folder))
    given = profile_parameters(profile, which, extra=extra, folder=folder)
    return {name: parameter.default for name, parameter in known.items()} | given


def _of_profile(path: Path, notebook: Path, known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return what a profile says of a notebook, the whole file checked."""
    where = f"profile {path.stem}"
    content = read_yaml(path) or {}
    if not isinstance(content, dict) or not all(isinstance(block, dict) for block in content.values()):
        raise SettingsError(f"{where}: parameters, a notebook or a stage to a mapping of names to values")
    blocks = {str(key): block for key, block in content.items()}
    common, sections = blocks.pop("parameters", {}), {}
    notebooks = {path: read_parameters(path) for path in list_notebooks(notebook.parent)}
    names = sorted({name for parameters in notebooks.values() for name in parameters})
    try:
        for key in [key for key in blocks if key[:1].isdigit()]:
            place = find_notebook(key, notebook.parent)
            sections[place] = _checked(place, notebooks[place], blocks.pop(key))
        blocks = _checks().check("settings", blocks, stages=_checks().settable())
        for name in common:
            if name not in names:
                raise SettingsError(f"no notebook has the parameter {name!r}{nearest(name, names)}")
        shared = {
            place: _checked(place, parameters, {k: v for k, v in common.items() if k in parameters})
            for place, parameters in notebooks.items()
        }
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None
    own = _checks().owned(known)
    settings = {stage: {field: value for field, value in blocks[stage].items() if (stage, field) not in own}
                for stage in stages_of(known) if stage in blocks}  # fmt: skip
    given = {"settings": settings} if "settings" in known else {}
    return _joined(_joined(given, shared[notebook]), sections.get(notebook, {}))


def _joined(usual: Values, given: Values) -> dict[str, Any]:
    """Return parameters, those given last: their settings are merged, all else replaces."""
    both = {**usual, **given}
    if "settings" in given:
        both["settings"] = _checks().merged(usual.get("settings", {}), given["settings"])
    return both


def _checked(notebook: Path, known: Mapping[str, Parameter], given: Values) -> dict[str, Any]:
    """Return some parameters of a notebook in their types."""
    stages = stages_of(known)
    for name in given:
        if name not in known:
            homes = [f"{stage}.{name}" for stage in stages if name in _checks().settable()[stage]]
            hint = f"; there is {' and '.join(homes)}" if homes else nearest(name, known)
            hint = hint or f"; it has {', '.join(known)}"
            raise SettingsError(f"{notebook.stem} has no parameter {name!r}{hint}")
    return {
        name: _checks().check(name, value, annotation=known[name].annotation, stages=stages, own=known)
        for name, value in given.items()
    }


def _plain(text: str) -> Any:
    """Return what a text spells in YAML, or the text."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
