"""Parameters cells, settings and profiles: what is read, what is refused, and with which words."""

import json
from pathlib import Path

import pytest

from recamlib.book.parameters import (
    all_parameters,
    find_notebook,
    list_notebooks,
    list_profiles,
    parse_assignments,
    profile_parameters,
    read_parameters,
    stages_of,
)
from recamlib.errors import SettingsError
from recamlib.studies.checks import check, checked, settable

FOLDER = Path(__file__).parents[1] / "notebooks"
PASSES = FOLDER / "01_passes.ipynb"


def given(*assignments: str, which: str = "01", folder: Path = FOLDER, profile: str = "smoke") -> dict:
    """Return what differs from the cell after `assignments` of the command line."""
    return profile_parameters(profile, which, extra=parse_assignments(assignments), folder=folder)


def test_reads_names_types_defaults_comments_and_stages():
    found = read_parameters(PASSES)
    assert list(found)[:3] == ["profile", "dataset", "sce_weight"]
    assert found["epochs"].comment == "passes over the training split"
    assert (found["sizes"].annotation, found["sizes"].default) == ("list[float]", [1.0, 0.5])
    assert found["option"].default == "w*w'"
    assert found["settings"].default == {"TrainClassifier": {"lr": 0.05}}
    assert stages_of(found) == ["TrainClassifier", "Reactivate", "ExtractCams"]


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("sce_weight=0.5", 0.5), ("sce_weight=3", 3.0), ("rate=1e-4", 1e-4), ("epochs=3", 3),
        ("sizes=[1, 0.25]", [1.0, 0.25]), ("seeds=[0, 1]", [0, 1]), ("detach=true", True),
        ("option=w+w'", "w+w'"), ("option=12", "12"), ("profile=mine", "mine"),
    ],
)  # fmt: skip
def test_values_come_back_in_the_type_of_the_parameter(assignment, value):
    (found,) = given(assignment).values()
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("sce_wieght=1", r"01_passes has no parameter 'sce_wieght' \(did you mean 'sce_weight'\?\)"),
        ("qqq=1", "has no parameter 'qqq'; it has profile, dataset, "),
        ("lr=1", "no parameter 'lr'; there is TrainClassifier.lr and Reactivate.lr"),
        ("rate=much", "rate: .*number.*not 'much'"), ("rate=1e999", "rate: .*finite"),
        ("epochs=2.5", "epochs: .*integer.*not 2.5"), ("detach=5", "detach: .*boolean"),
        ("sizes=1.0", "sizes: .*list, not 1.0"), ("sizes=[1, x]", r"sizes\[1\]: .*not 'x'"),
        ("sce_weight=0", "sce_weight: .*greater than 0"), ("sce_weight=nan", "sce_weight: .*finite"),
        ("dataset=voc", "dataset: .*'voc12'.*not 'voc'"), ("profile=a/b", "profile: .*not 'a/b'"),
        ("seeds=[]", "seeds: .*at least 1 item"), ("seeds=[-1]", r"seeds\[0\]: .*not -1"),
        ("seeds=[0, 0]", "seeds: every item may come once"), ("seeds=0", "seeds: .*list"),
        ("Reactivte.lr=1", r"no settings of 'Reactivte' here \(did you mean 'Reactivate'\?\)"),
        ("Walk.steps=4", "no settings of 'Walk' here; there are TrainClassifier, Reactivate, ExtractCams"),
        ("Reactivate.rl=1", r"Reactivate has no setting 'rl' \(did you mean 'lr'\?\)"),
        ("Reactivate.lr=0", "Reactivate.lr: .*greater than 0, not"),
        ("Reactivate.epochs=2.5", "Reactivate.epochs: .*integer"), ("Reactivate.gap=x", "'pixels' or 'mask'"),
        ("ExtractCams.scales=[0]", r"ExtractCams.scales\[0\]: .*greater than 0"),
        ("ExtractCams.scales=[]", "ExtractCams.scales: .*at least 1"),
        ("TrainClassifier.loss=sce", "TrainClassifier has no setting 'loss'"),  # it is the table's subject
        ("TrainClassifier.seed=3", "TrainClassifier has no setting 'seed'"),
        ("Reactivate.sce_weight=2", "Reactivate.sce_weight is a parameter here: set sce_weight"),
        ("settings=3", "settings: .*dictionary, not 3"),
        ("settings={Reactivate: 3}", "settings: .*dictionary"),
        ("epochs", "-p takes name=value or Stage.field=value, not 'epochs'"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_in_one_line_that_helps(assignment, message):
    with pytest.raises(SettingsError, match=message) as caught:
        given(assignment)
    assert "\n" not in str(caught.value)


def test_settings_reach_into_the_cells_own():
    found = given("Reactivate.lr=5e-2", "ExtractCams.scales=[1, 0.5]", "TrainClassifier.epochs=3")
    assert found == {"settings": {
        "TrainClassifier": {"lr": 0.05, "epochs": 3}, "Reactivate": {"lr": 0.05},
        "ExtractCams": {"scales": [1.0, 0.5]},
    }}  # fmt: skip
    both = given("settings={Reactivate: {lr: 1}}", "Reactivate.epochs=2")["settings"]["Reactivate"]
    assert both == {"lr": 1.0, "epochs": 2}


def test_networks_are_names_or_names_with_settings():
    assert check("networks", "[deeplabv2]") == {"deeplabv2": {}}
    assert check("networks", {"deeplabv2": {"lr": "1e-3"}}) == {"deeplabv2": {"lr": 0.001}}
    for value, message in (
        ({"deeplab": {}}, "deeplab"), ({"deeplabv2": {"seed": 1}}, "no setting 'seed'"), ([], "at least 1"),
        (["deeplabv2", "deeplabv2"], "once"), ({"deeplabv2": {"lr": 0}}, "greater than 0"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=message):
            check("networks", value)


def test_a_change_is_checked_as_settings_are():
    assert checked(changes={"x": {"Reactivate": {"lr": 1}}})["changes"] == {"x": {"Reactivate": {"lr": 1.0}}}
    with pytest.raises(SettingsError, match="greater than 0"):
        checked(changes={"x": {"Reactivate": {"lr": -1}}})


def test_what_a_table_gives_itself_is_no_setting():
    given = {"seed", "dataset", "backbone", "weights", "loss", "infra", "stage"}
    assert not given & {*settable()["TrainClassifier"]}
    assert "model" not in settable()["ExtractCams"] and "cams" not in settable()["Walk"]
    assert {"lr", "epochs", "momentum"} <= {*settable()["Reactivate"]}


@pytest.mark.parametrize("tagged", [0, 1])
def test_a_notebook_has_parameters_that_are_literals(tmp_path, tagged):
    kernel = {"kernelspec": {"name": "python3", "language": "python", "display_name": "x"}}
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "x: int = 1 + y",
            "outputs": [], "execution_count": None}  # fmt: skip
    notebook = tmp_path / "07_other.ipynb"
    content = {"cells": [cell] * tagged, "metadata": kernel, "nbformat": 4, "nbformat_minor": 4}
    notebook.write_text(json.dumps(content))
    with pytest.raises(SettingsError, match="has to be a literal" if tagged else "tagged 'parameters'"):
        read_parameters(notebook)
    notebook.write_text("{")
    with pytest.raises(SettingsError, match="is no notebook"):
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


def test_profile_then_command_line_win_over_the_cell():
    assert list_profiles(FOLDER) == ["smoke", "mini"]
    assert given("rate=0.2", profile="mini") == {
        "profile": "mini", "dataset": "voc12", "rate": 0.2, "sizes": [1.0, 0.5, 1.5],
        "settings": {"TrainClassifier": {"lr": 0.05}, "Reactivate": {"epochs": 3}},
    }  # fmt: skip
    assert given(which="02", profile="mini") == {"profile": "mini", "seed": 3}
    assert all_parameters("mini", "02", folder=FOLDER) == {"profile": "mini", "seed": 3}


def test_smoke_is_the_notebook_as_it_stands():
    assert given() == {}
    assert given("epochs=2", "TrainClassifier.lr=0.05") == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('"01": {epoch: 3}', r"profile odd: 01_passes has no parameter 'epoch' \(did you mean 'epochs'\?\)"),
        ('"01": {seeds: []}', "profile odd: seeds: .*at least 1"),
        ('"01": {settings: {Reactivate: {lr: 0}}}', "profile odd: Reactivate.lr"),
        ("parameters: {sede: 1}", r"no notebook has the parameter 'sede' \(did you mean 'seed'\?\)"),
        ("parameters: {seed: x}", "profile odd: seed: .*integer"),
        ('"09": {seed: 1}', "profile odd: no notebook '09'"),
        ("Reactivate: {momentum: 1.5}", "profile odd: Reactivate.momentum: .*less than 1"),
        ("Reactivat: {momentum: 0.5}", r"no settings of 'Reactivat' here \(did you mean 'Reactivate'\?\)"),
        ("- a list", "profile odd: "), ("parameters: 3", "profile odd: "), ("a: [", "odd.yml cannot be read"),
    ],
)  # fmt: skip
def test_profiles_are_checked_too(tmp_path, content, message):
    for notebook in list_notebooks(FOLDER):
        (tmp_path / notebook.name).write_bytes(notebook.read_bytes())
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "odd.yml").write_text(content)
    with pytest.raises(SettingsError, match=message) as caught:
        given(folder=tmp_path, profile="odd")
    assert "\n" not in str(caught.value)


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(SettingsError, match=r"no profile 'mni' \(did you mean 'mini'\?\)"):
        given(profile="mni")


def test_a_setting_that_is_also_given_is_an_error():
    from recamlib.stages import TrainClassifier
    from recamlib.studies.common import make

    settings = {"TrainClassifier": {"lr": 0.05}, "Reactivate": {"lr": 1.0}}
    assert make(TrainClassifier, settings, seed=2).changed() == {"lr": 0.05, "seed": 2}
    with pytest.raises(SettingsError, match=r"TrainClassifier.lr is not a setting here"):
        make(TrainClassifier, settings, lr=0.1)
