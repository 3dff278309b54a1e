"""Claims, verdicts, scoreboard: every number is read from a result, every rule applied, all text escaped."""

import re

import numpy as np
import pytest
from bs4 import BeautifulSoup
from markdown_it import MarkdownIt

import recamlib as rc
from recamlib.book.scoreboard import scoreboard_page
from recamlib.errors import RecamError
from recamlib.files import write_sealed
from recamlib.report.claims import all_claims, load_paper, table_row
from tests import made_up

pytestmark = pytest.mark.usefixtures("results")
ONE, CLOSE, FAR, WIDE = [50.0, 51.0, 52.0], [50.1, 51.2, 52.1], [40.0, 41.1, 42.0], [40.0, 51.0, 62.0]


def rows(shift=0.0):
    base = [40.0, 41.0, 42.0]
    table = {"bce_only": table_row(base), "sce_only": table_row([35.0, 36.0, 37.5], baseline=base)}
    row = table_row([45.0 + shift, 46.1 + shift, 47.2 + shift], baseline=base, fixed=30.0)
    return table | dict.fromkeys(rc.table1.ROWS.values(), row)


def record(**more):
    found = made_up.result("02_table1_ablations", rows(), seeds=[0, 1, 2])
    return rc.results.record(**(found | {"claims": rc.table1.any_option_beats_cam(rows())} | more))


def test_every_printed_number_is_a_claim():
    claims = {claim.id: claim for claim in all_claims()}
    paper = load_paper()
    cells = sum(len(row["values"]) for row in paper["table1"]["rows"].values())
    for table, count in (("table1", cells), ("table2", 2 * 4 * 4), ("table3", 4 * 8 + 4 * 4)):
        assert sum(name.startswith(f"{table}.") for name in claims) == count
    assert {name[6:] for name in claims if name.startswith("prose.")} == set(paper["prose"])
    assert claims["table3.irn.upernet_recam_val.voc12"].baseline == "table3.irn.upernet_cam_val.voc12"
    assert claims["table4.with_saliency.ReCAM-M.val"].baseline == "table4.with_saliency.EDAM.val"
    assert all(c.baseline in claims for c in claims.values() if c.baseline)


def test_a_result_has_an_address_and_everything_it_rests_on(results):
    path = record()
    result = rc.results.read(path)
    assert path.parent.parent == results / "02_table1_ablations"
    assert {"commit", "device", "versions", "date"} <= set(result["provenance"])
    assert result["parameters"]["seeds"] == [0, 1, 2] and not list(results.rglob("*.part*"))
    assert rc.results.read(results / "02_table1_ablations" / "latest_smoke.json") == result
    with pytest.raises(TypeError, match="a result holds a object"):
        record(odd=object())


def test_verdicts_follow_the_sign_and_the_interval():
    noisy = rows() | {"recam_w": table_row([30.0, 45.0, 50.0], baseline=[40.0, 41.0, 42.0])}
    for table, answer in ((rows(), "holds"), (rows(shift=-12), "does not hold"), (noisy, "cannot tell")):
        assert rc.table1.any_option_beats_cam(table)["prose.any_option_beats_cam"]["verdict"] == answer


@pytest.mark.parametrize("curve, answer", [
    ({"0.5": CLOSE, "1.0": ONE, "2.0": CLOSE}, "holds"), ({"1.0": ONE}, "not run"),
    ({"0.5": FAR, "1.0": ONE, "2.0": CLOSE}, "does not hold"),
    ({"0.5": WIDE, "1.0": ONE, "2.0": CLOSE}, "cannot tell"), ({"1.0": ONE, "2.0": ONE}, "cannot tell"),
])  # fmt: skip
def test_lambda_is_judged_by_equivalence_not_by_lack_of_evidence(curve, answer):
    table = {name: table_row(values) for name, values in curve.items()}
    assert rc.table1.lambda_sweep(table)["prose.lambda_insensitive"]["verdict"] == answer


def test_toy_rules():
    cases = {"c1": (10.0, 10.0), "c2": (-10.0, -10.0)}
    assert {c["verdict"] for c in rc.toy.toy_gradients(cases).values()} == {"holds"}
    swapped = {"c1": cases["c2"], "c2": cases["c1"]}
    assert {c["verdict"] for c in rc.toy.toy_gradients(swapped).values()} == {"does not hold"}
    low, high = {"bce": ONE, "sce": [60.0, 61.5, 62.0]}, {"bce": [60.0, 61.5, 62.0], "sce": ONE}
    study = rc.toy.toy_study(low, {"train": low, "val": high})
    assert study["prose.five_hoofed_bce_weaker"]["verdict"] == "holds"
    assert study["prose.sce_cam_higher_miou"]["verdict"] == "cannot tell"
    # of a pair, gradients are those of the target and of the highest negative
    found = rc.toy.pair_gradients(np.array([[0.0, 9.0, -9.0]]), np.array([[0, 0, 1]]), loss="sce")
    assert found["target"] == pytest.approx(-1, abs=1e-3) and found["confusing"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("times, alone, dataset, answer", [
    (100, 21, "coco14", "holds"), (1, 21, "coco14", "cannot tell"), (100, 26, "coco14", "does not hold"),
    (100, 21, "hoofed", "not run"),
])  # fmt: skip
def test_the_share_of_single_labels(times, alone, dataset, answer):
    labels = np.array([[1, 0]] * alone + [[1, 1]] * (100 - alone)).repeat(times, 0)
    claims = rc.table1.single_label_share(labels, dataset=dataset)
    assert claims["prose.single_label_share_coco"]["verdict"] == answer


def test_the_scoreboard_is_filled_from_results_and_the_rest_is_not_run():
    result = rc.results.read(record())
    board = rc.tables.scoreboard([result]).set_index("claim")
    names = ["table1.recam_w.voc12", "table1.sce_only.voc12"]  # the latter lower, as the paper says
    assert board.loc[names, "verdict"].tolist() == ["holds", "holds"]
    assert board.loc["table1.bce_only.voc12", "verdict"] == "reference"
    assert board.loc[board["data"].str.contains("9 train, 9 scored"), "data"].str.match("synthetic").all()
    page = BeautifulSoup(scoreboard_page([result]), "html.parser")
    cells = page.select("table.paper:not(.sorted) tbody td")
    assert len(page.select("table.sorted tbody tr")) == len(cells)
    assert len(cells) + len(page.select("ul.claims li")) == len(all_claims())
    assert page.find("strong").text == f"{(board['verdict'] != 'not run').sum()} of {len(board)}"
    voc, coco = next(r for r in page.select("tr") if r.th and r.th.text == "ReCAM, w").select("td")
    assert voc.text.split() == ["52.1", "46.1a", "✔", "holds"] and voc["class"] == ["v-holds"]
    assert coco.text.split() == ["34.6", "not", "run"]
    tiny = {"mean": 46.1, "difference": 0.03, "difference_interval": [0.01, 0.05]}  # shown as 0.0
    frame = rc.tables.measured(result | {"rows": result["rows"] | {"bce_longer": tiny}})
    assert frame.loc["ReCAM, w", ["paper", "paper's difference"]].tolist() == pytest.approx([52.1, 3.3])
    names = ["CAM: w of BCE", "SCE only", rc.cells.words("bce_longer")]
    assert frame.loc[names, "verdict"].tolist() == ["", "✔ holds", "? cannot tell"]
    (run,) = page.select("ol.runs li")
    assert run.text.startswith("synthetic scenes")
    assert not re.search(r"[a-z]_[a-z]|table\d\.", page.text.replace(run.text, "")), "a name of our own"


def test_a_run_whose_recipe_failed_carries_no_verdict_and_strings_of_data_stay_strings(results):
    path = results / "02_table1_ablations" / "latest_smoke.json"
    record()
    write_sealed(path, {"provisional": "diverged", **rc.results.read(path)})
    assert not [r for r in rc.results.load_results() if r["images"] == {"train": 9, "scored": 9}]
    nasty = {"prose.any_option_beats_cam": rc.claims.sentence("holds", "<script>|alert(1)</script>")}
    text = rc.tables.discussion(rc.results.read(record(claims=nasty))).data
    assert "<script>" not in text and "&lt;script&gt;\\|alert" in text and "synthetic" in text
    with pytest.raises(RecamError, match="'maybe'"):
        rc.claims.sentence("maybe", "")


@pytest.mark.parametrize("text", [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a | b", "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)", "`code` and ``more``", "*bold* and _slanted_", "$\\frac$",
    "{raw}`<b>x</b>`", "line\nbreak", "\x1b[31mred", "a\u202etxt.exe", "&lt;b&gt;", "</td></table>",
    "```{eval-rst}", "\\| pipe", "~~gone~~", "%s {0} {x!r}", "'quoted' \"twice\"",
])  # fmt: skip
def test_a_cell_shows_the_text_and_nothing_else(text):
    cell, renderer = rc.tables.escaped(text), MarkdownIt("commonmark", {"html": True})
    tokens = renderer.enable(["table", "strikethrough"]).parse(f"| a | b |\n|---|---|\n| {cell} | end |")
    inner = [t for token in tokens if token.type == "inline" for t in token.children]
    assert {t.type for t in inner} <= {"text", "text_special", "softbreak"}
    assert not [t for t in tokens if t.type in ("html_block", "fence", "code_block")]
    plain = "".join(c if c.isprintable() else " " for c in text)
    assert " ".join(t.content for t in inner).split() == ["a", "b", *plain.split(), "end"]
    assert not {"$", "{"} & set(cell), "MyST would read a formula or a role"
