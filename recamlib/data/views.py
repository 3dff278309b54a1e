"""What training sees of an image and what belongs to it: rescaled, mirrored, cropped, normalised."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from recamlib.data.access import ImageSet
from recamlib.errors import DataError, SettingsError, check_shapes
from recamlib.method.boundary import IGNORE

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
#: What UPerNet is trained with: changes of colour and the range of each; hue in parts of the circle.
_JITTER = (
    (transforms.adjust_brightness, 0.875, 1.125), (transforms.adjust_contrast, 0.5, 1.5),
    (transforms.adjust_saturation, 0.5, 1.5), (transforms.adjust_hue, -0.05, 0.05),
)  # fmt: skip


def normalise(
    image: Tensor, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
) -> Tensor:
    """Return ``(image / 255 - mean) / std`` as float32, of uint8 images ``(..., 3, H, W)``."""
    return transforms.normalize(image.float(), torch.tensor(mean) * 255, torch.tensor(std) * 255)


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 images ``(..., 3, H, W)`` bicubically, antialiased as Pillow does it."""
    if image.shape[-2:] == (height, width):
        return image
    return transforms.resize(image, [height, width], interpolation=InterpolationMode.BICUBIC, antialias=True)


def rescale(image: Tensor, scale: float) -> Tensor:
    """Resize uint8 images ``(..., 3, H, W)`` to ``round(H * scale), round(W * scale)``, at least 1."""
    height, width = image.shape[-2:]
    return resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


def _crop(size: Sequence[int], crop: int, generator: torch.Generator | None) -> list[tuple[slice, slice]]:
    """Draw which part of an image of `size` is seen, and where in the view it lies: rows, columns of both."""
    parts = []
    for length in size:
        start = int(torch.randint(0, abs(length - crop) + 1, (), generator=generator))
        some, whole = slice(start, start + min(length, crop)), slice(0, min(length, crop))
        parts.append((some, whole) if length > crop else (whole, some))
    return list(zip(*parts))


class TrainView:
    """One random training view of an image, ``(crop, crop)`` pixels: long side, mirror, crop.

    The length of the longer side is drawn from `long_side`, both ends included. As in the authors' code, an
    image smaller than the crop lands somewhere in it at random, and the rest is the mean colour.
    """

    def __init__(
        self, *, crop: int, long_side: tuple[int, int], mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD, flip: bool = True,
    ) -> None:  # fmt: skip
        if crop < 1 or not 1 <= long_side[0] <= long_side[1]:
            raise SettingsError(f"crop {crop} and long_side {long_side}: use 1 or more, the low end first")
        self.crop, self.long_side, self.flip = crop, long_side, flip
        self.mean, self.std = tuple(mean), tuple(std)

    def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return one view, shape ``(3, crop, crop)``, float32, of an image ``(3, H, W)``, uint8."""

        def draw(low: int, high: int) -> int:  # both ends included
            return int(torch.randint(low, high + 1, (), generator=generator))

        target = draw(*self.long_side)
        image = rescale(image, target / max(image.shape[-2:]))  # (3, h, w)
        if self.flip and draw(0, 1):
            image = image.flip(-1)
        view = torch.zeros(len(image), self.crop, self.crop)
        (rows, columns), place = _crop(image.shape[-2:], self.crop, generator)
        view[:, *place] = normalise(image[:, rows, columns], self.mean, self.std)
        return view


class PairedView:
    """One random training view of an image and its label map: scale, mirror, crop.

    `stride` is the pixels of the view per cell of the label map; cells outside the image have `IGNORE`. The
    factor of the size is drawn from `scale`, evenly; if `short_side` is not 0, it is a factor of this size of
    the image's shorter side, as long as the longer one is at most four times as long. With `jitter`,
    brightness, contrast, saturation and hue are changed, each in every second view.

    Source: IRN voc12/dataloader.py. With ``short_side``, mmsegmentation's resize to 2048 x 512 with a ratio,
    which Section 5 names for UperNet.
    """

    def __init__(
        self, *, crop: int, scale: tuple[float, float] = (0.5, 1.5), short_side: int = 0, stride: int = 4,
        jitter: bool = False,
    ) -> None:  # fmt: skip
        if crop < 1 or stride < 1 or crop % stride:
            raise SettingsError(f"crop must be a multiple of the stride {stride}, got {crop}")
        if not 0 < scale[0] <= scale[1]:
            raise SettingsError(f"scale must be 0 < low <= high, got {tuple(scale)}")
        self.crop, self.scale, self.stride = crop, tuple(scale), stride
        self.jitter, self.short_side = jitter, short_side

    def __call__(
        self, image: Tensor, labels: np.ndarray, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return a view of an image, ``(3, crop, crop)``, float32, and its labels, ``(cells, cells)``."""
        check_shapes(image=(image, "3, H, W"), label_map=(labels, "H, W"))
        low, high = self.scale
        factor = low + (high - low) * torch.rand((), generator=generator).item()
        if self.short_side:
            factor *= min(self.short_side / min(labels.shape), 4 * self.short_side / max(labels.shape))
        size = [max(1, round(side * factor)) for side in labels.shape]
        image = resize(image, *size)
        coarse = F.interpolate(torch.from_numpy(labels)[None, None], size, mode="nearest-exact")[0, 0]
        if torch.rand((), generator=generator) < 0.5:
            image, coarse = image.flip(-1), coarse.flip(-1)
        for change, low, high in _JITTER if self.jitter else ():
            use, where = torch.rand(2, generator=generator).tolist()
            if use < 0.5:
                image = change(image, low + (high - low) * where)
        view = torch.zeros(3, self.crop, self.crop)
        out = torch.full((self.crop, self.crop), IGNORE, dtype=torch.uint8)
        (rows, columns), place = _crop(size, self.crop, generator)
        view[:, *place] = normalise(image[:, rows, columns])
        out[place] = coarse[rows, columns]
        middle = self.stride // 2
        return view, out[middle :: self.stride, middle :: self.stride]


class LabelledViews(Dataset):
    """Views and labels of an image set, for a loader; draws depend on `seed`, `epoch` and image id alone."""

    def __init__(self, images: ImageSet, view: Callable, *, seed: int = 0, epoch: int = 0) -> None:
        self.images, self.view, self.seed, self.epoch = images, view, seed, epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next views; call it before a loader starts."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        """Return a view ``(3, crop, crop)``, its labels ``(K,)`` float32 and the index in ``images.ids``."""
        id = self.images.ids[index]
        labels = torch.from_numpy(self.images.labels(id)).to(torch.float32)
        return self.view(self.picture(id), self.draws(id)), labels, index

    def picture(self, id: str) -> Tensor:
        return self.images.image(id)

    def draws(self, id: str) -> torch.Generator:
        """Return the generator of an image's draws in this epoch."""
        digest = hashlib.blake2b(f"{self.seed}/{self.epoch}/{id}".encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


class SaliencyViews(LabelledViews):
    """Views with the image's saliency map as a fourth channel, as EPS has it (metadata/dataset.py)."""

    def __init__(
        self, images: ImageSet, saliency: Callable[[str], np.ndarray], *, crop: int,
        long_side: tuple[int, int], seed: int = 0,
    ) -> None:  # fmt: skip
        view = TrainView(crop=crop, long_side=long_side, mean=(*IMAGENET_MEAN, 0.0), std=(*IMAGENET_STD, 1.0))
        super().__init__(images, view, seed=seed)
        self.saliency = saliency

    def picture(self, id: str) -> Tensor:
        image = self.images.image(id)
        saliency = torch.from_numpy(np.array(self.saliency(id)))  # (H, W)
        if saliency.shape != image.shape[1:]:
            shapes = f"has shape {tuple(saliency.shape)}, the image {tuple(image.shape[1:])}"
            raise DataError(f"the saliency map of {id} {shapes}: was the image changed?")
        return torch.cat([image, saliency[None]])


class PairedViews(LabelledViews):
    """Views of images and of their pseudo masks ``(H, W)``, uint8, by a `PairedView`, for a loader."""

    def __init__(
        self, images: ImageSet, labels: Callable[[str], np.ndarray], view: PairedView, *, seed: int = 0
    ) -> None:
        super().__init__(images, view, seed=seed)
        self.pseudo = labels

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, int]:
        id = self.images.ids[index]
        view, labels = self.view(self.images.image(id), self.pseudo(id), self.draws(id))
        return view, labels, index
