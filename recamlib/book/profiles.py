"""Profiles: named files of notebook parameters, one per kind of run.

``notebooks/profiles/NAME.yml`` maps a notebook's number or stem to its parameters; ``common`` holds what
every notebook takes that has a parameter of that name::

    common:
      dataset: voc12
    "02":
      epochs: 5

The notebooks' own defaults are the profile ``smoke``, so that one needs no file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recamlib.book.parameters import check_parameters, read_parameters
from recamlib.errors import SettingsError, nearest
from recamlib.files import read_yaml
from recamlib.paths import notebooks_dir

DEFAULT = "smoke"


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


def profile_parameters(
    profile: str, which: str, *, extra: Mapping[str, Any] | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Return the checked parameters of one notebook: the profile's ``common``, its section, then `extra`.

    A notebook with a parameter ``profile`` is told the profile's name. What equals the notebook's default is
    left out, so a smoke run is the notebook as it stands.

    Raises
    ------
    SettingsError
        If the profile does not exist, or anything in it or in `extra` does not fit any notebook it is for.
    """
    notebook = find_notebook(which, folder)
    sections = _read_profile(profile, folder)
    known = read_parameters(notebook)
    merged = {name: value for name, value in sections["common"].items() if name in known}
    merged |= sections.get(notebook.stem, {})
    if "profile" in known:
        merged.setdefault("profile", profile)
    merged |= extra or {}
    name = merged.pop("profile", None)  # any profile that there is, not only those the notebook knows of
    checked = check_parameters(notebook, merged)
    if name in list_profiles(folder):
        checked["profile"] = name
    elif name is not None:
        checked |= check_parameters(notebook, {"profile": name})
    return {name: value for name, value in checked.items() if value != _as_list(known[name].default)}


def all_parameters(
    profile: str, which: str, *, extra: Mapping[str, Any] | None = None, folder: Path | None = None
) -> dict[str, Any]:
    """Return every parameter of a notebook under a profile, those it leaves at their defaults too.

    Errors are those of `profile_parameters`.
    """
    defaults = read_parameters(find_notebook(which, folder))
    given = profile_parameters(profile, which, extra=extra, folder=folder)
    return {name: parameter.default for name, parameter in defaults.items()} | given


def _read_profile(profile: str, folder: Path | None) -> dict[str, dict[str, Any]]:
    """Return a profile's sections by notebook stem, every value checked against the notebook it is for."""
    path = (folder or notebooks_dir()) / "profiles" / f"{profile}.yml"
    if not path.is_file():
        if profile == DEFAULT:
            return {"common": {}}
        names = list_profiles(folder)
        hint = nearest(profile, names) or f"; there are {', '.join(names)}"
        raise SettingsError(f"no profile {profile!r}{hint}")
    try:
        content = read_yaml(path) or {}
    except SettingsError as error:
        raise SettingsError(f"profile {profile} is not YAML: {error}") from None
    if not (isinstance(content, dict) and all(isinstance(v, dict | None) for v in content.values())):
        raise SettingsError(f"profile {profile}: every section is a mapping of parameters to values")
    sections: dict[str, dict[str, Any]] = {"common": content.pop("common", None) or {}}
    for key, values in content.items():
        try:
            notebook = find_notebook(str(key), folder)
            check_parameters(notebook, values or {})
        except SettingsError as error:
            raise SettingsError(f"profile {profile}: {error}") from error
        sections[notebook.stem] = values or {}
    _check_common(profile, sections["common"], folder)
    return sections


def _check_common(profile: str, common: Mapping[str, Any], folder: Path | None) -> None:
    """Raise if a common parameter fits no notebook, or does not fit one that has it."""
    notebooks = {path: read_parameters(path) for path in list_notebooks(folder)}
    everything = {name for parameters in notebooks.values() for name in parameters}
    for name, value in common.items():
        if name not in everything:
            hint = nearest(name, everything)
            raise SettingsError(f"profile {profile}: no notebook has the common parameter {name!r}{hint}")
        for path, parameters in notebooks.items():
            if name in parameters and (name, value) != ("profile", profile):
                try:
                    check_parameters(path, {name: value})
                except SettingsError as error:
                    raise SettingsError(f"profile {profile}, for {path.stem}: {error}") from error


def _as_list(value: Any) -> Any:
    """Return tuples as lists, the form checked values have."""
    return [_as_list(item) for item in value] if isinstance(value, list | tuple) else value
