"""Stage per image: features of a backbone that nobody trained further, for heads that are trained alone."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import pydantic
import torch
from torch import Tensor
from torch.utils.data import Dataset

from recamlib.data.access import ImageSet, labels_only
from recamlib.engine.device import default_device, measured, per_image
from recamlib.engine.extract import image_features
from recamlib.models.backbones import build_backbone
from recamlib.models.base import Backbone, fold_batch_norm
from recamlib.stages.base import DataSettings, ImageStage, Request, Split

WINDOW = 32  # images decoded at once, so that equal sizes share a batch; a killed run loses at most these


class Features(ImageStage):
    """Features (V, C, h, w) of whole images, resized by ``scale``, from a backbone as it was loaded; float16.

    V is 2 with ``mirror``: those of the mirror image come last. ``weights=None`` is as initialised.
    """

    dataset: DataSettings = DataSettings()
    backbone: str = "resnet_small"
    weights: str | None = None
    output_stride: Literal[8, 14, 16, 32] = 16
    scale: float = pydantic.Field(1.0, gt=0)
    mirror: bool = False
    stage: Literal["Features/1"] = "Features/1"
    step = "extract features"

    def build(self) -> Backbone:
        with torch.random.fork_rng(devices=[]):  # without weights, the same one every time
            torch.manual_seed(0)
            return build_backbone(self.backbone, output_stride=self.output_stride, weights=self.weights)

    def make(self, requests: Sequence[Request]) -> Iterator[dict[str, Any]]:
        backbone = fold_batch_norm(self.build(), default_device())
        for start in range(0, len(requests), WINDOW):
            window = requests[start : start + WINDOW]
            with labels_only(), measured() as cost:
                pictures = [self.dataset.images(split).image(name) for split, name in window]
                features = image_features(backbone, pictures, scale=self.scale, mirror=self.mirror)
            for each in features:
                yield {"features": each.half().numpy(), "cost": per_image(cost, len(window))}

    def of(self, split: Split, ids: Sequence[str] = ()) -> Iterator[Tensor]:
        """Yield features (V, C, h, w), float16, of images of a split, all unless named."""
        names = ids or self.dataset.images(split).ids
        for item in self.items([(split, name) for name in names]):
            yield torch.from_numpy(np.array(item["features"]))

    def pooled(self, split: Split, ids: Sequence[str] = ()) -> Tensor:
        """Return the mean features (N, C) of images of a split, all unless named, float32."""
        return torch.stack([each[0].float().mean((1, 2)) for each in self.of(split, ids)])


class FeatureViews(Dataset):
    """Features of training images as samples ``(features (C + 1, 1, n), labels (K,), index)``, in memory.

    They are padded to n cells; the last channel is 1 in cells of the image and 0 in padding.
    """

    def __init__(self, images: ImageSet, features: Sequence[Tensor]) -> None:
        self.images = images
        self.labels = torch.from_numpy(images.label_matrix()).float()
        flat = [each.flatten(-2) for each in features]  # (C, cells)
        cells = torch.zeros(len(flat), 1, max(f.shape[1] for f in flat), flat[0].shape[0] + 1)
        for row, each in zip(cells, flat):
            row[0, : each.shape[1], :-1] = each.T
            row[0, : each.shape[1], -1] = 1
        self.cells = cells.permute(0, 3, 1, 2)  # (N, C + 1, 1, n), channels last

    def set_epoch(self, epoch: int) -> None:
        pass  # no view is drawn

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        places = torch.tensor(indices)
        return self.cells[places], self.labels[places], places

    @staticmethod
    def collate(batch: Any) -> Any:
        return batch


def split_cells(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return features ``(B, C, 1, n)``, 0 in padding, and what makes their mean an image's, ``(B, 1, 1)``."""
    inside = samples[:, -1:]
    return samples[:, :-1], samples.shape[-1] / inside.sum((2, 3))[..., None]
