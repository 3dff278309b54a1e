"""Errors a user can act on, one line with what came, what was expected and what to do; and common checks."""

import difflib
from collections.abc import Iterable
from typing import Any


class RecamError(ValueError):
    """Base of every error that is the user's to fix; the command line prints it without a traceback."""


class DataError(RecamError):
    """A data set, image, label or mask is missing, damaged or inconsistent."""


class MissingDataError(DataError):
    """A data set, or a split of it, is not there at all."""


class WeightsError(RecamError):
    """A weights file is missing, damaged, or does not fit the network."""


class ResultsError(RecamError):
    """A stored result or cached step is damaged, or the results folder cannot be written."""


class SettingsError(RecamError):
    """A parameter, profile or setting is unknown or out of range."""


class MaskAccessError(RecamError):
    """Something tried to read a pixel mask while training: masks are for metrics only."""


def nearest(name: str, options: Iterable[str]) -> str:
    """Return ``" (did you mean 'x'?)"`` for the option closest to `name`, or an empty string.

    >>> nearest("hors", ["horse", "cow"]), nearest("submarine", ["horse", "cow"])
    (" (did you mean 'horse'?)", '')
    """
    if len(str(name)) > 200:  # no typing error, and it would take for ever
        return ""
    close = difflib.get_close_matches(str(name), [str(o) for o in options], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Raise a SettingsError that names the nearest choice unless a value is known."""
    known = tuple(known)
    if value not in known:
        hint = nearest(str(value), known)
        raise SettingsError(f"unknown {name} {value!r}{hint}: use one of {', '.join(known)}")


def check_shapes(**arrays: tuple[Any, str]) -> None:
    """Raise a DataError unless every array has the axes that are named; axes of one name have one size.

    An axis may also be a number, its size, or ``name + 1``, one more than another axis:
    ``check_shapes(map=(map, "h, w"), mask=(mask, "h, w"))``.
    """
    sizes: dict[str, int] = {}
    for values, axes in arrays.values():
        names = axes.split(", ")
        if len(names) != values.ndim or not all(map(_fits, names, values.shape, [sizes] * len(names))):
            shown = {name.replace("_", " "): pair for name, pair in arrays.items()}
            came = ", ".join(f"{name} {tuple(x.shape)}" for name, (x, _) in shown.items())
            wanted = ", ".join(f"{name} ({axes})" for name, (_, axes) in shown.items())
            raise DataError(f"shapes do not fit: {came}; expected {wanted}")


def _fits(name: str, size: int, sizes: dict[str, int]) -> bool:
    if name.isdecimal():
        return size == int(name)
    name, _, more = name.partition(" + ")
    return sizes.setdefault(name, size - int(more or 0)) == size - int(more or 0)


def check_numbers(name: str, values: Any, count: int, *, ignore: int | None = None) -> None:
    """Raise a DataError unless values are whole numbers from 0 to ``count - 1``, or `ignore`."""
    if "int" not in str(values.dtype):
        raise DataError(f"{name}: {values.dtype} came, expected class numbers of an integer type")
    strange = (values < 0) | (values >= count)
    if ignore is not None:
        strange &= values != ignore
    if strange.any():
        also = "" if ignore is None else f" or {ignore}"
        raise DataError(
            f"{name}: the value {values[strange][0].item()} came, expected 0 to {count - 1}{also}: were they "
            "made for the same classes?"
        )


def check_multi_hot(labels: Any) -> None:
    """Raise a DataError unless labels hold 0 and 1 alone."""
    strange = (labels != 0) & (labels != 1)
    if strange.any():
        raise DataError(
            f"labels hold {labels[strange][0].item():g}, expected multi-hot ones, 0 and 1: turn class "
            "indices into them with torch.nn.functional.one_hot"
        )


def check_shares(name: str, values: Any, *, hint: str) -> None:
    """Raise a DataError unless all values are from 0 to 1; NaN is not."""
    low, high = (values.min().item(), values.max().item()) if 0 not in values.shape else (0, 1)
    if not 0 <= low <= high <= 1:
        raise DataError(f"{name}: values from {low:g} to {high:g} came, expected 0 to 1: {hint}")
