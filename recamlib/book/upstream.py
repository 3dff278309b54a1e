"""What has to be there for a result: every stage before it, once, with the images that are wanted of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from recamlib.book.planned import End
from recamlib.stages import (
    Classify,
    ConfidentLabels,
    PseudoMasks,
    SaliencyMaps,
    SaliencyMerge,
    SaliencyScore,
    Score,
    SegmentationScore,
    Stage,
    TrainBoundary,
    TrainClassifier,
    TrainSegmenter,
    TrainUpperBound,
    Walk,
    WalkGrid,
)
from recamlib.stages.base import DataSettings, Split


@dataclass
class Job:
    """A stage and the images (ids) or other items that are wanted of it."""

    stage: Stage
    items: set[str] = field(default_factory=set)

    @property
    def kind(self) -> str:
        """Name of the stage's class."""
        return type(self.stage).__name__

    @property
    def per_image(self) -> bool:
        """Whether its items are images."""
        return not (hasattr(self.stage, "result") or isinstance(self.stage, WalkGrid))

    @property
    def images(self) -> int:
        """Images that it goes through once."""
        return images_of(self)

    @property
    def data(self) -> DataSettings:
        """The data it rests on."""
        return data_of(self.stage)

    @property
    def backbone(self) -> str:
        """Name of the network that does the work, empty where none does."""
        stage = getattr(self.stage, "of", self.stage)
        if hasattr(stage, "arch"):
            return f"{stage.arch} {stage.backbone or ''}".strip()
        networks = ("epochs", "scales", "scale", "net")
        return root_of(self.stage).backbone if any(hasattr(self.stage, name) for name in networks) else ""

    @property
    def precision(self) -> str:
        """Precision of its passes, empty where there is no choice."""
        return getattr(self.stage, "precision", getattr(getattr(self.stage, "base", None), "precision", ""))

    @property
    def what(self) -> str:
        """Network and size in a few words."""
        crop = getattr(self.stage, "crop", getattr(getattr(self.stage, "base", None), "crop", ""))
        return ", ".join(filter(None, (self.backbone, f"crop {crop}" if crop else "")))


def jobs_of(ends: Iterable[End]) -> list[Job]:
    """Return all that has to be there for some ends, upstream first, everything once."""
    found: dict[str, Job] = {}
    for end in ends:
        stage = end.stage
        if isinstance(stage, WalkGrid):
            _need(found, stage, {f"beta {i}" for i in range(end.limit)})
        elif isinstance(stage, Score | SegmentationScore | SaliencyScore | Classify):
            _need(found, stage, {"whole"})
        else:
            _need(found, stage, _part(stage, end.split, end.limit))
    return list(found.values())


def _part(stage: Stage, split: Split, limit: int) -> set[str]:
    """Return the ids of a part of a split: a random one of that size, or, below 0, so many first ones."""
    maps = stage.maps if isinstance(stage, PseudoMasks) else stage
    images = maps.dataset.images(split)
    if limit < 0:
        return set(images.ids[:-limit])
    return set((images.select(limit=limit) if limit else images).ids)


def _need(found: dict[str, Job], stage: Stage, items: set[str]) -> None:
    for upstream, wanted in _upstream(stage, items):
        _need(found, upstream, wanted)
    found.setdefault(stage.infra.uid(), Job(stage)).items.update(items)


def _upstream(stage: Stage, items: set[str]) -> list[tuple[Stage, set[str]]]:
    """Return the stages that one reads, and what of them."""
    one = {"model"}
    if isinstance(stage, TrainClassifier):
        if stage.saliency is None:
            return []
        salient = SaliencyMaps(dataset=stage.dataset, saliency=stage.saliency)
        return [(salient, set(stage.dataset.images("train_aug").ids))]
    if isinstance(stage, TrainBoundary):
        return [(stage.labels, set(stage.images().ids))]
    if isinstance(stage, TrainSegmenter):
        return [(stage.masks, set(stage.images().ids))]
    if isinstance(stage, Walk):
        return [(stage.cams, items), (stage.boundaries, items)]
    if isinstance(stage, SaliencyMerge):
        return [(stage.cams, items), (SaliencyMaps(dataset=stage.dataset, saliency=stage.saliency), items)]
    if isinstance(stage, SaliencyScore):
        salient = SaliencyMaps(dataset=stage.dataset, saliency=stage.saliency)
        return [(salient, set(stage.dataset.images(stage.split).ids))]
    if isinstance(stage, Score):
        return [(stage.of, set(stage.images.ids))]
    if isinstance(stage, WalkGrid):
        ids = set(stage.walk.images(stage.split, limit=stage.limit).ids)
        return [(stage.walk.cams, ids), (stage.walk.boundaries, ids)]
    if isinstance(stage, PseudoMasks):
        return [(stage.maps, items)]
    if isinstance(stage, ConfidentLabels):
        return [(stage.cams, items)]
    named = (getattr(stage, name, None) for name in ("base", "net", "model", "of"))
    return [(upstream, one) for upstream in named if isinstance(upstream, Stage)]


def images_of(job: Job) -> int:
    """Return the images that a job goes through once."""
    stage = job.stage
    if isinstance(stage, Score | SegmentationScore):
        return len(stage.images)
    if isinstance(stage, SaliencyScore | Classify):
        data = stage.dataset if isinstance(stage, SaliencyScore) else stage.model.dataset
        return len(data.images(stage.split))
    if isinstance(stage, WalkGrid):
        return len(job.items) * len(stage.walk.images(stage.split, limit=stage.limit))
    if isinstance(stage, TrainBoundary | TrainSegmenter | TrainUpperBound):
        return len(stage.images())
    if hasattr(stage, "epochs"):
        return len(stage.dataset.images("train_aug"))
    return len(job.items)


def root_of(stage: Stage) -> TrainClassifier:
    """Return the classifier at the root of a stage."""
    while not isinstance(stage, TrainClassifier):
        names = ("base", "model", "cams", "net", "of", "maps", "walk")
        stage = next(getattr(stage, name) for name in names if isinstance(getattr(stage, name, None), Stage))
    return stage


def data_of(stage: Stage) -> DataSettings:
    """Return the data settings that a stage rests on."""
    for name in ("dataset", "of", "net", "maps", "cams", "model", "walk", "base"):
        found = getattr(stage, name, None)
        if isinstance(found, DataSettings):
            return found
        if isinstance(found, Stage):
            return data_of(found)
    raise TypeError(f"{type(stage).__name__} rests on no data")
