"""The page on what was found: every kind of answer, from results made up for it."""

import json
import re

import matplotlib.pyplot as plt
import pytest

from recamlib import paths
from recamlib.book import costs_found, found, pages_found
from recamlib.book.wording import SAYS, in_words
from recamlib.report.claims import all_claims, table_row
from recamlib.report.kept import best_first, load_kept, load_measured, save_measured
from recamlib.report.plots import set_style
from recamlib.studies.table1 import ROWS, any_option_beats_cam

OPTION = "recam_w_times_w_prime"


@pytest.fixture(autouse=True)
def no_figures(request, monkeypatch):
    """Draw only where a test looks at figures."""
    if "drawn" not in request.node.name:
        monkeypatch.setattr(pages_found, "found_figures", lambda results: {})


def result(notebook="02_table1_ablations", *, shift=5.0, seeds=3, control=0.1, **more):
    """A result of Table 1 on a part of VOC whose reactivated rows lie `shift` above BCE."""
    base = [40.0, 41.0, 42.5][:seeds]
    span = (shift - 1, shift + 1)

    def row(change):
        values = [b + change + 0.1 * i for i, b in enumerate(base)]
        ends = (values[0] - 1, values[0] + 1)
        return table_row(values, baseline=base, interval=ends, difference=span, images=9)

    rows = {"bce_only": table_row(base, interval=(39.0, 41.0), images=9), found.CONTROL: row(control)}
    rows |= {name: row(shift) for name in ROWS.values()}
    parameters = {"profile": "mini", "dataset": "voc12", "backbone": "mobilenet_v2", "crop": 256}
    parameters["seeds"] = list(range(seeds))
    parameters |= {key: more.pop(key) for key in list(more) if key in ("dataset", "backbone", "profile")}
    return {
        "notebook": notebook, "parameters": parameters, "images": {"train": 1000, "scored": 9}, "rows": rows,
        "claims": any_option_beats_cam(rows),
        "provenance": {"date": "2026-01-01", "device": "a cpu", "commit": "abc"},
        **more,
    }  # fmt: skip


def refined(**rows):
    """A result of Table 2 with these rows."""
    return result("03_table2_refinement", claims={}) | {"rows": rows}


def page(*results):
    return pages_found.found_pages(list(results))["found_answers.md"]


def section(text, name):
    """The part of the page on one question."""
    return text.split(f"(found-{name})=")[1].split("\n## ")[1]


@pytest.mark.parametrize(
    ("shift", "word"), [(5.0, "✔ holds"), (-5.0, "✘ does not hold")], ids=["above", "below"]
)
def test_the_word_beside_a_question_follows_its_interval(shift, word):
    text = page(result(shift=shift))
    for name in ("maps", "control"):
        assert f"**{word}**" in section(text, name)
        assert re.search(rf"\(found-{name}\) \*\*{word}\*\*", text)
    assert f"{shift + 0.1:+.1f}" in section(text, "maps") and "+6.0" in section(text, "maps")
    assert "**not run**: no run of this notebook" in section(text, "when")


def test_an_interval_over_zero_cannot_tell():
    rows = result(seeds=1, shift=0.0)["rows"]
    text = page(result(seeds=1, shift=0.0, claims=any_option_beats_cam(rows)))
    assert "**? cannot tell**" in section(text, "maps") and "[-1.0, +1.0]" in section(text, "maps").replace(
        "&#91;", "["
    ).replace("&#93;", "]")
    assert "**? cannot tell**" in section(text, "control")


def test_the_control_is_compared_with_directly_and_shown():
    text = section(page(result(shift=5.0, control=5.0)), "control")
    assert "**? cannot tell**" in text or "✔" not in text
    assert "longer BCE, over BCE" in text and "without the softmax loss" in text
    question = next(q for q in found.QUESTIONS if q.name == "control")
    (_, voc), (_, coco) = found.ask(question, [result(), result(dataset="coco14")])
    assert voc[0].what.startswith("ReCAM read with w * w'")  # the options that the paper reports
    assert coco[0].what.startswith("ReCAM read with w,")


def test_a_provisional_result_is_named_and_carries_no_verdict():
    text = page(result(provisional="too few_steps"))
    part = section(text, "maps")
    assert "**provisional**" in part and "too few&#95;steps" in part
    assert "✔ holds:" not in part and "<table" not in part
    assert "- **✔ holds** (0)" in text and "not run (0)" not in text
    whole = page(result(provisional="too few steps"), result(shift=-5.0))
    assert "**✘ does not hold**" in section(whole, "maps") and "too few steps" in section(whole, "maps")


def test_without_results_everything_is_not_run_and_costs_are_the_papers():
    text = page()
    assert all("**not run**" in section(text, question.name) for question in found.QUESTIONS)
    assert "none with a verdict yet" in text and "recam keep" in text
    assert "| AdvCAM, CAM | 221 h (9.2 days) | 1,634 h (68.1 days) |" in text and "scaled" not in text


def test_synthetic_scenes_and_own_classes_do_not_answer_for_photographs():
    synthetic, own = result(dataset="hoofed"), result(own_classes=["ring"])
    assert page(synthetic, own) == page()


def test_runs_on_other_data_are_kept_beside_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "book_dir", lambda: tmp_path)
    runs = [result(), result(dataset="coco14"), result(backbone="timm/vit"), result(), result()]
    runs[-1]["parameters"]["methods"] = ["advcam", "advcam_irn"]
    for run, part in zip(runs, (0, 0, 0, 600, 600)):
        run["parameters"]["train_images"] = part
        assert json.loads(save_measured(run).read_text()) == run
    assert len(list((tmp_path / "measured").glob("*.json"))) == len(runs) == len(load_kept())


def test_a_network_that_the_table_does_not_have_answers_too():
    up = table_row([20.0], baseline=[18.0], interval=(19.0, 21.0), difference=(1.0, 3.0), images=9)
    rows = {"irn.deeplabv3plus_recam_val": up, "irn.deeplabv2_recam_val": up}
    nets = result("04_table3_segmentation", claims={}) | {"rows": rows}
    own, theirs = sorted(found._networks(nets), key=lambda finding: finding.paper)
    assert own.what == "ReCAM over CAM, IRN, DeepLabV3+" and own.answer == "holds"
    assert not own.paper and "does not have" in own.rule
    assert theirs.what == "ReCAM over CAM, IRN, DeepLabV2" and theirs.paper


def test_the_run_nearest_to_the_paper_answers_and_the_opposite_is_said():
    near, far = result(shift=5.0, profile="voc12", backbone="resnet50"), result(shift=-5.0)
    assert best_first([far, near]) == [near, far]
    assert best_first([result(seeds=1), far])[0] is far  # more seeds first
    few = result(seeds=3) | {"images": {"train": 100, "scored": 9}}
    assert best_first([few, result(seeds=1)])[-1] is few  # but more images before them
    text = section(page(near, far), "maps")
    assert text.index("*voc12: voc12, resnet50") < text.index("*mini: voc12, mobilenet&#95;v2")
    assert "**✔ holds**" in text and "Another run says the opposite" in text
    assert "opposite" not in section(page(near), "maps")


def test_irn_is_compared_only_on_the_same_images():
    plain, walked = ([40.0, 41.0, 42.0], [48.0, 49.5, 50.5])
    rows = {"none.cam_miou": table_row(plain, images=9), "irn.cam_miou": table_row(walked, images=9)}
    text = section(page(refined(**rows)), "irn")
    assert "**✔ holds** · IRN raises the mIoU of CAM" in text and "+17.5" in text
    rows["irn.cam_miou"] = table_row(walked, images=5)
    assert "IRN raises" not in section(page(refined(**rows)), "irn")


def test_table4_falls_back_on_pseudo_masks_and_says_so():
    base = [30.0, 31.0, 32.0]
    rows = {"none.eps": table_row(base, images=9),
            "none.recam_e": table_row([33.0, 34.1, 35.0], baseline=base, images=9),
            "saliency": {"mean": 26.0, "images": 9}}  # fmt: skip
    masks = result("05_table4_saliency", claims={}) | {"rows": rows}
    text = section(page(masks), "saliency")
    assert "**✔ holds** · masks of ReCAM-E are better than those of EPS" in text
    assert "pseudo masks, which Table 4 does not show" in text


def test_the_study_of_the_sign_is_drawn_and_told():
    level = {"mean": 1.0, "difference": 1.0, "low": 0.5, "high": 1.5, "images low": 0.2, "images high": 1.8,
             "false_positives": 0.1, "false_negatives": -0.2, "factor": "centre", "sign": "raises",
             "change": None}  # fmt: skip
    rows = {"sign: centre": level, "sign: rate five times": level | {"sign": "cannot tell", "change": 0.1}}
    told = {"verdict": "cannot tell", "evidence": "two levels", "numbers": {"rule": "a rule"}}
    claims = {"beyond.sign": told}
    pages = pages_found.found_pages([result("06_beyond", claims=claims) | {"rows": rows}])
    text = section(pages["found_answers.md"], "when")
    assert "**? cannot tell** · a factor decides" in text and "two levels. *Rule: a rule.*" in text
    assert "rate five times" in pages["_static/found_when.svg"] and "{figure} _static/found_when.svg" in text


def test_differences_are_drawn_with_every_run_and_what_was_not_run():
    pages = pages_found.found_pages([result(), result(backbone="densenet169"), result(dataset="coco14")])
    picture = pages["_static/found_differences_voc12.svg"]
    assert all(text in picture for text in ("mini, densenet169", "ReCAM read with w", "not run"))
    assert "_static/found_differences_coco14.svg" in pages and "MS COCO 2014" in pages["found_answers.md"]
    assert not [name for name in pages_found.found_pages([]) if name.endswith(".svg")]


def test_costs_are_scaled_by_images_and_say_so():
    row = {"mean": 1.0, "seconds": 3600.0, "seeds": 1}
    timed = refined(**{cell: dict(row) for cell in costs_found.CELLS})
    text = page(timed)
    assert "here, 1,000 images" in text and "scaled to the 10,582 of voc12" in text
    assert "| no refinement, CAM | 0.70 h | 5.40 h | 1.00 h | 11 h | 83 h (3.4 days) |" in text
    assert "arithmetic and not a measurement" in text
    cost = {"cost": {"train_seconds": 100.0}, "mean": 9.0}
    nets = result("04_table3_segmentation", provisional="unfit") | {"rows": {"none.deeplabv2_cam_val": cost}}
    nets["parameters"] |= {"archs": ["deeplabv2"], "segment_steps": 200}
    assert "| 200 | 0.50 s | 20,000 | 2.78 h |" in page(nets)


def test_settings_that_differ_from_the_papers_are_named():
    text = page(result())
    assert "crop 256 (512)" in text and "backbone mobilenet&#95;v2 (resnet50)" in text
    assert pages_found.deviations(result(dataset="nowhere")) == []


def test_every_claim_is_counted_and_every_sentence_has_words():
    prose = [claim.id for claim in all_claims() if claim.id.startswith("prose.")]
    assert {name.removeprefix("prose.") for name in prose} == SAYS.keys()
    assert all(in_words(name)[-1] == ")" for name in prose)
    counts = re.findall(r"^- \*\*.*?\*\* \((\d+)\)", page(result()), flags=re.MULTILINE)
    assert sum(map(int, counts)) == len(all_claims())


def test_what_is_kept_is_drawn_in_the_style_of_notebooks():
    with plt.rc_context():  # the style stays set for whatever is drawn later in the same process
        set_style()
        assert "_static/found_differences_voc12.svg" in pages_found.found_pages()


def test_the_page_of_what_is_kept_names_every_run():
    text = pages_found.found_pages()["found_answers.md"]
    for kept in load_kept():
        assert kept["provenance"]["commit"] in text
    assert load_measured() == [r for r in load_kept() if "provisional" not in r]


def test_levels_stand_beside_differences_and_a_row_on_the_floor_tells_nothing():
    def rows(floor):
        cam = table_row([3.0, 3.2, 3.4], images=9, floor=floor)
        recam = table_row([5.0, 5.3, 5.2], baseline=[3.0, 3.2, 3.4], images=9, floor=floor)
        return {"none.cam_miou": cam, "none.recam_miou": recam}

    above, below = (section(page(refined(**rows(floor))), "irn") for floor in (2.5, 6.0))
    assert "3.2 → 5.2" in above and "All pixels called background: mIoU 2.5." in above
    assert "✔ holds" in above
    assert "✔ holds" not in below and "? cannot tell" in below
