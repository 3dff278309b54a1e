"""Read a notebook's ``parameters`` cell, and check values against it before a kernel starts.

The cell holds one annotated literal per line, its comment says what it is, and a bracket that ends the
comment gives what is allowed::

    sce_weight: float = 1.0     # lambda of the joint loss [0 .. 10]
    rate: float = 0.1           # learning rate of FC1 [> 0]
    epochs: int = 4             # passes over the training split [1 ..]
    dataset: str = "hoofed"     # where images come from [hoofed | voc12 | coco14]

papermill itself only warns about a misspelt name; here it is an error that names the nearest one.
"""

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recamlib.errors import SettingsError, nearest

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_BOUND = re.compile(rf"(>=|<=|>|<)\s*({_NUMBER})")
_SPAN = re.compile(rf"({_NUMBER})?\s*\.\.\s*({_NUMBER})?")
# What the parser raises for text that is no literal, or one that is nested too deep.
_NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
_SCALARS: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str, "None": type(None)}


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell.

    Attributes
    ----------
    name, annotation, default, comment
        As written; the comment without its bracket.
    bracket
        What the bracket says, without the brackets, or an empty string: shown to people.
    choices
        Allowed values as text, empty if any are.
    bounds
        Pairs such as ``(">", 0.0)`` that a number (or every number of a list) has to satisfy.
    """

    name: str
    annotation: str
    default: Any
    comment: str = ""
    bracket: str = ""
    choices: tuple[str, ...] = ()
    bounds: tuple[tuple[str, float], ...] = ()


def read_parameters(notebook: Path) -> dict[str, Parameter]:
    """Return the parameters of a notebook by name, in the order of the cell.

    Raises
    ------
    SettingsError
        If the notebook has no cell tagged ``parameters`` (or several), or a line of it is not an annotated
        literal.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        sources = ["".join(cell["source"]) for cell in tagged]
    except (OSError, *_NO_LITERAL, LookupError, AttributeError) as error:
        raise SettingsError(f"{notebook} is no notebook ({error!r})") from None
    if len(sources) != 1:
        raise SettingsError(f"{notebook.name} needs exactly one cell tagged 'parameters', not {len(sources)}")
    return parse_cell(sources[0], where=notebook.name)


def parse_cell(source: str, *, where: str = "the parameters cell") -> dict[str, Parameter]:
    """Return the parameters that a cell's source defines.

    Raises
    ------
    SettingsError
        Naming the line that is not ``name: type = literal``, or whose type is not understood.

    Examples
    --------
    >>> found = parse_cell("rate: float = 0.1  # learning rate [> 0]")["rate"]
    >>> found.default, found.comment, found.bounds
    (0.1, 'learning rate', (('>', 0.0),))
    """
    try:
        tree, comments = ast.parse(source), _comments(source)
    except (*_NO_LITERAL, tokenize.TokenError) as error:
        raise SettingsError(f"{where}: the parameters cell is not Python: {error}") from error
    found: dict[str, Parameter] = {}
    for node in tree.body:
        line = ast.get_source_segment(source, node)
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value):
            raise SettingsError(f"{where}: a parameter is written 'name: type = literal', not {line!r}")
        try:
            default = ast.literal_eval(node.value)
        except _NO_LITERAL as error:
            raise SettingsError(f"{where}: a default has to be a literal, not as in {line!r}") from error
        comment, bracket = _split_bracket(comments.get(node.end_lineno or 0, ""))
        choices, bounds = _parse_bracket(bracket)
        found[node.target.id] = Parameter(
            node.target.id, ast.unparse(node.annotation), default, comment, bracket, choices, bounds
        )
    return found


def check_parameters(notebook: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` in the types of the notebook's parameters, or say what is wrong with it.

    Text is read in the parameter's own type, so ``"1e-4"`` is a number where a number is wanted (YAML and the
    command line both hand it over as text).

    Raises
    ------
    SettingsError
        For a name the notebook does not have (naming the nearest), a value of another type, or one outside
        the range or the choices.
    """
    parameters = read_parameters(notebook)
    checked = {}
    for name, value in given.items():
        if name not in parameters:
            hint = nearest(name, parameters) or f"; it has {', '.join(parameters)}"
            raise SettingsError(f"{notebook.stem} has no parameter {name!r}{hint}")
        checked[name] = check_value(parameters[name], value)
    return checked


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """Return ``name=value`` texts as a dictionary of texts.

    Raises
    ------
    SettingsError
        For a text without ``=``.

    Examples
    --------
    >>> parse_assignments(["rate=0.1", "weights=w=w'"])
    {'rate': '0.1', 'weights': "w=w'"}
    """
    for text in assignments:
        if not text.partition("=")[0].strip() or "=" not in text:
            raise SettingsError(f"-p takes name=value, not {text!r}")
    return {name.strip(): value for name, _, value in (text.partition("=") for text in assignments)}


def check_value(parameter: Parameter, value: Any) -> Any:
    """Return one value in the parameter's type; tuples come back as lists, as papermill writes those.

    Raises
    ------
    SettingsError
        If the type, the range or the choices do not allow it.

    Examples
    --------
    >>> check_value(Parameter("scales", "list[float]", [1.0]), "[1, 0.5]")
    [1.0, 0.5]
    """
    try:
        tree = ast.parse(parameter.annotation, mode="eval").body
        converted = _convert(tree, value)
    except SettingsError:
        raise
    except (*_NO_LITERAL, OverflowError):
        raise SettingsError(f"{parameter.name} takes {parameter.annotation}, not {value!r}") from None
    for item in converted if isinstance(converted, list) else [converted]:
        if item is None:
            continue
        if parameter.choices and str(item) not in parameter.choices:
            hint = nearest(str(item), parameter.choices)
            allowed = " | ".join(parameter.choices)
            raise SettingsError(f"{parameter.name} is one of {allowed}, not {item!r}{hint}")
        if not all(_holds(item, sign, limit) for sign, limit in parameter.bounds):
            raise SettingsError(f"{parameter.name} has to be in [{parameter.bracket}], not {item!r}")
    return converted


def _comments(source: str) -> dict[int, str]:
    """Return the comment of every line that has one, by line number."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").rstrip() for t in tokens if t.type == tokenize.COMMENT}


def _split_bracket(comment: str) -> tuple[str, str]:
    """Split ``"text [0 .. 1]"`` into the text and what the final bracket holds."""
    match = re.fullmatch(r"(.*?)\s*\[([^\[\]]*)\]", comment)
    return (match[1], match[2].strip()) if match else (comment, "")


def _parse_bracket(bracket: str) -> tuple[tuple[str, ...], tuple[tuple[str, float], ...]]:
    """Return the choices and the bounds that a bracket states; one of another form (units, say) has none."""
    if "|" in bracket:
        return tuple(choice.strip() for choice in bracket.split("|")), ()
    if (span := _SPAN.fullmatch(bracket)) and (span[1] or span[2]):
        return (), tuple((sign, float(end)) for sign, end in ((">=", span[1]), ("<=", span[2])) if end)
    parts = [_BOUND.fullmatch(part.strip()) for part in bracket.split(",")]
    return (), tuple((part[1], float(part[2])) for part in parts if part) if all(parts) else ()


def _holds(value: Any, sign: str, limit: float) -> bool:
    """Return whether a number satisfies one bound; what has no order satisfies all."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    return {">": value > limit, ">=": value >= limit, "<": value < limit, "<=": value <= limit}[sign]


def _convert(tree: ast.expr, value: Any) -> Any:
    """Return a value in the type an annotation names, or raise ValueError."""
    if isinstance(tree, ast.BinOp):  # int | None
        for option in (tree.right, tree.left) if value is None else (tree.left, tree.right):
            try:
                return _convert(option, value)
            except ValueError:
                continue
        raise ValueError(value)
    kind = ast.unparse(tree)
    if kind.partition("[")[0] in ("list", "tuple"):
        value = _literal(value)
        if not isinstance(value, list | tuple):
            raise ValueError(value)
        if not isinstance(tree, ast.Subscript):
            return list(value)
        items = tree.slice.elts[0] if isinstance(tree.slice, ast.Tuple) else tree.slice
        return [_convert(items, item) for item in value]
    if kind not in _SCALARS:
        raise SettingsError(f"a parameter cannot be of type {kind}: use bool, int, float, str or lists")
    wanted = _SCALARS[kind]
    if wanted is not str:
        value = _literal(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
        raise ValueError(value)
    return value


def _literal(value: Any) -> Any:
    """Return what a text spells as a Python or YAML literal; anything else, and other text, unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value.strip())
    except _NO_LITERAL:
        words = {"true": True, "false": False, "null": None, "none": None}
        return words.get(value.strip().lower(), value)
