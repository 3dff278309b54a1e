"""Dense CRF without torch: labels and probabilities that follow the edges of the image, for many at once."""

from __future__ import annotations  # so that the library's pages can say ArrayLike, not what it stands for

import importlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import joblib
import numpy as np
from numpy.typing import ArrayLike

from recamlib.errors import DataError, RecamError, SettingsError, check_numbers, check_shapes


class MissingCrfError(RecamError):
    """The compiled package behind this module is not installed."""


@dataclass(frozen=True, kw_only=True)
class CrfSettings:
    """Two pairwise terms, each with a Potts weight, and how often messages are passed.

    Standard deviations are in pixels, for colours (``srgb``) in grey levels. `label_confidence` is the
    probability of a pixel's given label, the others share the rest; unused if probabilities are given.
    """

    spatial_sxy: float
    spatial_weight: float
    bilateral_sxy: float
    bilateral_srgb: float
    bilateral_weight: float
    label_confidence: float = 0.7
    steps: int = 10

    def __post_init__(self) -> None:
        if not min(vars(self).values()) > 0 or self.label_confidence >= 1:
            raise SettingsError(f"{self}: all have to be above 0, and label_confidence below 1")


#: What IRN makes its training labels with.
IRN_LABELS = CrfSettings(
    spatial_sxy=3, spatial_weight=3, bilateral_sxy=50, bilateral_srgb=5, bilateral_weight=10
)
#: What DeepLabV2's predictions are refined with at test time.
SEGMENTATION = CrfSettings(
    spatial_sxy=1, spatial_weight=3, bilateral_sxy=67, bilateral_srgb=3, bilateral_weight=4
)


def load_densecrf() -> ModuleType:
    """Return the compiled package, or raise a `MissingCrfError` that tells how to get it."""
    try:
        return importlib.import_module("pydensecrf.densecrf")
    except ImportError as error:
        install = "with a C++ compiler and the Python headers there, run make -B env"
        raise MissingCrfError(f"the dense CRF is not installed ({error}): {install}") from error


def usable(wanted: bool) -> bool:
    """Return whether the dense CRF is wanted and there; if it is missing, warn and go on without it."""
    try:
        return wanted and bool(load_densecrf())
    except MissingCrfError as error:
        warnings.warn(f"IRN's labels are not refined here: {error}", stacklevel=2)
        return False


def crf_labels(
    image: ArrayLike, labels: ArrayLike, *, num_labels: int, settings: CrfSettings = IRN_LABELS
) -> np.ndarray:
    """Move the borders of label maps to the edges of their image; shape of `labels`, uint8.

    The image is ``(3, H, W)``, uint8. Labels ``(H, W)`` are whole numbers in ``0 .. num_labels - 1``: indices
    into {background} + classes present, seen or not. Several such maps, ``(N, H, W)``, share what depends on
    the image alone.

    Source: Section 4.1 refers to IRN, whose labels come from step/cam_to_ir_label.py.
    """
    image, labels = _image(image), as_array(labels)
    if not 1 <= num_labels <= 256:
        raise DataError(f"num_labels is {num_labels}, expected 1 to 256")
    check_shapes(image=(image, "3, H, W"), labels=(labels, "N, H, W" if labels.ndim == 3 else "H, W"))
    check_numbers("labels", labels, num_labels)
    if num_labels == 1:
        return labels.astype(np.uint8)
    certain = settings.label_confidence
    maps = labels.reshape(-1, image[0].size)  # (N, H*W)
    shape, other = (len(maps), num_labels, maps.shape[1]), -np.log((1 - certain) / (num_labels - 1))
    unaries = np.full(shape, other, np.float32)
    np.put_along_axis(unaries, maps[:, None], np.float32(-np.log(certain)), 1)
    refined = _infer(image, unaries, settings)  # N of (num_labels, H*W)
    return np.stack([r.argmax(0).astype(np.uint8) for r in refined]).reshape(labels.shape)


def crf_probabilities(
    image: ArrayLike, probabilities: ArrayLike, *, settings: CrfSettings = SEGMENTATION
) -> np.ndarray:
    """Refine class probabilities ``(L, H, W)``, a softmax over labels, along the edges of an image; float32.

    Those below 1e-5 count as 1e-5. Source: test-time step of DeepLabV2, as Section 4.1 has it for Table 3.
    """
    image, probabilities = _image(image), as_array(probabilities)
    check_shapes(image=(image, "3, H, W"), probabilities=(probabilities, "labels, H, W"))
    probabilities = probabilities.astype(np.float32)
    if not np.isfinite(probabilities).all():
        raise DataError("probabilities are not all finite: the network that made them has diverged")
    sums = probabilities.sum(0)
    if not len(probabilities) or probabilities.min() < 0 or np.abs(sums - 1).max() > 0.02:  # half precision
        raise DataError("probabilities do not sum to 1 in every pixel: apply softmax over the labels first")
    if len(probabilities) == 1:
        return probabilities
    unary = -np.log(np.clip(probabilities, 1e-5, 1)).reshape(len(probabilities), -1)
    return next(_infer(image, [unary], settings)).reshape(probabilities.shape)


def crf_many(
    function: Callable[..., np.ndarray], images: Iterable[dict[str, Any]], *, processes: int | None = None
) -> Iterator[np.ndarray]:
    """Yield what `crf_labels` or `crf_probabilities` returns for many images, in order.

    `images` are the arguments of `function` by name for every image, perhaps from a generator: a few for each
    process are held at a time. `processes` are `default_processes` if None; with 0 and 1 all stays here.
    """
    load_densecrf()  # before the first process is started
    processes = default_processes() if processes is None else processes
    # processes, because the package keeps Python's lock while it computes: threads would take turns
    pool = joblib.Parallel(
        max(1, processes), return_as="generator", batch_size=1, pre_dispatch="2*n_jobs", max_nbytes=None
    )
    plain = ({k: as_array(v) if hasattr(v, "detach") else v for k, v in image.items()} for image in images)
    results = pool(joblib.delayed(_named)(i, function, image) for i, image in enumerate(plain))
    try:
        for result in results:  # noqa: UP028 - closing them is ours, see below
            yield result
    except BrokenProcessPool as error:
        killed = "a process of the dense CRF was killed (out of memory?)"
        raise RecamError(f"{killed}: run again with RECAM_WORKERS=1") from error
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # joblib counts the results that nobody takes
            results.close()


def default_processes(otherwise: int | None = None) -> int:
    """Return ``$RECAM_WORKERS``, or what is given, or the number of cores this process may use."""
    wanted = os.environ.get("RECAM_WORKERS") or str(joblib.cpu_count() if otherwise is None else otherwise)
    if not wanted.isdecimal():
        raise SettingsError(f"RECAM_WORKERS is {wanted!r}, expected a number of processes")
    return int(wanted)


def as_array(values: ArrayLike) -> np.ndarray:
    """Return a plain array of a tensor from any device, or of anything else; bfloat16 becomes float32."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)


def _image(values: ArrayLike) -> np.ndarray:
    image = as_array(values)
    if image.ndim != 3 or image.shape[0] != 3 or not image.size or image.dtype != np.uint8:
        raise DataError(f"the image is {image.dtype} of shape {image.shape}, expected uint8 of (3, H, W)")
    return image


def _infer(
    image: np.ndarray, unaries: Sequence[np.ndarray] | np.ndarray, settings: CrfSettings
) -> Iterator[np.ndarray]:
    """Yield the mean-field probabilities ``(L, H*W)`` of every set of unary energies ``(L, H*W)``."""
    _, height, width = image.shape
    model = load_densecrf().DenseCRF2D(width, height, len(unaries[0]))
    # the package writes to none of its arguments, but takes only what is writable and in C order
    pixels = np.array(image.transpose(1, 2, 0), order="C")  # (H, W, 3)
    model.addPairwiseGaussian(settings.spatial_sxy, settings.spatial_weight)
    scales = settings.bilateral_sxy, settings.bilateral_srgb
    model.addPairwiseBilateral(*scales, pixels, settings.bilateral_weight)
    for unary in unaries:
        model.setUnaryEnergy(np.require(unary, np.float32, ["C", "W"]))
        yield np.array(model.inference(settings.steps))


def _named(number: int, function: Callable[..., np.ndarray], arguments: dict[str, Any]) -> np.ndarray:
    try:
        return function(**arguments)
    except RecamError as error:
        raise type(error)(f"image {number}: {error}") from error
