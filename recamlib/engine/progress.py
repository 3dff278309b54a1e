"""Progress bars: widgets in a notebook, text in a terminal, nothing where nobody watches."""

import os
from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def bar(items: Iterable[Any], **settings: Any) -> tqdm:
    """Return a bar over items, with the time that is left, which is gone when it is done.

    There is none without a terminal or a notebook, and none where ``TQDM_DISABLE`` is set: notebooks that are
    run to be kept would keep its debris. tqdm alone reads that variable only where ``disable`` is not given.
    """
    quiet = os.environ.get("TQDM_DISABLE", "") not in ("", "0")
    return tqdm(items, leave=False, disable=True if quiet else None, **settings)
