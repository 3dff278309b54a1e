"""The answer in the first minute: README's table and RESULTS.md, made from what is stored with the book."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recamlib.report.claims import all_claims, load_paper, paper_difference, row_verdict
from recamlib.report.results import load_measured
from recamlib.report.tables import MARKS, describe_data, first_measured, markdown_table

BEGIN, END = "<!-- results: made by `recam results` -->", "<!-- end of results -->"
TITLES = {
    "bce_only": "CAM: $w$ of BCE", "sce_only": "SCE only", "sce_single_only": "SCE for single-label images",
    "recam_w": "ReCAM, $w$", "recam_w_prime": "ReCAM, $w'$", "recam_w_plus_w_prime": "ReCAM, $w + w'$",
    "recam_w_times_w_prime": "ReCAM, $w \\otimes w'$", "bce_longer (control)": "control: BCE for as long",
    "bce_relu_w (ours)": "CAM, $\\mathrm{ReLU}(w)$, ours",
    "bce_w_times_w (ours)": "CAM, $w \\otimes w$, ours",
    "bce_w_times_random (ours)": "CAM, $w \\otimes$ random, ours",
    "recam_relu_w (ours)": "ReCAM, $\\mathrm{ReLU}(w)$, ours",
    "recam_w_times_w (ours)": "ReCAM, $w \\otimes w$, ours",
    "recam_w_times_random (ours)": "ReCAM, $w \\otimes$ random, ours",
    "recam_relu_w_times_relu_w_prime (ours)":
        "ReCAM, $\\mathrm{ReLU}(w) \\otimes \\mathrm{ReLU}(w')$, ours",
}  # fmt: skip
SHOWN = (
    "bce_only", "recam_w", "recam_w_prime", "recam_w_plus_w_prime", "recam_w_times_w_prime",
    "bce_longer (control)", "bce_relu_w (ours)", "bce_w_times_w (ours)", "bce_w_times_random (ours)",
)  # fmt: skip
QUESTIONS = {
    "prose.any_option_beats_cam": "Does every choice of weights beat CAM after reactivation?",
    "ours.gain_is_reactivation": "Is the gain of $w \\otimes w'$ reactivation, not how weights are combined?",
    "prose.lambda_insensitive": "Does lambda matter little?",
    "prose.single_and_multi_label": "Do images of one class and of several both gain?",
    "prose.larger_margin_on_stronger": "Is the margin larger on the stronger segmentation network?",
    "prose.five_hoofed_bce_weaker": "Does BCE confuse hoofed animals more than SCE?",
}


def readme_table(results: Sequence[dict[str, Any]]) -> str:
    """Return README's table: the paper, a column a run, and under it what each was measured on."""
    runs = [
        run for run in results
        if run["notebook"].startswith("02") and run["parameters"]["dataset"] == "voc12"
        and not run["parameters"].get("sweep")
    ]  # fmt: skip
    if not runs:
        return "Nothing is stored yet."
    names = [f"{run['parameters']['backbone']} ({n})" for n, run in enumerate(runs, 1)]
    rows = [[TITLES[row], _paper(row), *(_difference(run["rows"].get(row)) for run in runs)] for row in SHOWN]
    notes = ["The first line is mIoU of pseudo masks, the others are differences to it; intervals, 95 %, are "
             "over seeds."]  # fmt: skip
    for number, run in enumerate(runs, 1):
        text = run["rows"]["recam_w_times_w_prime"]["convergence"]
        notes.append(f"({number}) {describe_data(run)}; converged: {text}.")
    table = markdown_table(["Table 1, VOC", "paper, ResNet-50", *names], rows)
    return table + "\n\n" + "\n".join(notes)


def results_page(results: Sequence[dict[str, Any]]) -> str:
    """Return RESULTS.md: the questions people ask, every stored table, and the paper's tables."""
    parts = [
        "# Results\n",
        "Made by `recam results` from `book/measured`; every number has its settings, seeds, commit, "
        "versions and date there. mIoU in percent, intervals 95 % over seeds (over images where there is one "
        "seed). With heads on fixed features a seed changes FC1, FC2 and the order of images alone; "
        "the column over images, of the first seed, tells what other images would change. What has not "
        "converged has no verdict; the book's page on the method says what that means.\n",
        "## Questions\n",
    ]
    for name, question in QUESTIONS.items():
        claims = [(run, run["claims"][name]) for run in results if name in run.get("claims", {})]
        judged = [(r, claim) for r, claim in claims if claim["verdict"] not in ("not run", "not converged")]
        parts.append(f"**{question}**\n")
        parts += [
            f"- {MARKS[claim['verdict']]} on {describe_data(run)}: {claim['evidence']}."
            for run, claim in judged
        ] or ["- not run"]
        parts.append("")
    for run in results:
        parts += [f"## {run['notebook'][3:].replace('_', ' ')}: {describe_data(run)}\n", _rows(run), ""]
    parts += ["## The paper's tables\n", _paper_tables(results)]
    return "\n".join(parts) + "\n"


def write_results(root: Path) -> list[Path]:
    """Write RESULTS.md, and README's table between its marks; return both paths."""
    results = load_measured()
    page, readme = root / "RESULTS.md", root / "README.md"
    page.write_text(results_page(results), encoding="utf-8")
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    readme.write_text(f"{before}{BEGIN}\n{readme_table(results)}\n{END}{after}", encoding="utf-8")
    return [page, readme]


def _paper(row: str) -> str:
    cells = load_paper()["table1"]["rows"]
    if row not in cells:
        return "–"
    value, base = cells[row]["values"][0], cells["bce_only"]["values"][0]
    return f"{value}" if row == "bce_only" else f"{value - base:+.1f}"


def _difference(row: dict[str, Any] | None) -> str:
    """Return a row's difference with its interval, or its mIoU; without a verdict, why."""
    if row is None:
        return ""
    if "difference" not in row:
        return f"{row['mean']:.1f}"
    low, high = row["difference_interval"]
    text = f"{row['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    return text if row.get("converged", True) else f"{text}, not converged: {row['convergence']}"


def _rows(run: dict[str, Any]) -> str:
    """Return every row of a run that is a mIoU."""
    rows = []
    for name, row in run["rows"].items():
        if "mean" not in row or "parts" in row:
            continue
        span = "" if row["low"] is None else f" [{row['low']:.1f}, {row['high']:.1f}]"
        drawn = row.get("difference_over_images")
        rows.append([
            TITLES.get(name, name), f"{row['mean']:.1f}{span}",
            _difference(row) if "difference" in row else "",
            f"[{drawn[0]:+.1f}, {drawn[1]:+.1f}]" if drawn else "", MARKS[row_verdict(row, +1)],
            f"{row['floor']:.1f}" if "floor" in row else "", row.get("convergence", ""),
        ])  # fmt: skip
    head = ["row", "mIoU", "difference", "over images", "verdict", "floor", "convergence"]
    return markdown_table(head, rows)


def _paper_tables(results: Sequence[dict[str, Any]]) -> str:
    """Return every cell of the paper's tables with what was measured of it, one line a cell."""
    tables: dict[str, list[list[str]]] = {}
    for claim in all_claims():
        if claim.value is not None:
            here, _, answer = first_measured(claim, results) or ("", "", "not run")
            paper = f"{claim.value}" + (f" ({paper_difference(claim):+.1f})" if claim.baseline else "")
            cell = claim.id.partition(".")[2].replace("_", " ")
            tables.setdefault(claim.where, []).append([cell, paper, str(here), MARKS[answer]])
    head = ["cell", "paper", "here", "verdict"]
    return "\n".join(f"\n### {where}\n\n{markdown_table(head, rows)}" for where, rows in tables.items())
