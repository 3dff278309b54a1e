"""Where things live: every location, absolute, from this file or an environment variable."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _from_env(variable: str, default: Path) -> Path:
    """Return the folder named by an environment variable, or the default; nothing is created."""
    return Path(os.environ[variable]).expanduser().resolve() if os.environ.get(variable) else default


def data_dir() -> Path:
    """Folder of the official data sets: ``$RECAM_DATA`` or ``data/``."""
    return _from_env("RECAM_DATA", ROOT / "data")


def weights_dir() -> Path:
    """Folder of pre-trained weights: ``$RECAM_WEIGHTS`` or ``weights/`` inside the data folder."""
    return _from_env("RECAM_WEIGHTS", data_dir() / "weights")


def results_dir() -> Path:
    """Folder of cached stages and results: ``$RECAM_RESULTS`` or ``results/``."""
    return _from_env("RECAM_RESULTS", ROOT / "results")


def notebooks_dir() -> Path:
    """Folder of the notebooks and their profiles."""
    return ROOT / "notebooks"


def book_dir() -> Path:
    """Folder of the book's sources."""
    return ROOT / "book"
