"""The pipeline as settings: one object describes a run, and is the key of everything it computes."""

import logging
import os

from recamlib.stages.base import DataSettings, Stage
from recamlib.stages.boundary import BoundaryMaps, ConfidentLabels, TrainBoundary
from recamlib.stages.classify import Classify, Reactivate, TrainClassifier
from recamlib.stages.climb import AdvCams
from recamlib.stages.maps import OPTIONS, ExtractCams, MapStage
from recamlib.stages.masks import PseudoMasks
from recamlib.stages.merge import SaliencyMerge
from recamlib.stages.predict import MULTI_SCALES, SegmentationScore
from recamlib.stages.saliency import Saliency, SaliencyMaps
from recamlib.stages.score import SaliencyScore, Score
from recamlib.stages.segment import TrainSegmenter
from recamlib.stages.upper_bound import TrainUpperBound
from recamlib.stages.walk import Walk

__all__ = [
    "MULTI_SCALES", "OPTIONS", "AdvCams", "BoundaryMaps", "Classify", "ConfidentLabels", "DataSettings",
    "ExtractCams", "MapStage", "PseudoMasks", "Reactivate", "Saliency", "SaliencyMaps", "SaliencyMerge",
    "SaliencyScore", "Score", "SegmentationScore", "Stage", "TrainBoundary", "TrainClassifier",
    "TrainSegmenter", "TrainUpperBound", "Walk",
]  # fmt: skip

if os.environ.get("TQDM_DISABLE"):  # a notebook that is executed unwatched: no log lines in the report
    logging.getLogger("exca").setLevel(logging.ERROR)
logging.getLogger("lightning.fabric").setLevel(logging.WARNING)  # else the precision, every time
