"""The answer in the first minute: README's table and RESULTS.md, made from what is stored with the book."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recamlib.report.cells import BLOCKS, TABLES, TITLES, laid_out, titled, words
from recamlib.report.claims import MARKS, SYNTHETIC, all_claims, load_paper, row_verdict, signed
from recamlib.report.results import fixed_features, load_measured
from recamlib.report.tables import describe_data, first_measured, markdown_table, measured, shown

BEGIN, END = "<!-- results: made by `recam results` -->", "<!-- end of results -->"
SHOWN = (
    "bce_only", "recam_w", "recam_w_prime", "recam_w_plus_w_prime", "recam_w_times_w_prime",
    "bce_longer (control)", "bce_relu_w (ours)", "bce_w_times_w (ours)", "bce_w_times_random (ours)",
)  # fmt: skip
QUESTIONS = {
    "prose.any_option_beats_cam": "Does every choice of weights beat CAM after reactivation?",
    "ours.gain_is_reactivation": "Is the gain of $w \\otimes w'$ reactivation, not how weights are combined?",
    "prose.lambda_insensitive": "Does lambda matter little?",
    "beyond.changes": "Do FC2's rate, lambda or how features are pooled change what $w \\otimes w'$ gains?",
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
    given = [(run["parameters"]["backbone"], ", heads" * fixed_features(run)) for run in runs]
    names = [f"{backbone}{heads} ({n})" for n, (backbone, heads) in enumerate(given, 1)]
    rows = [[TITLES[row], _paper(row), *(_difference(run["rows"].get(row)) for run in runs)] for row in SHOWN]
    notes = ["The first line is mIoU of pseudo masks, the others are differences to it; intervals, 95 %, are "
             "over seeds, where there is one over images.", ""]  # fmt: skip
    for number, run in enumerate(runs, 1):
        text = run["rows"]["recam_w_times_w_prime"]["convergence"]
        notes.append(f"- ({number}) {describe_data(run)}; converged: {text}.")
    notes += _cost_of_heads(runs)
    table = markdown_table(["Table 1, VOC", "paper, ResNet-50", *names], rows)
    whole = table.replace(", +", ",\u00a0+").replace(", -", ",\u00a0-")  # an interval stays on one line
    return "\n".join([whole, "", *notes, "", _conclusion(runs)])


def _cost_of_heads(runs: Sequence[dict[str, Any]]) -> list[str]:
    cams = {
        (run["parameters"]["backbone"], fixed_features(run)): run["rows"]["bce_only"]["mean"]
        for run in runs if "bce_only" in run["rows"]
    }  # fmt: skip
    return [
        f"- Heads on the fixed features of {name} train in minutes and lose "
        f"{cams[name, False] - cam:.1f} points of CAM: {cam:.1f} instead of {cams[name, False]:.1f}."
        for (name, heads), cam in cams.items() if heads and (name, False) in cams
    ]  # fmt: skip


def _conclusion(runs: Sequence[dict[str, Any]]) -> str:
    chosen, others = "recam_w_times_w_prime", ("recam_w_plus_w_prime", "recam_w_prime")
    ready = [run["rows"] for run in runs if row_verdict(run["rows"][chosen], +1) != "not converged"]
    answers = [row_verdict(rows[chosen], +1) for rows in ready]
    if not ready:
        return "**No classifier of these runs has converged, so that they tell nothing.**"

    def span(*names: str) -> str:
        values = [rows[name]["difference"] for rows in ready for name in names]
        ends = (0.0 if abs(value) < 0.05 else value for value in (min(values), max(values)))
        return " to ".join(dict.fromkeys(f"{value:+.1f}" for value in ends))

    paper = f"{_paper('recam_w')}, {' to '.join(map(_paper, others))} and {_paper(chosen)}"
    raised, lowered = answers.count("holds"), answers.count("does not hold")
    short = {len(ready): "Yes"}.get(raised) or {len(ready): "No"}.get(lowered) or "It depends"
    return (
        f"**Does ReCAM raise the masks of CAM here? {short}: as the paper combines the weights, "
        f"$w \\otimes w'$, it raises them in {raised} and lowers them in {lowered} of {len(ready)} runs.** "
        "On these photographs reactivation changes pseudo masks of "
        f"$w$ by {span('recam_w')} points, of $w'$ and $w + w'$ by {span(*others)}, "
        f"and of the paper's choice, $w \\otimes w'$, by {span(chosen)}, where the paper has {paper}; "
        f"training BCE for as long changes {span('bce_longer (control)')}, and CAM read with "
        f"$\\mathrm{{ReLU}}(w)$, without any reactivation, changes {span('bce_relu_w (ours)')}."
    )


def beside(number: str, result: dict[str, Any] | None = None):
    """Return paper, photographs (stored runs with rows of their own) and a run of a notebook's table."""
    from IPython.display import Markdown

    stored = [run for run in load_measured() if run["notebook"].startswith(number)]
    photos: list[dict[str, Any]] = []
    for run in stored:
        new = run["rows"].keys() - {row for photo in photos for row in photo["rows"]}
        photos += [run] if new and run["parameters"]["dataset"] not in SYNTHETIC else []
    runs = {f"photographs ({n})" if n > 1 else "photographs": run for n, run in enumerate(photos, 1)}
    shown = {name: run for name, run in (runs | {"this run": result}).items() if run}
    told = [] if photos else ["**Photographs**: not measured yet with a converged classifier."]
    told += [f"**{name.capitalize()}**: {describe_data(r)}{_convergence(r)}." for name, r in shown.items()]
    if not shown:
        return Markdown(told[0])
    paper = {
        claim.id.partition(".")[2].rpartition(".")[0]: claim for claim in reversed(all_claims())
        if claim.where == f"Table {int(number) - 1}" and claim.value is not None
    }  # fmt: skip
    rows = dict.fromkeys(row for run in shown.values() for row in run["rows"])
    lines = []
    for row in rows:
        cells = [_cell(run["rows"].get(row, {})) for run in shown.values()]
        change = ": recam_" in row and f"{row.partition(':')[0]}: recam" in rows  # its readings are left out
        if any(cells) and not change:
            claim = paper.get(row)
            value = f"{claim.value:.1f}" if claim else "–"
            value += f" ({claim.difference:+.1f})" if claim and claim.baseline else ""
            lines.append([words(row), value, *cells])
    return Markdown(" ".join(told) + "\n\n" + markdown_table(["", "paper", *shown], lines))


def _convergence(run: dict[str, Any]) -> str:
    told = [r["convergence"] for r in run["rows"].values() if r.get("converged")]
    late = [r["convergence"] for r in run["rows"].values() if r.get("converged") is False]
    if late:
        return "; what has not converged says so" if told else f"; not converged, {late[0]}"
    return f"; converged, {max(told, key=len)}" if told else ""


def _cell(row: dict[str, Any]) -> str:
    if "mean" not in row or "parts" in row:
        return ""
    late = f" not converged: {row['convergence']}" if row.get("converged") is False else ""
    return f"{row['mean']:.1f}" + (f" ({_change(row)})" if "difference" in row else "") + late


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
            f"- {MARKS[claim['verdict']]} on {describe_data(run)}:\n  - "
            + titled(claim["evidence"], TITLES).replace("*", "\\*").replace("; ", "\n  - ")
            for run, claim in judged
        ] or ["- not run"]
        parts.append("")
    for run in results:
        table = shown(measured(run))
        rows = [list(map(str, row)) for row in table.itertuples()]
        title = f"## {run['notebook'][3:].replace('_', ' ')}: {describe_data(run)}\n"
        parts += [title, markdown_table(["row", *table], rows), ""]
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
    if not row or "difference" not in row:
        return f"{row['mean']:.1f}" if row else ""
    return _change(row) + f", not converged: {row.get('convergence')}" * (not row.get("converged", True))


def _change(row: dict[str, Any]) -> str:
    return signed(row["difference"], *row["difference_interval"])


def _paper_tables(results: Sequence[dict[str, Any]]) -> str:
    texts = []
    for claim in all_claims():
        if claim.where.startswith("Table"):
            text = f"{claim.value:.1f}" + (f" ({claim.difference:+.1f})" if claim.baseline else "")
            if found := first_measured(claim, results):
                text += f"; **{found[0]}** {MARKS[found[2]]}"
            texts.append((claim.id, text))
    parts = ["In each cell the paper's number, its difference to its baseline, and the one measured here."]
    for (table, block), frame in laid_out(texts).items():
        lines = [[TITLES.get(name) or words(name), *cells] for name, *cells in frame.itertuples()]
        title = ", ".join(filter(None, (TABLES[table], BLOCKS[block])))
        parts.append(f"### {title}\n\n" + markdown_table(["", *map(words, frame)], lines))
    return "\n\n".join(parts)
