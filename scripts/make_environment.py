"""Write environment.yml for conda users: what pyproject.toml asks for, at the versions of the locks.

Run by `make lock`; ``--check`` only says whether the file is up to date.
"""

import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
HEADER = """\
# Made by `make lock` from pyproject.toml and the locks: do not edit.
#   conda env create -f environment.yml && conda activate recam
name: recam
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python {python}
  - pip
{compiled}  - pip:
"""
COMPILED = {"pydensecrf2": "pydensecrf"}
"""Packages that pip would have to compile, and what conda-forge calls the same thing in binary form."""


def direct_requirements(project: dict) -> list[str]:
    """Return the sorted names of everything pyproject.toml asks for, extras included."""
    groups = [project["dependencies"], *project.get("optional-dependencies", {}).values()]
    return sorted({canonicalize_name(Requirement(line).name) for group in groups for line in group})


def locked_pins(lock: str) -> dict[str, list[str]]:
    """Return for each package of the lock its pins, as ``name==version`` with the marker where it has one."""
    pins: dict[str, list[str]] = {}
    for match in re.finditer(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.+?))? \\$", lock, flags=re.MULTILINE):
        name, version, marker = match.groups()
        pin = f"{name}=={version} ; {marker}" if marker else f"{name}=={version}"
        pins.setdefault(canonicalize_name(name), []).append(pin)
    return pins


def render(pyproject: str, lock: str) -> str:
    """Return the text of environment.yml."""
    project = tomllib.loads(pyproject)["project"]
    pins = locked_pins(lock)
    names = direct_requirements(project)
    lines = [pin for name in names if name not in COMPILED for pin in pins[name]]
    # a pin with a marker holds single quotes, so it is put into double ones
    body = "".join(f'      - "{line}"\n' if ";" in line else f"      - {line}\n" for line in lines)
    compiled = "".join(f"  - {COMPILED[name]}\n" for name in names if name in COMPILED)
    header = HEADER.format(python=project["requires-python"], compiled=compiled)
    return header + body + "      - --editable .\n"


def main() -> int:
    """Write or check environment.yml."""
    text = render((ROOT / "pyproject.toml").read_text(), (ROOT / "requirements.lock").read_text())
    target = ROOT / "environment.yml"
    if "--check" in sys.argv[1:]:
        return 0 if target.read_text() == text else 1
    target.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
