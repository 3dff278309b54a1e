"""What every stage shares: strict settings, the results folder, and weights that are checked."""

import functools
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from textwrap import indent
from typing import Any, ClassVar, Literal

import pydantic
from exca.utils import DISCRIMINATOR_FIELD
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from recamlib import paths
from recamlib.data.access import ImageSet, MaskSet, open_images, open_masks
from recamlib.data.labels import VOC12
from recamlib.engine import fit as engine
from recamlib.engine.device import measured, process_group
from recamlib.errors import DataError, SettingsError, WeightsError, nearest
from recamlib.files import file_digest, storage_errors, whole_file
from recamlib.stages.infra import StageCache, Work

Split = Literal["train", "train_aug", "val"]
Request = tuple[Split, str]  # split and image id, the key of everything that is stored per image


class Settings(pydantic.BaseModel):
    """Frozen settings; an unknown or impossible one is an error that names the nearest field or the range."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **data: Any) -> None:
        for key in data:
            if key not in type(self).model_fields:
                raise SettingsError(
                    f"{type(self).__name__} has no setting {key!r}{nearest(key, type(self).model_fields)}"
                )
        try:
            super().__init__(**data)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise SettingsError(
                f"{type(self).__name__}.{where}: {first['msg']}, got {first['input']!r}"
            ) from None

    def __repr_args__(self) -> list[tuple[str, Any]]:
        """Return what differs from the defaults: all of all stages before one are too many to read."""
        return [(name, getattr(self, name)) for name in self.changed()]

    def changed(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, upstream ones as dictionaries."""
        return self.model_dump(exclude_defaults=True, exclude={"infra"})


class DataSettings(Settings):
    """Which images: a data set, narrowed to some classes, to single-label images or to a random part.

    ``train_labels`` narrows ``train_aug`` alone, never what is scored. ``fingerprint``, of the ids and labels
    found on disk, is filled in: a part of VOC is never mistaken for the whole.
    """

    name: Literal["hoofed", "voc12", "coco14"] = "hoofed"
    classes: tuple[str, ...] = ()
    single_label: bool = False
    limit: int = pydantic.Field(0, ge=0)
    train_count: int = pydantic.Field(480, ge=1)
    val_count: int = pydantic.Field(160, ge=1)
    size: int = pydantic.Field(96, ge=48, le=2048)
    scene_seed: int = pydantic.Field(0, ge=0)
    single_share: float = pydantic.Field(0.6, ge=0, le=1)
    train_labels: Literal["any", "single", "multi"] = "any"
    fingerprint: str = ""

    def __init__(self, **data: Any) -> None:
        if data.get("name", "hoofed") != "hoofed" and "fingerprint" not in data:
            data["fingerprint"] = _fingerprint(data["name"], str(paths.data_dir()))
        super().__init__(**data)

    @classmethod
    def of(
        cls, name: str, *, train_images: int = 0, classes: Sequence[str] = (), **more: Any
    ) -> "DataSettings":
        """Return settings from a notebook's parameters; 0 images are the default number, or all.

        Embedded scenes are as many as asked, and a third for val; of an official set it is a random part.
        """
        if name == "hoofed" and train_images:
            more |= {"train_count": train_images, "val_count": max(24, train_images // 3)}
        elif train_images:
            more["limit"] = train_images
        return cls(name=name, classes=tuple(classes), **more)

    def _options(self, split: Split) -> dict[str, Any]:
        if self.name != "hoofed":
            return {}
        count = self.val_count if split == "val" else self.train_count
        return {"count": count, "size": self.size, "seed": self.scene_seed, "single_share": self.single_share}

    def images(self, split: Split, *, limit: int = 0) -> ImageSet:
        """Open images and image-level labels of a split, or of a random part: the same one for all stages."""
        images = _images(self, split, str(paths.data_dir()))
        return images.select(limit=limit) if limit else images

    def masks(self, split: Split) -> MaskSet:
        """Open the true masks of a split, for metrics only."""
        truth = open_masks(self.name, split, **self._options(split))
        return truth.select(self.images(split).ids, classes=self.classes)

    def masked(self, split: Split) -> bool:
        """Return whether any image of a split has a true mask; own data may do without."""
        truth = open_masks(self.name, split, **self._options(split))
        return not set(self.images(split).ids) <= set(truth.missing())


@functools.lru_cache(maxsize=16)
def _images(settings: DataSettings, split: Split, root: str) -> ImageSet:
    images = open_images(settings.name, split, **settings._options(split))
    kind = settings.train_labels if split == "train_aug" else "any"
    return images.select(
        classes=settings.classes, single_label=settings.single_label or kind == "single",
        multi_label=kind == "multi", limit=settings.limit,
    )  # fmt: skip


@functools.lru_cache(maxsize=4)
def _fingerprint(name: str, root: str) -> str:
    digest = hashlib.sha256()
    for split in ("train_aug", "train", "val"):
        images = open_images(name, split)
        labels = images.label_matrix()
        if not labels.any():  # before a network is trained
            raise DataError(f"no image of {images.source} shows a class; list images that do")
        digest.update("\n".join(images.ids).encode() + labels.tobytes())
        if images.space != VOC12 and name == "voc12":  # one's own classes
            digest.update("\n".join(images.space.classes).encode())
    return digest.hexdigest()[:12]


class Stage(Settings):
    """One step of the pipeline; its settings are the key of its cache.

    Subclasses hold their upstream stage, and their name with a version, ``stage: Literal["Walk/2"]``, a new
    one of which has all made again that is made from it. ``work`` says how a stage is sent to a cluster,
    ``step`` what the time column calls it.
    """

    work: ClassVar[Work] = "images"
    step: ClassVar[str] = ""

    def __init__(self, **data: Any) -> None:
        infra = data.get("infra", {})
        if isinstance(infra, dict):
            folder = paths.results_dir() / "stages"
            with storage_errors():
                folder.mkdir(parents=True, exist_ok=True)
            data["infra"] = {"folder": folder, "keep_in_ram": False, **infra}
        if isinstance(data.get("dataset"), str):
            data["dataset"] = DataSettings(name=data["dataset"])
        super().__init__(**data)
        # A stage is named in the key of what is made from it. exca names it once the object has been put into
        # a field of several kinds, so that keys would depend on what else was built before.
        self.__dict__[DISCRIMINATOR_FIELD] = "stage"

    def __iter__(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """Yield names and values of the settings, so that ``dict(stage)`` makes another one."""
        # pydantic's own yields all that lies in __dict__: exca's mark, and a result that was read, too
        return ((name, getattr(self, name)) for name in type(self).model_fields)

    def make(self, *requests: Any) -> Any:
        """Compute what is stored: a dictionary for each (split, id), or the one result that there is."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return the settings that differ from the defaults, one per line, upstream stages indented."""
        lines = [type(self).__name__]
        for name, value in self.changed().items():
            inner = getattr(self, name)
            text = f"\n{indent(inner.describe(), '  ')}" if isinstance(inner, Stage) else f" {value}"
            lines.append(indent(f"{name}:{text}", "  "))
        return "\n".join(lines)

    @property
    def upstream(self) -> tuple["Stage", ...]:
        """The stages whose results this one takes."""
        values = (getattr(self, name) for name in type(self).model_fields)
        return tuple(value for value in values if isinstance(value, Stage))

    def versions(self) -> set[str]:
        """Return name and version of this stage and of all before it; a subclass is another one."""
        return {f"{type(self).__name__}={self.stage}"}.union(*(stage.versions() for stage in self.upstream))

    def prepare(self, items: Sequence[Any]) -> None:
        """Compute what must be there before `items` are sent to other processes: all trainings they need."""
        for stage in self.upstream:
            if stage.work == "images":
                stage.prepare(items)
            else:
                _ = stage.result

    @property
    def folder(self) -> Path:
        """Folder of this stage's results."""
        with storage_errors():
            return Path(self.infra.uid_folder(create=True))

    @property
    def uid(self) -> str:
        """Path of that folder below the results of all stages."""
        return self.folder.relative_to(self.infra.folder).as_posix()


class ImageStage(Stage):
    """A stage with a result per image."""

    infra: StageCache = StageCache()

    @infra.apply(item_uid=lambda item: item[1], cache_type="Auto", exclude_from_cache_uid="method:not_in_key")
    def items(self, requests: Sequence[Request]) -> Iterator[dict]:
        """Yield what is stored for each (split, id), in order; what is missing is computed first."""
        yield from self.make(requests)

    def not_in_key(self) -> tuple[str, ...]:
        """Return the settings that change nothing that is stored."""
        return ()


class WholeStage(Stage):
    """A stage with one result."""

    work: ClassVar[Work] = "whole"
    key: ClassVar[str] = "score"
    infra: StageCache = StageCache()

    @infra.apply(item_uid=str, cache_type="Auto")
    def run(self, items: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the one result that there is."""
        yield from (self.make() for _ in items)

    @cached_property
    def result(self) -> dict[str, Any]:
        """The result, computed if it is not there; weights that are damaged are named and made again."""
        value = next(iter(self.run([self.key])))
        if "weights" in value:
            try:
                check_weights(self.folder, value["weights"])
            except WeightsError as error:
                print(f"{error}; it is trained again")
                self.infra.forget([self.key])
                value = next(iter(self.run([self.key])))
        return value


class Training(WholeStage):
    """A stage that trains on a ``dataset``: optimizer, loop, and the weights as a safetensors file."""

    work: ClassVar[Work] = "training"
    key: ClassVar[str] = "model"

    batch_size: int = pydantic.Field(16, ge=1)
    lr: float = pydantic.Field(0.1, gt=0)
    momentum: float = pydantic.Field(1e-4, ge=0, lt=1)
    weight_decay: float = pydantic.Field(1e-4, ge=0)

    def images(self) -> ImageSet:
        return self.dataset.images("train_aug", limit=getattr(self, "limit", 0))

    @property
    def requests(self) -> list[Request]:
        return [("train_aug", name) for name in self.images().ids]

    def prepare(self, items: Sequence[Any]) -> None:
        for stage in self.upstream:
            _ = stage.items(self.requests) if stage.work == "images" else stage.result

    def fit(
        self, model: nn.Module, views: Any, step: Callable[..., dict[str, Tensor]], groups: list[dict], *,
        kind: str = "sgd", **loop: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
        """Train `model` in place and return history and cost; `loop` goes to `engine.fit`."""
        rule: dict[str, Any] = {"kind": kind, "momentum": self.momentum, "weight_decay": self.weight_decay}
        optimizer = engine.make_optimizer(groups, **rule)
        with measured() as cost:
            history = engine.fit(
                model, views, step, optimizer, batch_size=self.batch_size,
                checkpoint=self.folder / "checkpoint", **{"describe": type(self).__name__, **loop},
            )  # fmt: skip
        # the loop's own seconds: they add up over interruptions
        return history, cost | {"seconds": history.pop("seconds"), "waited_seconds": history.pop("waited")}

    def store(self, module: nn.Module, history: dict, cost: dict, *, images: int) -> dict[str, Any]:
        """Store trained weights, clear the checkpoint and return what a training stage stores."""
        if process_group()[0] > 0:  # of several that trained together the first one stores
            return {}
        path = self.folder / f"{self.key}.safetensors"
        tensors = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
        with whole_file(path) as part:
            save_file(tensors, part)
            entry = {"file": path.name, "sha256": file_digest(part)}
        shutil.rmtree(self.folder / "checkpoint", ignore_errors=True)
        return {"weights": entry, "history": history, "cost": cost, "images": images}

    def load_into(self, module: nn.Module) -> Any:
        """Train if need be and load every stored tensor; nothing may be missing or left over."""
        module.load_state_dict(load_file(check_weights(self.folder, self.result["weights"])))
        return module


def check_weights(folder: Path, entry: dict[str, str]) -> Path:
    """Return the path of stored weights, or raise WeightsError if the file is missing or was changed."""
    path = folder / entry["file"]
    if not path.is_file():
        raise WeightsError(f"weights {path.name} of {folder.name} are missing")
    if file_digest(path) != entry["sha256"]:
        raise WeightsError(f"weights {path.name} of {folder.name} do not match their recorded digest")
    return path
