"""The pipeline as settings: one object describes a run, and is the key of everything it computes."""

import logging
import os

from recamlib.stages.base import DataSettings, Stage
from recamlib.stages.classify import Classify, Reactivate, TrainClassifier
from recamlib.stages.climb import AdvCams
from recamlib.stages.maps import OPTIONS, ExtractCams, MapStage
from recamlib.stages.refine import BoundaryMaps, ConfidentLabels, SaliencyMerge, TrainBoundary, Walk
from recamlib.stages.saliency import Saliency, SaliencyMaps
from recamlib.stages.score import MULTI_SCALES, SaliencyScore, Score, SegmentationScore
from recamlib.stages.segment import PseudoMasks, TrainSegmenter, TrainUpperBound

__all__ = [
    "MULTI_SCALES", "OPTIONS", "AdvCams", "BoundaryMaps", "Classify", "ConfidentLabels", "DataSettings",
    "ExtractCams", "MapStage", "PseudoMasks", "Reactivate", "Saliency", "SaliencyMaps", "SaliencyMerge",
    "SaliencyScore", "Score", "SegmentationScore", "Stage", "TrainBoundary", "TrainClassifier",
    "TrainSegmenter", "TrainUpperBound", "Walk",
]  # fmt: skip

if os.environ.get("TQDM_DISABLE"):  # a notebook that is executed unwatched: no log lines in the report
    logging.getLogger("exca").setLevel(logging.ERROR)
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # else the precision, every time
