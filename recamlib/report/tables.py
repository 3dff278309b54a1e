"""What notebooks and pages show of a result: verdicts, provenance, scoreboard; no number is typed."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from recamlib.data.access import ImageSet
from recamlib.report.cells import titled, words
from recamlib.report.claims import MARKS, SYNTHETIC, Claim, all_claims, row_verdict, server_numbers
from recamlib.report.results import fixed_features, seeds_of

# the word beside a row of our own, which no number of the paper stands beside
OURS = MARKS | {"holds": "above", "does not hold": "below", "reference": ""}


def describe_data(result: dict[str, Any]) -> str:
    """Return what a result was measured on: data (synthetic or not), backbone, images, seeds."""
    parameters, images = result["parameters"], result["images"]
    counts = ", ".join(f"{number} {name}" for name, number in images.items())
    kind = "synthetic scenes" if parameters["dataset"] in SYNTHETIC else parameters["dataset"]
    if "own_classes" in result:
        kind = f"own data ({', '.join(result['own_classes'])})"
    seeds = seeds_of(result)
    other = parameters.get("settings", {}).get("TrainSegmenter", {}).get("backbone")
    nets = parameters["backbone"] + ", heads on fixed features" * fixed_features(result)
    nets += f", networks on {other}" if other else ""
    return f"{kind}, {nets}, {counts}, {seeds} seed{'s' if seeds > 1 else ''}"


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table as it is displayed: intervals beside their numbers, one decimal, no empty numbers.

    Columns ``X low`` and ``X high`` go into ``X here`` or ``X``, whichever is there: ``54.8 [53.0, 56.1]``.
    """
    text = frame.apply(_column)
    for low in [name for name in frame if name == "low" or name.endswith(" low")]:
        stem, high = low.removesuffix("low").strip(), f"{low.removesuffix('low')}high"
        number = next(name for name in (f"{stem} here".strip(), stem) if name in frame)
        spans = [f" [{a}, {b}]" if a and b else "" for a, b in zip(text[low], text[high])]
        text[number] = [f"{value}{span}" for value, span in zip(text[number], spans)]
        text = text.drop(columns=[low, high])
    return text


def _column(values: pd.Series) -> pd.Series:
    numbers = [v for v in values if isinstance(v, float) and not pd.isna(v)]
    digits = 0 if numbers and all(v.is_integer() and abs(v) >= 10 for v in numbers) else 1

    def cell(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        # no minus before a zero
        return "" if pd.isna(value) else f"{value if abs(value) >= 0.05 else 0.0:.{digits}f}"

    return values.map(cell)


def measured(result: dict[str, Any]) -> pd.DataFrame:
    """Return every number of a result beside the paper's, in percent, with intervals and verdicts."""
    claims = {
        claim.id.partition(".")[2].rpartition(".")[0]: claim for claim in all_claims()
        if not claim.id.startswith("prose.") and row_of(claim, result) is not None
    }  # fmt: skip
    rows = {}
    for name, row in result["rows"].items():
        if "mean" not in row:
            continue
        claim = claims.get(name, Claim(name, ""))
        paper = claim.difference if claim.baseline else None
        low, high = row.get("difference_interval", (None, None))
        own = float(abs(row.get("difference", 0.0)) >= 0.05)  # 0.0 is neither above nor below
        answer, drawn = row_verdict(row, own if paper is None else paper), row.get("difference_over_images")
        rows[words(name)] = {
            "paper": claim.value, "here": row["mean"], "low": row.get("low"), "high": row.get("high"),
            "paper's difference": paper, "difference": row.get("difference"), "difference low": low,
            "difference high": high, "over images": f"[{drawn[0]:+.1f}, {drawn[1]:+.1f}]" if drawn else None,
            "verdict": (OURS if paper is None else MARKS)[answer], "floor": row.get("floor"),
            "convergence": row.get("convergence"), "fixed threshold": row.get("fixed"),
            "best threshold": row.get("best"),
        }  # fmt: skip
    frame = pd.DataFrame.from_dict(rows, orient="index").dropna(axis="columns", how="all").infer_objects()
    return frame.fillna(dict.fromkeys(frame.select_dtypes(object), ""))


def class_frequencies(images: ImageSet) -> pd.DataFrame:
    """Return images per class, alone in their image and in company."""
    labels = images.label_matrix()
    single = labels.sum(1) == 1
    counts = {"alone": labels[single].sum(0), "with others": labels[~single].sum(0)}
    return pd.DataFrame(counts, index=images.space.classes).astype(int)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; cells stand as they are."""
    first, *others = (f"| {' | '.join(row)} |" for row in (head, *rows))
    return "\n".join([first, "|---" * len(head) + "|", *others])


def discussion(result: dict[str, Any]):
    """Return the verdicts of a result and its provenance as a displayable Markdown block."""
    from IPython.display import Markdown

    note = ""
    if result["parameters"]["dataset"] in SYNTHETIC:
        note = "> Measured on **synthetic** scenes: what shows here need not show on photographs.\n\n"
    if not any("per_seed" in row for row in result["rows"].values()):
        note = (
            "> **There are no true masks**, so there is no mIoU and no verdict: look at the pictures, whose "
            "masks are cut at the fixed threshold, and at whether the training has converged.\n\n"
        )
    rows = []
    for name, claim in result.get("claims", {}).items():
        mark = MARKS.get(claim["verdict"]) or escaped(claim["verdict"])
        texts = [escaped(text) for text in (titled(claim["evidence"]), claim["numbers"].get("rule", ""))]
        code = f"`{name}`" if re.fullmatch(r"[\w.+-]+", name, re.ASCII) else escaped(name)
        rows.append([code, mark, *texts])
    where = result["provenance"]
    versions = ", ".join(f"{name} {number}" for name, number in where["versions"].items())
    code = f"commit {where['commit']}, {where['device']}, {versions}, {where['date']}"
    return Markdown(
        note + markdown_table(["claim", "verdict", "evidence", "rule"], rows)
        + f"\n\n*{escaped(describe_data(result))}; {escaped(code)}.*"
    )  # fmt: skip


def answer(claims: dict[str, Any], name: str):
    """Return a verdict, what it rests on and its rule, as displayable Markdown."""
    from IPython.display import Markdown

    if name not in claims:
        return Markdown("*Not run in this profile.*")
    claim = claims[name]
    evidence, rule = escaped(titled(claim["evidence"])), escaped(claim["numbers"].get("rule", ""))
    return Markdown(f"**{MARKS[claim['verdict']]}**: {evidence}. *Rule: {rule}.*")


def escaped(text: Any) -> str:
    """Escape text for Markdown, a table cell too: strings from data stay strings."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    marked = "".join(f"&#{ord(c)};" if c in "\\`*_[]{}$~" else c for c in html.escape(line, quote=False))
    return marked.replace("|", "\\|")


def scoreboard(results: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return paper, best measurement or the server's number, data and verdict of every claim."""
    results = [result for result in results if "own_classes" not in result]
    rows, entered = [], server_numbers()
    for claim in all_claims():
        here, data, answer = first_measured(claim, results) or (None, "", "not run")
        if number := entered.get(claim.id):
            data = f"entered from the server: {number.link}, {number.date}"
            here, answer = round(number.value, 1), "entered"
        rows.append((claim.id, claim.where, claim.value, here, data, answer))
    return pd.DataFrame(rows, columns=["claim", "where", "paper", "here", "data", "verdict"])


def first_measured(claim: Claim, results: Iterable[dict[str, Any]]) -> tuple[Any, str, str] | None:
    """Return number or evidence, data and verdict of a claim in the first result that has it."""
    return next(filter(None, (_measured(claim, result) for result in results)), None)


def _measured(claim: Claim, result: dict[str, Any]) -> tuple[Any, str, str] | None:
    if claim.id.startswith("prose."):
        entry = result.get("claims", {}).get(claim.id)
        if entry is None or entry["verdict"] in ("not run", "not converged"):
            return None
        return entry["evidence"], describe_data(result), entry["verdict"]
    entry = row_of(claim, result)
    if entry is None or "mean" not in entry or entry.get("converged") is False:
        return None
    answer = row_verdict(entry, claim.difference) if claim.baseline else "reference"
    return round(entry["mean"], 1), describe_data(result), answer


def row_of(claim: Claim, result: dict[str, Any]) -> dict[str, Any] | None:
    """Return the row of a result that measures a number of the paper's tables, or None if it has none."""
    table, *row, column = claim.id.split(".")
    # Table 4 is of VOC alone; its test column comes from the server
    known = {"coco14"} if result["parameters"]["dataset"] == "coco14" else {"voc12", "val"}
    if not result["notebook"][3:].startswith(table) or column not in known:
        return None
    return result["rows"].get(".".join(row))
