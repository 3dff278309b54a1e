"""The pipeline as settings: one object describes a run, and is the key of everything it computes."""

import logging
import os

if os.environ.get("TQDM_DISABLE"):  # a notebook that is executed unwatched: no log lines in the report
    logging.getLogger("exca").setLevel(logging.ERROR)
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # else the precision, every time
