"""Figures as vector files that say what they show: in notebooks, and for whoever cannot see them."""

import base64
import io
import re
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

LONGEST = 700  # characters of a description
WIDEST = 620.0  # points of a figure; JupyterLab shows it at its own size and cuts off what is wider


def to_svg(fig: Figure) -> str:
    """Return a figure as the text of an SVG file, its description in the file's title."""
    file = io.StringIO()
    text = {"Title": describe(fig), "Date": None, "Creator": None}
    with rc_context({"svg.hashsalt": "recam"}):  # else names inside the file change with every run
        fig.savefig(file, format="svg", bbox_inches="tight", metadata=text)
    return re.sub(r'(?<=data:image/png;base64,)[^"]+', _lighter, _fitting(file.getvalue()))


def _lighter(found: re.Match) -> str:
    """Return a picture inside an SVG with a palette of 128 colours: a third of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(found[0]))).convert("RGB")
    picture = picture.quantize(128, method=Image.Quantize.FASTOCTREE)
    picture.save(file := io.BytesIO(), "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def _fitting(picture: str) -> str:
    """Return an SVG shown no wider than `WIDEST`; what is in it keeps its proportions.

    Examples
    --------
    >>> _fitting('<svg width="1240pt" height="300pt" viewBox="0 0 1240 300">')
    '<svg width="620pt" height="150pt" viewBox="0 0 1240 300">'
    """
    size = re.compile(r'width="([\d.]+)pt" height="([\d.]+)pt"')
    width, height = map(float, size.search(picture).groups())
    scale = min(1.0, WIDEST / width)
    return size.sub(f'width="{scale * width:g}pt" height="{scale * height:g}pt"', picture, count=1)


def describe(fig: Figure) -> str:
    """Return in words what a figure shows: its panels, axes, series and categories.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> fig = Figure()
    >>> ax = fig.subplots()
    >>> _ = ax.plot([1, 2], label="CAM"), ax.set(title="Cost", xlabel="cells", ylabel="seconds"), ax.legend()
    >>> describe(fig)
    'Cost: seconds against cells; series CAM'
    >>> _ = fig.suptitle("Two cores")
    >>> describe(fig)
    'Two cores. Cost: seconds against cells; series CAM'
    """
    axes = [ax for ax in fig.axes if ax.get_label() != "<colorbar>" and ax.get_visible()]
    if axes and all(ax.images and not len(ax.get_xticks()) for ax in axes):
        text = _pictures(axes)
    else:
        text = ". ".join(filter(None, map(_panel, axes)))
        text = f"Figure of {len(axes)} panels. {text}" if len(axes) > 1 else text or "Figure"
    if title := _plain(fig.get_suptitle()):
        text = f"{title}. {text}"
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2].rsplit(' ', 1)[0]} …"


def _panel(ax: Axes) -> str:
    """Return title, axes, series and categories of one panel."""
    across, up = _plain(ax.get_xlabel()), _plain(ax.get_ylabel())
    text = " against ".join(filter(None, (up, across)))
    text = ": ".join(filter(None, (_plain(ax.get_title()), text)))
    legend = ax.get_legend()
    series = [_plain(entry.get_text()) for entry in legend.get_texts()] if legend else []
    ticks = [*ax.get_xticklabels(), *ax.get_yticklabels()]
    categories = [label for tick in ticks if not _is_number(label := _plain(tick.get_text()))]
    named = (("series", series), ("for", categories))
    return "; ".join([text, *(f"{what} {', '.join(names)}" for what, names in named if names)]).strip("; ")


def _pictures(axes: list[Axes]) -> str:
    """Return the columns and rows of a grid of pictures."""
    columns = [title for ax in axes if (title := _plain(ax.get_title()))]
    rows = [caption for ax in axes if (caption := _plain(ax.get_ylabel()))]
    text = f"Grid of pictures. Columns: {', '.join(columns)}" if columns else "Pictures"
    return f"{text}. Rows: {', '.join(rows)}" if rows else text


def _plain(text: str) -> str:
    """Return a label on one line, without the marks of formulas."""
    return " ".join(text.replace("$", "").replace("\\", "").split())


def _is_number(label: str) -> bool:
    return not label or not any(c.isalpha() for c in label.replace("mathdefault", "").replace("times", ""))


def show_as_svg() -> None:
    """Let the figures of this notebook appear as SVG with their description; elsewhere nothing happens."""
    from IPython import get_ipython

    shell = get_ipython()
    if shell is None:
        return
    from matplotlib_inline.config import InlineBackend

    InlineBackend.instance(parent=shell).figure_formats = set()  # its own formats would win over the bundle

    def bundle(fig: Figure, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"image/svg+xml": to_svg(fig), "text/plain": describe(fig)}

    shell.display_formatter.mimebundle_formatter.for_type(Figure, bundle)
