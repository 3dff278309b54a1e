"""The pipeline as settings: one object describes a run, and is the key of everything it computes."""

from recamlib.stages.base import DataSettings, Stage
from recamlib.stages.classify import Classify, Reactivate, TrainClassifier
from recamlib.stages.maps import OPTIONS, ExtractCams
from recamlib.stages.score import Score, cams_of, examples, score_table

__all__ = [
    "OPTIONS", "Classify", "DataSettings", "ExtractCams", "Reactivate", "Score", "Stage", "TrainClassifier",
    "cams_of", "examples", "score_table",
]  # fmt: skip
