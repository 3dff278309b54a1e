"""Class Re-Activation Maps: a thin library behind the notebooks of this report."""

import importlib
from typing import Any

_MODULES = {
    "advcam": "engine", "extract": "engine", "fit": "engine",
    "boundary": "method", "crf": "method", "losses": "method", "maps": "method", "scores": "method",
    "saliency": "method", "walk": "method",
    "beyond": "studies", "table1": "studies", "table2": "studies", "table3": "studies", "table4": "studies",
    "toy": "studies", "cells": "report", "claims": "report", "plots": "report", "results": "report",
    "summary": "report", "tables": "report", "explorer": "book",
}  # fmt: skip
_NAMES = {
    "DataSettings": "stages.base",
    **dict.fromkeys(("Classify", "Reactivate", "TrainClassifier"), "stages.classify"),
    **dict.fromkeys(("OPTIONS", "AdvCams", "ExtractCams"), "stages.maps"),
    **dict.fromkeys(("ConfidentLabels", "SaliencyMerge", "TrainBoundary", "Walk"), "stages.refine"),
    **dict.fromkeys(("Saliency", "SaliencyMaps"), "stages.saliency"),
    **dict.fromkeys(("MULTI_SCALES", "SaliencyScore", "Score", "SegmentationScore"), "stages.score"),
    **dict.fromkeys(("PseudoMasks", "TrainSegmenter", "TrainUpperBound"), "stages.segment"),
    **dict.fromkeys(
        ("examples", "mask_examples", "prediction_examples", "score_table"), "studies.common"
    ),
    "checked": "studies.checks", "make": "studies.common", "merged": "studies.checks",
    "export_model": "book.export", "map_photo": "studies.photo", "pipeline_cost": "studies.table2",
}  # fmt: skip
_PACKAGES = ("data", "paths", "stages")
__all__ = sorted((*_MODULES, *_NAMES, *_PACKAGES))


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line starts without loading torch."""
    if name in _PACKAGES:
        return importlib.import_module(f"recamlib.{name}")
    if name in _MODULES:
        return importlib.import_module(f"recamlib.{_MODULES[name]}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"recamlib.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'recamlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
