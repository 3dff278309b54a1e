"""Class Re-Activation Maps: a thin library behind the notebooks of this report."""

import importlib
from typing import Any

_MODULES = (
    "advcam", "boundary", "cams", "claims", "crf", "data", "engine", "explorer", "losses", "metrics",
    "paths", "plots", "plots_refine", "plots_segment", "refinement", "report", "segmentation", "stages",
    "toy", "verdicts", "walk",
)  # fmt: skip
_STAGES = (
    "MULTI_SCALES", "OPTIONS", "AdvCams", "Classify", "ConfidentLabels", "DataSettings", "ExtractCams",
    "PseudoMasks", "Reactivate", "Score", "SegmentationScore", "TrainBoundary", "TrainClassifier",
    "TrainSegmenter", "TrainUpperBound", "Walk", "cams_of", "examples", "pipeline_cost",
    "prediction_examples", "score_table",
)  # fmt: skip
__all__ = sorted((*_MODULES, *_STAGES))


def __getattr__(name: str) -> Any:
    """Import on first use, so that the command line starts without loading torch."""
    if name in _MODULES:
        return importlib.import_module(f"recamlib.{name}")
    if name in _STAGES:
        return getattr(importlib.import_module("recamlib.stages"), name)
    raise AttributeError(f"module 'recamlib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
