"""What was found: the questions a reader has, and what each kept result says to them, by the stated rules."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recamlib.book.wording import BEYOND, cell_title, in_words, named
from recamlib.report.claims import all_claims, load_paper, paper_difference, paper_value, row_verdict
from recamlib.report.compare import interval_of_change
from recamlib.report.tables import row_of
from recamlib.studies import table4 as guidance
from recamlib.studies.reading import signed
from recamlib.studies.table1 import ROWS

Result = Mapping[str, Any]
CONTROL = "bce_longer (control)"
LONGER = "; longer BCE is trained on for as many epochs, without the softmax loss"
OPEN = ("not run", "reference")  # words that answer nothing


@dataclass(frozen=True)
class Finding:
    """One thing that one run tested: what, the answer by a rule, the numbers here and the paper's.

    ``rule`` is empty where it is the scoreboard's, ``images`` and ``seeds`` where the numbers name their own.
    ``levels`` are the two mIoU whose difference ``here`` is, ``floor`` that of calling all pixels background
    (None where it was not recorded).
    """

    what: str
    answer: str
    here: str
    paper: str = ""
    rule: str = ""
    images: int | None = None
    seeds: int | None = None
    levels: str = ""
    floor: float | None = None


@dataclass(frozen=True)
class Question:
    """What a reader wants to know, which notebook measures it, and how its results are read for it."""

    name: str
    title: str
    notebook: str
    read: Callable[[Result], list[Finding]]


def sentences(result: Result, names: Iterable[str]) -> list[Finding]:
    """Return the claims made in sentences, among some, that a result has judged."""
    return _judged(result, {name: in_words(name) for name in names})


def _judged(result: Result, words: Mapping[str, str]) -> list[Finding]:
    """Return those of some claims, name to words, that a result has judged."""
    return [
        Finding(what, entry["verdict"], named(entry["evidence"]), rule=entry["numbers"].get("rule", ""))
        for name, what in words.items()
        if (entry := result.get("claims", {}).get(name))
    ]


def cells(result: Result, table: str, rows: Sequence[str] = ("",)) -> list[Finding]:
    """Return the differences of one table's cells to their baselines, of the rows that begin as named."""
    found = []
    for claim in all_claims():
        row = claim.baseline and claim.id.startswith(f"{table}.") and row_of(claim, result)
        if row and "difference" in row and claim.id.split(".", 1)[1].startswith(tuple(rows)):
            paper = paper_difference(claim)
            found.append(_finding(cell_title(claim.id), row_verdict(row, paper), row, paper=f"{paper:+.1f}"))
    return found


def contrast(
    result: Result, name: str, base: str, *, what: str, paper: float | None = None, note: str = ""
) -> list[Finding]:
    """Return by how much one row lies above another one on the same images; nothing if there is no such pair.

    Seeds are pairs; with one seed the rows' intervals over images are added as squares, which errs towards
    "cannot tell".
    """
    row, other = (result["rows"].get(key) for key in (name, base))
    if not row or not other or row.get("images") != other.get("images"):
        return []
    change = {
        "difference": row["mean"] - other["mean"],
        "difference_interval": interval_of_change(other, row, paired=True),
    }
    rule = f"the interval of the difference lies above zero{note}"
    said = "" if paper is None else f"{paper:+.1f}"
    return [_finding(what, row_verdict(row | change, +1), row | change, paper=said, rule=rule)]


def _finding(what: str, answer: str, row: Mapping[str, Any], **more: str) -> Finding:
    """Return what a row says of its difference to its baseline."""
    return Finding(
        what, answer, span(row["difference"], row["difference_interval"]), images=row.get("images"),
        seeds=row.get("seeds"), levels=f"{row['mean'] - row['difference']:.1f} → {row['mean']:.1f}",
        floor=row.get("floor"), **more,
    )  # fmt: skip


def span(value: float, ends: Sequence[float | None]) -> str:
    """Return a difference with its interval.

    Examples
    --------
    >>> span(-1.25, [-2.0, -0.5]), span(3.0, [None, None])
    ('-1.2 [-2.0, -0.5]', '+3.0 (one seed)')
    """
    return signed(value, *(np.nan if end is None else end for end in ends))


def _maps(result: Result) -> list[Finding]:
    return sentences(result, ["prose.any_option_beats_cam"]) + cells(result, "table1")


def _control(result: Result) -> list[Finding]:
    found, control = [], result["rows"].get(CONTROL, {})
    for name in sorted(ROWS.values(), key=lambda row: row != reported(result)):
        title = cell_title(f"table1.{name}.voc12")
        found += contrast(result, name, CONTROL, what=f"{title}, over longer BCE", note=LONGER)
    if found and "difference" in control:
        found.append(_finding("longer BCE, over BCE", "reference", control))
    return found


def reported(result: Result) -> str:
    """Return the row of Table 1 whose weight option the paper reports on a result's data set."""
    column = int(result["parameters"]["dataset"] == "coco14")
    rows = load_paper()["table1"]["rows"]
    return next(name for name, row in rows.items() if row.get("reported", [0, 0])[column])


def _irn(result: Result) -> list[Finding]:
    data = "coco14" if result["parameters"]["dataset"] == "coco14" else "voc12"
    found = []
    for kind, title in (("cam", "CAM"), ("recam", "ReCAM")):
        after, before = (f"{method}.{kind}_miou" for method in ("irn", "none"))
        paper = paper_value(f"table2.{after}.{data}") - paper_value(f"table2.{before}.{data}")
        found += contrast(result, after, before, what=f"IRN raises the mIoU of {title}", paper=paper)
    return found + cells(result, "table2", ["none", "irn"])


def _advcam(result: Result) -> list[Finding]:
    names = ["prose.recam_vs_advcam_speed", "prose.recam_extra_hours_voc"]
    return sentences(result, names) + cells(result, "table2", ["advcam"])


def _kinds(result: Result) -> list[Finding]:
    return sentences(result, ["prose.single_and_multi_label"])


def _lambda(result: Result) -> list[Finding]:
    return sentences(result, ["prose.lambda_insensitive"])


def _hoofed(result: Result) -> list[Finding]:
    names = ("sce_cam_higher_miou", "five_hoofed_bce_weaker", "gradients_c1", "gradients_c2")
    return sentences(result, [f"prose.{name}" for name in names])


def _share(result: Result) -> list[Finding]:
    return sentences(result, ["prose.single_label_share_coco"])


def _networks(result: Result) -> list[Finding]:
    found, paper = cells(result, "table3"), {claim.id.rpartition(".")[0] for claim in all_claims()}
    for name, row in result["rows"].items():  # DeepLabV3+ has no numbers in the paper's table
        if "difference" in row and f"table3.{name}" not in paper:
            rule = "the interval of the difference lies above zero; a network that Table 3 does not have"
            found.append(_finding(cell_title(f"table3.{name}"), row_verdict(row, +1), row, rule=rule))
    return found + sentences(result, ["prose.larger_margin_on_stronger"])


def _saliency(result: Result) -> list[Finding]:
    found = cells(result, "table4")
    systems = [row for row in result["rows"] if "." in row]  # the saliency's own row has no method
    for row, partner in guidance.partners(systems).items():
        entry = result["rows"][row]
        if "difference" in entry:
            what = f"masks of {guidance.title(row)} are better than those of {guidance.title(partner)}"
            rule = "the interval of the difference lies above zero; pseudo masks, which Table 4 does not show"
            found.append(_finding(what, row_verdict(entry, +1), entry, rule=rule))
    return found


def _beyond(result: Result) -> list[Finding]:
    return _judged(result, {f"beyond.{name}": what for name, what in BEYOND.items()})


QUESTIONS = (
    Question("maps", "Does reactivation raise the mIoU of the maps?", "02_table1_ablations", _maps),
    Question("control", "Does it gain more than the same extra training?", "02_table1_ablations", _control),
    Question("kinds", "On images with one class and with several?", "03_table2_refinement", _kinds),
    Question("lambda", "Does the weight of the softmax loss matter little?", "02_table1_ablations", _lambda),
    Question("irn", "Does IRN help?", "03_table2_refinement", _irn),
    Question("advcam", "What does AdvCAM cost against ReCAM?", "03_table2_refinement", _advcam),
    Question("hoofed", "BCE or SCE on horse, cow and sheep?", "01_toy_hoofed", _hoofed),
    Question("networks", "Does segmentation keep the difference?", "04_table3_segmentation", _networks),
    Question("saliency", "Does it add to saliency (Table 4)?", "05_table4_saliency", _saliency),
    Question("share", "Do few images of COCO show one class alone?", "02_table1_ablations", _share),
    Question("when", "When does reactivation help?", "06_beyond", _beyond),
)


def ask(question: Question, results: Iterable[Result]) -> list[tuple[Result, list[Finding]]]:
    """Return what each result of the question's notebook says, in order; a provisional one nothing."""
    return [
        (result, [] if "provisional" in result else question.read(result))
        for result in results
        if result["notebook"] == question.notebook
    ]


def best(said: Sequence[tuple[Result, Sequence[Finding]]]) -> Finding | None:
    """Return the first finding with an answer, or None: its word stands beside the question."""
    return next((f for _, findings in said for f in findings if f.answer not in OPEN), None)


def opposed(said: Sequence[tuple[Result, Sequence[Finding]]]) -> list[tuple[Result, Finding]]:
    """Return where another run says the opposite of the finding whose word stands beside the question."""
    first = best(said)
    other = {"holds": "does not hold", "does not hold": "holds"}.get(first.answer if first else "")
    return [(r, f) for r, findings in said for f in findings if f.what == first.what and f.answer == other]
