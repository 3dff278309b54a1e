"""Keeps what fault tests find with the book, when asked to."""

import datetime
import json
import os
from importlib.metadata import version
from typing import Any

from recamlib.engine.device import device_name, versions
from recamlib.paths import book_dir


def keep(name: str, found: dict[str, Any]) -> None:
    """Write into a section of ``book/measured/faults.json`` if ``RECAM_KEEP_FAULTS`` is set."""
    if not os.environ.get("RECAM_KEEP_FAULTS"):
        return
    path = book_dir() / "measured" / "faults.json"
    kept = json.loads(path.read_text()) if path.is_file() else {}
    section = kept.setdefault(name, {})
    for key, value in found.items():
        section[key] = {**section.get(key, {}), **value} if isinstance(value, dict) else value
    section |= {"date": datetime.date.today().isoformat(), "device": device_name()}
    section["versions"] = versions() | {library: version(library) for library in ("exca", "safetensors")}
    path.write_text(json.dumps(dict(sorted(kept.items())), indent=1) + "\n")
