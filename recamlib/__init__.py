"""Class Re-Activation Maps: a thin library behind the notebooks of this report."""

import importlib
from typing import Any

_MODULES = (
    "advcam", "beyond", "boundary", "cams", "claims", "crf", "data", "engine", "experiments", "explorer",
    "guidance", "kept", "losses", "metrics", "paths", "plots", "plots_beyond", "plots_refine",
    "plots_segment", "reading", "recipes", "refinement", "report", "saliency", "segloss", "segment_tables",
    "segmentation", "stages", "toy", "verdicts", "walk",
)  # fmt: skip
_STAGES = (
    "MULTI_SCALES", "OPTIONS", "AdvCams", "Classify", "ConfidentLabels", "DataSettings", "ExtractCams",
    "PackageCams", "PseudoMasks", "Reactivate", "Saliency", "SaliencyMaps", "SaliencyMerge", "SaliencyScore",
    "Score", "SegmentationScore", "TrainBoundary", "TrainClassifier", "TrainSegmenter", "TrainUpperBound",
    "Walk", "WalkGrid", "WalkStudy", "cams_of", "examples", "mask_examples", "pipeline_cost",
    "prediction_examples", "score_table", "seconds_per_image",
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
