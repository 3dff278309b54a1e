"""pyproject.toml, the locks and environment.yml stay in step, and name no place of anybody's."""

import re
import tomllib

import make_environment
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from recamlib.paths import ROOT

TOML, LOCK, CRF_LOCK, ENVIRONMENT = (
    (ROOT / name).read_text(encoding="utf-8")
    for name in ("pyproject.toml", "requirements.lock", "requirements-crf.lock", "environment.yml")
)
PROJECT, PINS = tomllib.loads(TOML)["project"], make_environment.locked_pins(LOCK)
EXTRAS = PROJECT["optional-dependencies"]
WANTED = [Requirement(x) for x in [*PROJECT["dependencies"], *EXTRAS["dev"]]]


@pytest.mark.parametrize("version", ["3.11.0", "3.12.0", "3.13.0"])
def test_the_lock_pins_what_pyproject_asks_for_on_every_supported_python(version):
    for wanted in WANTED:
        pins = map(Requirement, PINS[canonicalize_name(wanted.name)])
        (pin,) = [p for p in pins if not p.marker or p.marker.evaluate({"python_full_version": version})]
        assert wanted.specifier.contains(next(iter(pin.specifier)).version), wanted.name


def test_the_compiled_extra_has_a_lock_of_its_own_and_every_pin_hashes_and_no_address():
    pins = make_environment.locked_pins(CRF_LOCK)
    assert set(pins) == {canonicalize_name(Requirement(x).name) for x in EXTRAS["crf"]}
    assert not set(pins) & set(PINS), "what needs a compiler may not be in the main lock"
    # it is built without isolation: its own build file asks for a Cython that Python 3.13 refuses
    assert {"cython", "setuptools"} <= set(PINS)
    for lock in (LOCK, CRF_LOCK):
        entries = re.split(r"\n(?=[A-Za-z0-9])", lock)[1:]
        assert entries and [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
        assert not re.search(r"https?:|file:|--index-url|--find-links|@ ", lock + ENVIRONMENT)


def test_environment_yml_is_made_from_the_same_pins():
    assert make_environment.render(TOML, LOCK) == ENVIRONMENT
    # the dense CRF comes compiled from conda-forge: pip would need a compiler in the middle of the creation
    *conda, pip = yaml.safe_load(ENVIRONMENT)["dependencies"]
    assert conda == [f"python {PROJECT['requires-python']}", "pip", "pydensecrf"]
    pinned = [Requirement(line) for line in pip["pip"] if not line.startswith("--")]
    assert {canonicalize_name(r.name) for r in pinned} == {canonicalize_name(r.name) for r in WANTED}
