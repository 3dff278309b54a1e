"""The pipeline as settings: one object describes a run, and is the key of everything it computes."""

import logging

logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # else the precision, every time
