"""The two parts of the book that are made from results when it is built: scoreboard and explorer."""

from recamlib.book.explorer import explorer_page, latest
from recamlib.book.scoreboard import scoreboard_page
from recamlib.report.results import load_results


def book_pages() -> dict[str, str]:
    """Return the text of these parts by their path inside the book."""
    results = load_results()
    return {"scoreboard.md": scoreboard_page(results), "explorer_data.md": explorer_page(latest(results))}
