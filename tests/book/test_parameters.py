"""Parameters cells, settings and profiles: what is read, and what is refused before a kernel starts."""

from pathlib import Path

import nbformat
import pytest
import yaml

from recamlib.book import parameters
from recamlib.errors import SettingsError
from recamlib.paths import ROOT
from recamlib.studies.checks import checked

FOLDER = Path(__file__).parents[1] / "notebooks"
PASSES = FOLDER / "01_passes.ipynb"


def given(*assignments: str, which: str = "01", folder: Path = FOLDER, profile: str = "smoke") -> dict:
    extra = parameters.parse_assignments(assignments)
    return parameters.profile_parameters(profile, which, extra=extra, folder=folder)


def test_reads_names_types_defaults_comments_and_stages():
    cell = parameters.read_parameters(PASSES)
    assert list(cell)[:3] == ["profile", "dataset", "sce_weight"]
    assert cell["epochs"].comment == "passes over the training split"
    assert (cell["sizes"].annotation, cell["sizes"].default) == ("list[float]", [1.0, 0.5])
    assert cell["settings"].default == {"TrainClassifier": {"lr": 0.05}}
    assert parameters.stages_of(cell) == ["TrainClassifier", "Reactivate", "ExtractCams"]


@pytest.mark.parametrize("assignment, message", [
    ("sce_wieght=1", "did you mean 'sce_weight'"), ("qqq=1", "'qqq'"), ("epochs", "name=value"),
    ("lr=1", "TrainClassifier.lr and Reactivate.lr"), ("rate=much", "rate.*'much'"),
    ("rate=1e999", "rate.*finite"), ("epochs=2.5", "epochs.*integer.*2.5"), ("detach=5", "detach"),
    ("sizes=1.0", "sizes.*list"), ("sizes=[1, x]", r"sizes\[1\].*'x'"), ("sce_weight=0", "sce_weight"),
    ("sce_weight=nan", "finite"), ("dataset=voc", "'voc12'.*'voc'"), ("profile=a/b", "profile.*'a/b'"),
    ("seeds=[]", "seeds.*at least 1"), ("seeds=[-1]", r"seeds\[0\].*-1"), ("seeds=[0, 0]", "seeds.*once"),
    ("Reactivte.lr=1", "did you mean 'Reactivate'"), ("Walk.steps=4", "'Walk'.*TrainClassifier"),
    ("Reactivate.rl=1", "Reactivate.*did you mean 'lr'"), ("Reactivate.lr=0", "Reactivate.lr.*than 0"),
    ("Reactivate.epochs=2.5", "Reactivate.epochs.*integer"), ("Reactivate.gap=x", "'pixels' or 'mask'"),
    ("ExtractCams.scales=[0]", r"ExtractCams.scales\[0\].*than 0"),
    ("ExtractCams.scales=[]", "ExtractCams.scales.*at least 1"),
    ("TrainClassifier.loss=sce", "'loss'"),  # it is the table's subject
    ("TrainClassifier.seed=3", "'seed'"), ("Reactivate.sce_weight=2", "set sce_weight"),
    ("settings=3", "settings.*dictionary"), ("settings={Reactivate: 3}", "Reactivate.*dictionary"),
])  # fmt: skip
def test_wrong_values_are_refused_in_one_line_that_helps(assignment, message):
    with pytest.raises(SettingsError, match=message) as caught:
        given(assignment)
    assert "\n" not in str(caught.value)


def test_values_come_back_in_the_type_of_the_parameter_and_settings_reach_into_the_cells_own():
    for assignment, value in (
        ("sce_weight=3", 3.0), ("rate=1e-4", 1e-4), ("epochs=3", 3), ("sizes=[1, 0.25]", [1.0, 0.25]),
        ("seeds=[0, 1]", [0, 1]), ("detach=true", True), ("option=w+w'", "w+w'"), ("option=12", "12"),
    ):  # fmt: skip
        (one,) = given(assignment).values()
        assert one == value and type(one) is type(value)
    values = given("Reactivate.lr=5e-2", "ExtractCams.scales=[1, 0.5]", "TrainClassifier.epochs=3")
    assert values == {"settings": {
        "TrainClassifier": {"lr": 0.05, "epochs": 3}, "Reactivate": {"lr": 0.05},
        "ExtractCams": {"scales": [1.0, 0.5]},
    }}  # fmt: skip
    both = given("settings={Reactivate: {lr: 1}}", "Reactivate.epochs=2")["settings"]["Reactivate"]
    assert both == {"lr": 1.0, "epochs": 2}


def test_networks_and_changes_are_checked_as_settings_are():
    assert checked(networks="[deeplabv2]") == {"networks": {"deeplabv2": {}}}
    assert checked(networks={"deeplabv2": {"lr": "1e-3"}}) == {"networks": {"deeplabv2": {"lr": 0.001}}}
    changes = {"x": {"Reactivate": {"lr": 1}}}
    assert checked(changes=changes) == {"changes": changes}
    for name, value, message in (
        ("networks", {"deeplab": {}}, "deeplab"), ("networks", {"deeplabv2": {"seed": 1}}, "'seed'"),
        ("networks", [], "at least 1"), ("networks", ["deeplabv2", "deeplabv2"], "once"),
        ("networks", {"deeplabv2": {"lr": 0}}, "than 0"), ("sweep", ["a"], r"sweep\[0\]"),
        ("changes", {"x": {"Reactivate": {"lr": -1}}}, "changes.x.Reactivate.lr.*than 0"),
        ("backbones", {"resnet18": {"weights": 3}}, "string"),
    ):  # fmt: skip
        with pytest.raises(SettingsError, match=message):
            checked(**{name: value})


@pytest.mark.parametrize("tagged", [0, 1])
def test_a_notebook_has_parameters_that_are_literals(tmp_path, tagged):
    cell = nbformat.v4.new_code_cell("x: int = 1 + y", metadata={"tags": ["parameters"]})
    notebook, metadata = tmp_path / "07_other.ipynb", nbformat.read(PASSES, as_version=4).metadata
    nbformat.write(nbformat.v4.new_notebook(cells=[cell] * tagged, metadata=metadata), notebook)
    with pytest.raises(SettingsError, match="literal" if tagged else "tagged 'parameters'"):
        parameters.read_parameters(notebook)
    notebook.write_text("{")
    with pytest.raises(SettingsError, match="is no notebook"):
        parameters.read_parameters(notebook)


@pytest.mark.parametrize("which, folder, message", [
    ("01_pases", FOLDER, "did you mean '01_passes'"), ("77", FOLDER, "'77'"), ("1", FOLDER / "x", "none"),
])  # fmt: skip
def test_notebooks_are_found_by_number_or_name_and_an_unknown_one_names_the_nearest(which, folder, message):
    for good in ("1", "01", "01_passes", "01_passes.ipynb", str(PASSES)):
        assert parameters.find_notebook(good, FOLDER) == PASSES
    with pytest.raises(SettingsError, match=message):
        parameters.find_notebook(which, folder)


def test_cell_then_profile_then_command_line():
    assert given() == given("epochs=2", "TrainClassifier.lr=0.05") == {}
    assert parameters.list_profiles(FOLDER) == ["smoke", "mini"]
    assert given("rate=0.2", profile="mini") == {
        "profile": "mini", "dataset": "voc12", "rate": 0.2, "sizes": [1.0, 0.5, 1.5],
        "settings": {"TrainClassifier": {"lr": 0.05}, "Reactivate": {"epochs": 3}},
    }  # fmt: skip
    assert parameters.all_parameters("mini", "02", folder=FOLDER) == {"profile": "mini", "seed": 3}
    with pytest.raises(SettingsError, match="did you mean 'mini'"):
        given(profile="mni")


@pytest.mark.parametrize("content, message", [
    ('"01": {epoch: 3}', "did you mean 'epochs'"), ('"01": {seeds: []}', "seeds.*at least 1"),
    ('"01": {settings: {Reactivate: {lr: 0}}}', "Reactivate.lr"), ('"09": {seed: 1}', "'09'"),
    ("parameters: {sede: 1}", "did you mean 'seed'"), ("parameters: {epochs: x}", "epochs.*integer"),
    ("Reactivate: {momentum: 1.5}", "Reactivate.momentum.*less than 1"),
    ("Reactivat: {momentum: 0.5}", "did you mean 'Reactivate'"), ("- a list", "profile odd: "),
    ("parameters: 3", "profile odd: "), ("a: [", "odd.yml cannot be read"),
])  # fmt: skip
def test_profiles_are_checked_too(tmp_path, content, message):
    for notebook in parameters.list_notebooks(FOLDER):
        (tmp_path / notebook.name).write_bytes(notebook.read_bytes())
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "odd.yml").write_text(content)
    with pytest.raises(SettingsError, match=message) as caught:
        given(folder=tmp_path, profile="odd")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("profile", ["voc12", "coco14", "mini"])
@pytest.mark.parametrize("notebook", [path.stem for path in parameters.list_notebooks()])
def test_no_setting_of_the_embedded_scenes_reaches_photographs(profile, notebook):
    own = parameters.read_parameters(parameters.find_notebook(notebook))["settings"].default
    content = yaml.safe_load((ROOT / "notebooks" / "profiles" / f"{profile}.yml").read_text())
    for stage, fields in own.items():
        block = content.get(notebook[:2], {}).get("settings", {}).get(stage, {})
        assert set(fields) <= set(content.get(stage, {})) | set(block), stage
