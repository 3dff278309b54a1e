"""Views of an image together with its pseudo mask: the same scale, mirror and crop for both."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from recamlib.data.access import ImageSet
from recamlib.data.views import IMAGENET_MEAN, IMAGENET_STD, LabelledViews, normalise, resize
from recamlib.errors import DataError, SettingsError


class PairedView:
    """One random training view of an image and its label map: scale, mirror, crop.

    Parameters
    ----------
    crop
        Height and width of the view, pixels; a multiple of `stride`.
    scale
        Range that the factor of the size is drawn from, evenly.
    stride
        Pixels of the view per cell of the label map that is returned.
    ignore
        Label of the cells outside the image.
    jitter
        Whether brightness, contrast, saturation and hue are changed, each in every second view.
    mean, std
        See `recamlib.data.views.normalise`.

    Notes
    -----
    Source: IRN voc12/dataloader.py (facts: scale in [0.5, 1.5], label maps rescaled to the nearest value and
    taken at every fourth pixel, an image smaller than the crop lands in it at random).
    """

    def __init__(
        self,
        *,
        crop: int,
        scale: tuple[float, float] = (0.5, 1.5),
        stride: int = 4,
        ignore: int = 255,
        jitter: bool = False,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        if crop < 1 or stride < 1 or crop % stride:
            raise SettingsError(f"crop must be a multiple of the stride {stride}, got {crop}")
        if not 0 < scale[0] <= scale[1]:
            raise SettingsError(f"scale must be 0 < low <= high, got {tuple(scale)}")
        self.crop, self.scale, self.stride, self.ignore = crop, tuple(scale), stride, ignore
        self.jitter, self.mean, self.std = jitter, tuple(mean), tuple(std)

    def __call__(
        self, image: Tensor, labels: np.ndarray, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return a view of an image and its label map.

        Parameters
        ----------
        image
            Shape ``(3, H, W)``, uint8.
        labels
            Shape ``(H, W)``, uint8.
        generator
            Source of random numbers; torch's global one without it.

        Returns
        -------
        Image ``(3, crop, crop)``, float32, and labels ``(crop / stride, crop / stride)``, uint8.

        Raises
        ------
        DataError
            If the two differ in size.
        """
        if tuple(labels.shape) != tuple(image.shape[1:]):
            raise DataError(f"label map of shape {labels.shape} for an image of {tuple(image.shape[1:])}")
        low, high = self.scale
        factor = low + (high - low) * torch.rand((), generator=generator).item()
        size = [max(1, round(side * factor)) for side in labels.shape]
        image = resize(image, *size)
        coarse = F.interpolate(torch.from_numpy(labels)[None, None], size, mode="nearest-exact")[0, 0]
        if torch.rand((), generator=generator) < 0.5:
            image, coarse = image.flip(-1), coarse.flip(-1)
        if self.jitter:
            image = jittered(image, generator)
        view = torch.zeros(3, self.crop, self.crop)
        out = torch.full((self.crop, self.crop), self.ignore, dtype=torch.uint8)
        source, place = [], []
        for length in size:
            start = int(torch.randint(0, abs(length - self.crop) + 1, (), generator=generator))
            kept, larger = min(length, self.crop), length > self.crop
            source.append(slice(start, start + kept) if larger else slice(0, kept))
            place.append(slice(0, kept) if larger else slice(start, start + kept))
        view[:, place[0], place[1]] = normalise(image[:, source[0], source[1]], self.mean, self.std)
        out[place[0], place[1]] = coarse[source[0], source[1]]
        middle = self.stride // 2
        return view, out[middle :: self.stride, middle :: self.stride]


def jittered(image: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Return an image (3, H, W), uint8, with its colours changed at random: what UPerNet is trained with.

    Brightness by a factor in [0.875, 1.125], contrast and saturation in [0.5, 1.5], hue by up to 0.05 of the
    circle, each with probability 1/2.
    """
    ranges = (
        (transforms.adjust_brightness, 0.875, 1.125), (transforms.adjust_contrast, 0.5, 1.5),
        (transforms.adjust_saturation, 0.5, 1.5), (transforms.adjust_hue, -0.05, 0.05),
    )  # fmt: skip
    for change, low, high in ranges:
        use, where = torch.rand(2, generator=generator).tolist()
        if use < 0.5:
            image = change(image, low + (high - low) * where)
    return image


class PairedViews(LabelledViews):
    """Views of images and pseudo masks, for a loader; see `LabelledViews` for what draws depend on.

    Parameters
    ----------
    images
        Door 1 of a data set.
    labels
        Image id to a pseudo mask ``(H, W)``, uint8, made from image-level labels.
    view
        A `PairedView`.
    seed
        Chooses the draws.
    """

    def __init__(
        self, images: ImageSet, labels: Callable[[str], np.ndarray], view: PairedView, *, seed: int = 0
    ) -> None:
        super().__init__(images, view, seed=seed)
        self.pseudo = labels

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Return a view ``(3, crop, crop)``, its label map and the index in ``images.ids``."""
        id = self.images.ids[index]
        view, labels = self.view(self.images.image(id), self.pseudo(id), self.draws(id))
        return view, labels, index
