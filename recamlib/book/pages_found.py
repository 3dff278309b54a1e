"""The page on what was found: an answer per question, its numbers, the runs behind it; no number is typed."""

import functools
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from recamlib.book.costs_found import FULL, cost_parts
from recamlib.book.figures_found import CAPTIONS, NAMES, found_figures
from recamlib.book.found import OPEN, QUESTIONS, Finding, Question, Result, ask, best, opposed
from recamlib.book.pages_trust import markdown_table
from recamlib.book.parameters import profile_parameters
from recamlib.book.scoreboard import part_of
from recamlib.book.sections import command
from recamlib.book.wording import cell_title, in_words
from recamlib.errors import SettingsError
from recamlib.report.claims import RULE, SYNTHETIC
from recamlib.report.compare import html_table, title_of
from recamlib.report.figures import describe, to_svg
from recamlib.report.kept import load_kept, seeds_of, trained_on
from recamlib.report.tables import MARKS, escaped, scoreboard

SIDE = "the interval of the difference lies on the paper's side of zero"


def found_pages(results: Iterable[Result] | None = None) -> dict[str, str]:
    """Return the page's text and figures by their path inside the book.

    Parameters
    ----------
    results
        What it reads, best first; the results kept with the book if not given. Synthetic scenes and classes
        of one's own say nothing about the paper's data and are left out.
    """
    kept = load_kept() if results is None else results
    own = [r for r in kept if r["parameters"]["dataset"] not in SYNTHETIC and "own_classes" not in r]
    whole = [result for result in own if "provisional" not in result]
    figures = found_figures(whole)
    said = {question.name: ask(question, own) for question in QUESTIONS}
    pictures = {name: _picture(name, fig) for name, fig in figures.items()}
    parts = [
        _extent(whole), _summary(said), *(pictures.get(f"differences_{data}", "") for data in NAMES),
        *(_section(question, said[question.name], pictures) for question in QUESTIONS),
        _counted(whole), *cost_parts(own), _runs(own),
    ]  # fmt: skip
    pages = {"found_answers.md": "\n\n".join(filter(None, parts)) + "\n"}
    for name, fig in figures.items():
        pages[f"_static/found_{name}.svg"] = to_svg(fig)
        plt.close(fig)
    return pages


def _extent(results: Sequence[Result]) -> str:
    """Return what the runs with verdicts span: data, backbones, training images, seeds."""
    parts = []
    for data, name in NAMES.items():
        mine = [result for result in results if result["parameters"]["dataset"] == data]
        if mine:
            images = max(map(trained_on, mine))
            backbones = ", ".join(sorted({result["parameters"]["backbone"] for result in mine}))
            low, high = (pick(seeds_of(result) for result in mine) for pick in (min, max))
            seeds = f"{low} to {high} seeds" if low < high else f"{low} seed{'s' if low > 1 else ''}"
            parts.append(
                f"at most {images:,} of the {FULL[data]:,} training images of {name}; {escaped(backbones)}; "
                f"{seeds}"
            )
    usual = _papers("voc12", "02_table1_ablations")["backbone"]
    here = "; ".join(parts) or "none with a verdict yet"
    return f"**The runs here**: {here}. **The paper's**: all training images, {usual}."


def _summary(said: Mapping[str, Sequence[tuple[Result, Sequence[Finding]]]]) -> str:
    """Return the list of all questions: the word, and what it rests on."""
    lines = []
    for question in QUESTIONS:
        found = best(said[question.name])
        word = MARKS[found.answer] if found else _unanswered(said[question.name])
        text = f": {_said(found)}" if found else ""
        lines.append(f"- [{escaped(question.title)}](found-{question.name}) **{word}**{text}")
    return "\n".join(lines)


def _unanswered(said: Sequence[tuple[Result, Sequence[Finding]]]) -> str:
    return "provisional" if any("provisional" in result for result, _ in said) else MARKS["not run"]


def _counted(results: Sequence[Result]) -> str:
    """Return which claims hold, do not hold, cannot be told and were not run, by name."""
    frame = scoreboard(results)
    lines = ["## All claims of the paper", "", RULE, ""]
    for word, mark in MARKS.items():
        names = list(frame.loc[frame["verdict"] == word, "claim"])
        if word in (*OPEN, "entered"):
            counts = pd.Series(map(part_of, names)).value_counts(sort=False)
            text = ", ".join(f"{part} {count}" for part, count in counts.items())
        else:
            text = "; ".join(
                in_words(name) if name.startswith("prose.")
                else f"{part_of(name)}, {cell_title(name)} ({name.rsplit('.', 1)[1]})" for name in names
            )  # fmt: skip
        lines.append(f"- **{mark}** ({len(names)}){': ' * bool(text)}{escaped(text)}")
    return "\n".join([*lines, "", "Each of them, with its number, stands in the [scoreboard](index.md)."])


def _section(question: Question, said: Sequence[tuple[Result, list[Finding]]], pictures: Mapping) -> str:
    """Return one question: the answer, then what every run says, then where to read on."""
    found = best(said)
    lines = [f"(found-{question.name})=", f"## {question.title}", ""]
    if found:
        told = _said(found) if found.images else escaped(found.what)  # a sentence's numbers follow below
        lines += [f"**{MARKS[found.answer]}** · {told}.", ""]
        lines += [f"Another run says the opposite, {escaped(f.here)}: {escaped(title_of(run))}.\n"
                  for run, f in opposed(said)]  # fmt: skip
    else:
        why = "." if said else ": no run of this notebook is kept here."
        lines += [f"**{_unanswered(said)}**{why}", ""]
    lines += [pictures.get(question.name, ""), ""]
    lines += [pictures.get("starts", ""), ""] if question.name == "when" else []
    for result, findings in said:
        lines += [f"*{escaped(title_of(result))}, {escaped(result['provenance']['device'])}*", ""]
        if "provisional" in result:
            lines += [f"Provisional, so without a verdict: {escaped(result['provisional'])}.", ""]
        for finding in (f for f in findings if f.images is None):
            rule = f" *Rule: {escaped(finding.rule)}.*" if finding.rule else ""
            # the answer above has said what it is about
            text = escaped(finding.here) if found and finding.what == found.what else _said(finding)
            lines.append(f"- {MARKS[finding.answer]}: {text}.{rule}")
        table = [f for f in findings if f.images is not None]
        lines += ["", f"{html_table(_frame(table))}\n\n*{_rules(table)}*" if table else "", ""]
    stem = question.notebook
    lines.append(f"Read on: [the section that measures it](notebooks/{stem}), `recam run {stem[:2]}`.")
    return "\n".join(lines)


def _said(finding: Finding) -> str:
    paper = f" (paper: {finding.paper})" if finding.paper else ""
    return f"{escaped(finding.what)}: {escaped(finding.here)}{paper}"


def _mark(finding: Finding) -> str:
    return "" if finding.answer == "reference" else MARKS[finding.answer]


def _rules(findings: Sequence[Finding]) -> str:
    """Return by which rules a table is answered, and what calling every pixel background would score."""
    rules = "; ".join(dict.fromkeys(f.rule or SIDE for f in findings if f.answer not in OPEN))
    floors = ", ".join(dict.fromkeys(f"{f.floor:.1f}" for f in findings if f.floor is not None))
    return f"Rule: {escaped(rules)}." + (f" All pixels called background: mIoU {floors}." if floors else "")


def _frame(findings: Sequence[Finding]) -> pd.DataFrame:
    rows = {
        f.what: {
            "paper": f.paper, "here": f.here, "answer": _mark(f), "mIoU here": f.levels, "images": f.images,
            "seeds": f.seeds,
        }
        for f in findings
    }  # fmt: skip
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame if (frame["paper"] != "").any() else frame.drop(columns="paper")


def deviations(result: Result) -> list[str]:
    """Return how a run's parameters differ from those of the paper's profile for its data set."""
    parameters = result["parameters"]
    usual = _papers(parameters["dataset"], result["notebook"])
    return [f"{name} {parameters[name]} ({value})" for name, value in usual.items()
            if name != "profile" and name in parameters and parameters[name] != value]  # fmt: skip


@functools.cache
def _papers(profile: str, notebook: str) -> Mapping[str, object]:
    """Return the parameters of a profile that stands for the paper; none if there is no such profile."""
    try:
        return profile_parameters(profile, notebook)
    except SettingsError:
        return {}


def _runs(results: Sequence[Result]) -> str:
    """Return the runs that the page rests on, and what sets their settings apart from the paper's."""
    lines = ["## The runs behind this page", ""]
    if not results:
        return "\n".join([*lines, "None is kept with the book yet: `recam run 02 --profile mini`, then "
                                  "`recam keep 02`."])  # fmt: skip
    lines += [
        "One line per file of `book/measured`, nearest to the paper first: by profile, training "
        "images, then seeds. The answer beside a question is that of the first run that gives one.", "",
    ]  # fmt: skip
    rows = []
    for result in results:
        note = ", provisional" if "provisional" in result else ""
        rows.append((result["notebook"], title_of(result) + note, result["provenance"]["commit"]))
    lines.append(markdown_table(("notebook", "run", "commit"), rows))
    apart = [f"- {r['notebook']}, {escaped(r['parameters']['backbone'])}: {escaped(', '.join(found))}"
             for r in results if (found := deviations(r))]  # fmt: skip
    head = ":::{dropdown} How their settings differ from the paper's (in brackets)"
    lines += ["", *([head, *apart, ":::"] if apart else [])]
    again = [f"# {title_of(r)}\n{command(r['notebook'], r['parameters'])}" for r in results]
    lines += ["", ":::{dropdown} The commands that run them again", "```bash", *again, "```", ":::"]
    return "\n".join(lines)


def _picture(name: str, fig: Figure) -> str:
    alt, caption = " ".join(describe(fig).split()), CAPTIONS[name.split("_")[0]]
    return f"```{{figure}} _static/found_{name}.svg\n:alt: {alt}\n{caption}\n```"
