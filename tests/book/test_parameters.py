"""Parameters cells and profiles: what is read, what is refused, and with which words."""

import json
from pathlib import Path

import pytest

from recamlib.book.parameters import check_parameters, check_value, parse_cell, read_parameters
from recamlib.book.profiles import find_notebook, list_notebooks, list_profiles, profile_parameters
from recamlib.errors import SettingsError

FOLDER = Path(__file__).parents[1] / "notebooks"
PASSES = FOLDER / "01_passes.ipynb"


def test_reads_names_types_defaults_comments_and_brackets():
    found = read_parameters(PASSES)
    assert list(found)[:3] == ["profile", "dataset", "sce_weight"]
    assert found["dataset"].choices == ("hoofed", "voc12", "coco14")
    assert found["sce_weight"].bounds == ((">=", 0.0), ("<=", 10.0))
    assert found["rate"].bounds == ((">", 0.0),)
    assert found["epochs"].bounds == ((">=", 1.0),)
    assert found["epochs"].comment == "passes over the training split"
    assert found["option"].choices == ("w", "w'", "w+w'", "w*w'")
    assert found["scales"].default == [1.0, 0.5]
    assert found["limit"].annotation == "int | None"


@pytest.mark.parametrize(
    ("given", "checked"),
    [
        ({"sce_weight": "0.5"}, {"sce_weight": 0.5}),
        ({"sce_weight": 1}, {"sce_weight": 1.0}),
        ({"rate": "1e-4"}, {"rate": 1e-4}),
        ({"epochs": "3"}, {"epochs": 3}),
        ({"scales": "[1, 0.5]"}, {"scales": [1.0, 0.5]}),
        ({"seeds": "[0, 1]"}, {"seeds": [0, 1]}),
        ({"scales": (1.0, 2.0)}, {"scales": [1.0, 2.0]}),
        ({"limit": "none"}, {"limit": None}),
        ({"limit": 4}, {"limit": 4}),
        ({"detach": "true"}, {"detach": True}),
        ({"option": "w+w'"}, {"option": "w+w'"}),
        ({"profile": "12"}, {"profile": "12"}),
        ({}, {}),
    ],
)
def test_values_come_back_in_the_type_of_the_parameter(given, checked):
    result = check_parameters(PASSES, given)
    assert result == checked
    assert [type(v) for v in result.values()] == [type(v) for v in checked.values()]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sce_wieght": 1.0}, r"01_passes has no parameter 'sce_wieght' \(did you mean 'sce_weight'\?\)"),
        ({"qqq": 1}, r"has no parameter 'qqq'; it has profile, dataset, "),
        ({"sce_weight": "much"}, "sce_weight takes float, not 'much'"),
        ({"sce_weight": "11"}, r"sce_weight has to be in \[0 \.\. 10\], not 11"),
        ({"sce_weight": "nan"}, "sce_weight takes float, not 'nan'"),
        ({"rate": "1e999"}, "rate takes float"),
        ({"rate": 0}, r"rate has to be in \[> 0\], not 0"),
        ({"epochs": 0}, r"epochs has to be in \[1 \.\.\], not 0"),
        ({"epochs": 2.5}, "epochs takes int, not 2.5"),
        ({"epochs": True}, "epochs takes int, not True"),
        ({"detach": 1}, "detach takes bool, not 1"),
        ({"scales": [1.0, -1.0]}, r"scales has to be in \[> 0\], not -1"),
        ({"scales": 1.0}, r"scales takes list\[float\], not 1"),
        ({"dataset": "voc"}, r"one of hoofed \| voc12 \| coco14, not 'voc' \(did you mean 'voc12'\?\)"),
        ({"dataset": 3}, "dataset takes str, not 3"),
        ({"limit": "x"}, r"limit takes int \| None, not 'x'"),
    ],
)
def test_wrong_values_are_refused_in_one_line_that_helps(given, message):
    with pytest.raises(SettingsError, match=message) as caught:
        check_parameters(PASSES, given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "a parameter is written 'name: type = literal', not 'x = 1'"),
        ("x: int = 1 + y", "a default has to be a literal"),
        ("x: int", "a parameter is written"),
        ("x: int = (", "not Python"),
    ],
)
def test_a_cell_that_is_no_list_of_literals_is_refused(source, message):
    with pytest.raises(SettingsError, match=message):
        parse_cell(source)


def test_an_unknown_type_is_named():
    with pytest.raises(SettingsError, match="cannot be of type dict"):
        check_value(parse_cell("x: dict = {}")["x"], {})


def test_units_in_brackets_are_no_range():
    assert parse_cell("size: int = 96  # side of a scene [pixels]")["size"].bounds == ()


def test_both_bounds_and_strict_bounds():
    bounds = parse_cell("x: float = 0.5  # a share [> 0, < 1]")["x"].bounds
    assert bounds == ((">", 0.0), ("<", 1.0))


@pytest.mark.parametrize("tagged", [0, 2])
def test_a_notebook_has_one_parameters_cell(tmp_path, tagged):
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "x: int = 1"}
    notebook = tmp_path / "07_other.ipynb"
    notebook.write_text(json.dumps({"cells": [cell] * tagged}))
    with pytest.raises(SettingsError, match=f"exactly one cell tagged 'parameters', not {tagged}"):
        read_parameters(notebook)


@pytest.mark.parametrize("which", ["1", "01", "01_passes", "01_passes.ipynb", str(PASSES)])
def test_notebooks_are_found_by_number_or_name(which):
    assert find_notebook(which, FOLDER) == PASSES


def test_an_unknown_notebook_names_the_nearest():
    with pytest.raises(SettingsError, match=r"no notebook '01_pases' \(did you mean '01_passes'\?\)"):
        find_notebook("01_pases", FOLDER)
    with pytest.raises(SettingsError, match=r"no notebook '77'"):
        find_notebook("77", FOLDER)
    with pytest.raises(SettingsError, match="there are no notebooks"):
        find_notebook("1", FOLDER / "profiles")


def test_profile_then_command_line_win_over_defaults():
    assert list_profiles(FOLDER) == ["smoke", "mini"]
    values = profile_parameters("mini", "01", extra={"rate": "0.2"}, folder=FOLDER)
    assert values == {"profile": "mini", "dataset": "voc12", "rate": 0.2, "scales": [1.0, 0.5, 1.5]}
    assert profile_parameters("mini", "02", folder=FOLDER) == {"profile": "mini", "seed": 3}


def test_smoke_is_the_notebook_as_it_stands():
    assert profile_parameters("smoke", "01", folder=FOLDER) == {}
    assert profile_parameters("smoke", "01", extra={"epochs": "2"}, folder=FOLDER) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('"01": {epoch: 3}', r"profile odd: 01_passes has no parameter 'epoch' \(did you mean 'epochs'\?\)"),
        ('"01": {epochs: 0}', r"profile odd: epochs has to be in \[1"),
        ("common: {sede: 1}", r"no notebook has the common parameter 'sede' \(did you mean 'seed'\?\)"),
        ("common: {seed: -1}", "profile odd, for 02_fails: seed has to be in"),
        ('"09": {seed: 1}', "profile odd: no notebook '09'"),
        ("- a list", "every section is a mapping"),
        ("a: [", "profile odd is not YAML"),
    ],
)
def test_profiles_are_checked_too(tmp_path, content, message):
    for notebook in list_notebooks(FOLDER):
        (tmp_path / notebook.name).write_bytes(notebook.read_bytes())
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "odd.yml").write_text(content)
    with pytest.raises(SettingsError, match=message) as caught:
        profile_parameters("odd", "01", folder=tmp_path)
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(SettingsError, match=r"no profile 'mni' \(did you mean 'mini'\?\)"):
        profile_parameters("mni", "01", folder=FOLDER)
