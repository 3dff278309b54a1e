"""Numbers that the evaluation server returned: entered by hand with their link, never measured here."""

import datetime
import json
import re
from pathlib import Path
from typing import Any

from recamlib import paths
from recamlib.errors import RecamError, nearest
from recamlib.files import whole_file
from recamlib.report.claims import all_claims

SERVER = "http://host.robots.ox.ac.uk:8080"
_LINK = re.compile(
    r"https?://[a-z0-9.-]+(:\d{1,5})?(/[\w.~%-]+)*/anonymous/[\w.~%-]+", re.ASCII | re.IGNORECASE
)


def server_file() -> Path:
    """Return the tracked file of entered numbers; it is absent until the first one."""
    return paths.book_dir() / "measured" / "server.json"


def server_claims() -> tuple[str, ...]:
    """Return the claims that only the server can answer: the test columns of Tables 3 and 4.

    Examples
    --------
    >>> len(server_claims()), server_claims()[0]
    (35, 'table3.none.deeplabv2_cam_test.voc12')
    """
    return tuple(claim.id for claim in all_claims() if claim.id.endswith(("_test.voc12", ".test")))


def enter_number(claim_id: str, value: float, link: str) -> Path:
    """Record a number of the test split with the page that shows it; an earlier one is replaced.

    Parameters
    ----------
    claim_id
        One of `server_claims`.
    value
        Mean IoU in percent.
    link
        Address of the anonymous result page on the server.

    Returns
    -------
    The file, tracked with the book.

    Raises
    ------
    RecamError
        If one of the three is not what it should be; nothing is written then.
    """
    entered = entered_numbers()
    _check(claim_id, value, link)
    today = datetime.date.today().isoformat()
    entered[claim_id] = {"value": float(value), "link": link, "date": today}
    ordered = {name: entered[name] for name in server_claims() if name in entered}
    path = server_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        part.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    return path


def entered_numbers() -> dict[str, dict[str, Any]]:
    """Return what has been entered, by claim id: ``value`` in percent, ``link``, ``date``.

    Raises
    ------
    RecamError
        If the file was edited into something else; it says where.
    """
    path = server_file()
    if not path.is_file():
        return {}
    try:
        entered = json.loads(path.read_text(encoding="utf-8"))
        for claim_id, entry in entered.items():
            datetime.date.fromisoformat(entry["date"])
            _check(claim_id, entry["value"], entry["link"])
    except RecamError as error:
        raise RecamError(f"{path}: {error}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecamError(f"{path} is damaged ({error!r}); use `recam submit enter` to write it") from None
    return entered


def from_server(claim_id: str, entered: dict[str, dict[str, Any]]) -> tuple[float, str, str] | None:
    """Return (number, where it is from, verdict) of a claim as the scoreboard shows it, or None."""
    entry = entered.get(claim_id)
    if entry is None:
        return None
    return round(entry["value"], 1), f"entered from the server: {entry['link']}, {entry['date']}", "entered"


def _check(claim_id: str, value: float, link: str) -> None:
    """Raise an error unless claim, number and link are what they should be."""
    known = server_claims()
    if claim_id not in known:
        hint = nearest(claim_id, known) or f"; they look like {known[0]}"
        raise RecamError(f"{claim_id!r} is no number of the test split{hint}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise RecamError(f"a mean IoU in percent lies between 0 and 100, not at {value!r}")
    if 0 < value < 1:
        raise RecamError(f"{value!r} looks like a fraction; enter percent, {100 * value:g}")
    if not isinstance(link, str) or not _LINK.fullmatch(link):
        form = f"{SERVER}/anonymous/NAME.html"
        raise RecamError(f"{link!r} is no link of an anonymous result page; it looks like {form}")
