"""Errors a user can act on: one line that says what came, what was expected and what to do."""

import difflib
from collections.abc import Iterable


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

    Examples
    --------
    >>> nearest("hors", ["horse", "cow"])
    " (did you mean 'horse'?)"
    >>> nearest("submarine", ["horse", "cow"])
    ''
    """
    if len(str(name)) > 200:  # no typing error, and it would take for ever
        return ""
    close = difflib.get_close_matches(str(name), [str(o) for o in options], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_choice(name: str, value: object, known: Iterable[str]) -> None:
    """Raise a SettingsError that names the nearest choice unless a value is one of those known.

    Examples
    --------
    >>> check_choice("gap", "pixel", ("pixels", "mask"))
    Traceback (most recent call last):
    recamlib.errors.SettingsError: unknown gap 'pixel' (did you mean 'pixels'?): use one of pixels, mask
    """
    known = tuple(known)
    if value not in known:
        hint = nearest(str(value), known)
        raise SettingsError(f"unknown {name} {value!r}{hint}: use one of {', '.join(known)}")
