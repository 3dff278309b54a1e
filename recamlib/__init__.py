"""Class Re-Activation Maps: a thin library behind the notebooks of this report."""

import importlib
from typing import Any

# what the root exports: modules by folder, names by module
_MODULES = {
    "": "data paths stages", "engine": "advcam extract fit", "book": "explorer",
    "method": "boundary crf losses maps saliency scores walk",
    "studies": "beyond table1 table2 table3 table4 toy",
    "report": "cells claims plots results summary tables",
}  # fmt: skip
_NAMES = {
    "stages.base": "DataSettings", "stages.classify": "Classify Reactivate TrainClassifier",
    "stages.maps": "OPTIONS AdvCams ExtractCams", "stages.saliency": "Saliency SaliencyMaps",
    "stages.refine": "ConfidentLabels SaliencyMerge TrainBoundary Walk",
    "stages.score": "MULTI_SCALES SaliencyScore Score SegmentationScore",
    "stages.segment": "PseudoMasks TrainSegmenter TrainUpperBound",
    "studies.common": "examples make mask_examples prediction_examples score_table",
    "studies.checks": "checked merged", "studies.photo": "map_photo", "studies.table2": "pipeline_cost",
    "book.export": "export_model",
}  # fmt: skip
_HOMES = {name: home for home, names in (_MODULES | _NAMES).items() for name in names.split()}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line starts without loading torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'recamlib' has no attribute {name!r}")
    home = _HOMES[name]
    if home in _MODULES:
        return importlib.import_module(".".join(filter(None, ("recamlib", home, name))))
    return getattr(importlib.import_module(f"recamlib.{home}"), name)


def __dir__() -> list[str]:
    return list(__all__)
