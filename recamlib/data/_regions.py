"""Regions of COCO annotations as masks, checked first: damaged ones make the C code read foreign memory."""

from typing import Any

import numpy as np
from pycocotools import mask as run_lengths


def region_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return the mask of one annotation.

    Parameters
    ----------
    segmentation
        Polygons (lists of x, y in turn) or run lengths (a dictionary with ``size`` and ``counts``).
    height, width
        Size of the image, pixels.

    Returns
    -------
    Shape ``(height, width)``, bool.

    Raises
    ------
    ValueError
        If it is neither, does not fit the image, or is damaged; the message says how.
    """
    if isinstance(segmentation, dict):
        if list(segmentation.get("size", ())) != [height, width]:
            raise ValueError(
                f"run lengths of size {segmentation.get('size')} for an image of {[height, width]}"
            )
        return _from_runs(segmentation.get("counts"), height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("neither polygons nor run lengths")
    for polygon in segmentation:
        points = np.asarray(polygon, np.float64)
        if points.ndim != 1 or points.size % 2:
            raise ValueError("a polygon that is no list of x, y")
        if not (np.abs(points) <= 4 * (height + width)).all():  # nan fails too
            raise ValueError("a polygon far outside the image")
    # Fewer than three corners have no area; the C code would take four numbers for a box.
    polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
    if not polygons:
        return np.zeros((height, width), bool)
    runs = run_lengths.merge(run_lengths.frPyObjects(polygons, height, width))
    return run_lengths.decode(runs).astype(bool)


def _from_runs(counts: Any, height: int, width: int) -> np.ndarray:
    """Return the mask of run lengths, which go down the columns and start with what is outside."""
    if isinstance(counts, str):
        counts = _uncompressed(counts)
    runs = np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any() or (runs > height * width).any():
        raise ValueError("damaged run lengths")
    if int(runs.sum()) != height * width:
        raise ValueError(f"run lengths of {int(runs.sum())} pixels for an image of {height * width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _uncompressed(text: str) -> list[int]:
    """Return the run lengths in COCO's text form: 5 bits a character, from the third on as differences."""
    counts, value, shift = [], 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise ValueError("damaged run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:  # more of this number follows
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run lengths that end in the middle of a number")
    return counts
