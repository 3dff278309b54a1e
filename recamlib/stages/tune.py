"""Tuning the random walk: beta, steps and background threshold, chosen on train and confirmed on val."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd
import pydantic
import torch

from recamlib.engine.device import bar, default_device, measured
from recamlib.method.scores import ThresholdSweep, bootstrap_difference, mean_iou_from_counts
from recamlib.method.walk import walk_lengths
from recamlib.stages.base import Split, Stage
from recamlib.stages.boundary import STRIDE
from recamlib.stages.infra import StageCache
from recamlib.stages.walk import Walk, walked_item

Setting = tuple[float, int, float]
"""Beta, steps, background threshold."""


class WalkGrid(Stage):
    """Counts of walked maps against the truth, for many settings of the walk at once.

    Maps and boundaries are those of ``walk``, its own beta and steps aside. All numbers of steps share one
    series of products (:func:`recamlib.method.walk.walk_lengths`), all thresholds one pass over the
    pixels; what is cached is one beta.
    """

    walk: Walk = Walk()
    steps: tuple[int, ...] = (16, 64, 256, 1024)
    thresholds: tuple[float, ...] = (0.2, 0.25, 0.3)
    split: Split = "train"
    limit: int = pydantic.Field(0, ge=0)
    stage: Literal["WalkGrid/2"] = "WalkGrid/2"
    infra: StageCache = StageCache(work="whole")

    def prepare(self, items: Sequence[float]) -> None:
        """Make maps and boundaries of all images."""
        requests = [(self.split, name) for name in self.walk.images(self.split, limit=self.limit).ids]
        self.walk.cams.items(requests)
        self.walk.boundaries.infer(requests)

    @infra.apply(item_uid=str, cache_type="Auto")
    def sweep(self, items: Sequence[float]) -> Iterator[dict[str, Any]]:
        """Yield for each beta the counts (S, T, N, K + 1, 3) and cost."""
        images = self.walk.images(self.split, limit=self.limit)
        truth, device = self.walk.dataset.masks(self.split), default_device()
        requests = [(self.split, name) for name in images.ids]
        for beta in items:
            sweeps = [
                ThresholdSweep(images.space.with_background, thresholds=self.thresholds) for _ in self.steps
            ]
            stored, held = self.walk.cams.items(requests), self.walk.boundaries.infer(requests)
            with measured() as cost:
                for name, item, wall in bar(
                    zip(images.ids, stored, held), total=len(images.ids), desc=f"walks, beta {beta:g}",
                ):  # fmt: skip
                    maps = self.walk.cams.merge(item, stride=STRIDE) ** self.walk.power
                    wall = torch.from_numpy(np.array(wall["boundary"])).float()
                    walked = walk_lengths(
                        maps.to(device), wall.to(device), steps=self.steps, radius=self.walk.radius, beta=beta
                    )
                    mask = truth.mask(name)
                    for sweep, m in zip(sweeps, walked):
                        sweep.add(self.walk.merge(walked_item(m.cpu(), item)), item["classes"], mask)
            counts = [[sweep.per_image(t) for t in self.thresholds] for sweep in sweeps]
            yield {"counts": np.array(counts, dtype=np.int32), "cost": cost}

    def counts(self, setting: Setting) -> np.ndarray:
        """Return the counts per image, (N, K + 1, 3), of one setting."""
        beta, steps, threshold = setting
        found = next(iter(self.sweep([beta])))["counts"]
        return np.array(found[self.steps.index(steps)][self.thresholds.index(threshold)], dtype=np.int64)

    def frame(self, betas: Sequence[float]) -> pd.DataFrame:
        """Return the mIoU in percent of every setting: columns ``beta, steps, threshold, miou``."""
        rows = []
        for beta, found in zip(betas, self.sweep(list(betas))):
            miou = 100 * mean_iou_from_counts(np.asarray(found["counts"], dtype=np.int64).sum(2))  # (S, T)
            rows += [
                {"beta": beta, "steps": s, "threshold": t, "miou": miou[i, j]}
                for i, s in enumerate(self.steps) for j, t in enumerate(self.thresholds)
            ]  # fmt: skip
        return pd.DataFrame(rows)


class WalkStudy:
    """The walk's setting chosen on ``train``, the published one kept in the grid, both scored on ``val``.

    Parameters
    ----------
    walk
        Maps, boundaries, and the published setting: its beta, steps and fixed threshold.
    betas, steps, thresholds
        The grid; the published values join it.
    limit
        Size of the random part of either split; 0 for all.
    """

    def __init__(
        self,
        walk: Walk,
        *,
        betas: Sequence[float],
        steps: Sequence[int],
        thresholds: Sequence[float],
        limit: int = 0,
    ) -> None:
        self.published: Setting = (walk.beta, walk.steps, walk.fixed_threshold)
        self.betas = sorted({*map(float, betas), walk.beta})
        common = {
            "walk": walk, "steps": tuple(sorted({*steps, walk.steps})), "limit": limit,
            "thresholds": tuple(sorted({*thresholds, walk.fixed_threshold})),
        }  # fmt: skip
        self.train, self.val = (WalkGrid(split=split, **common) for split in ("train", "val"))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """mIoU of every setting on ``train``."""
        return self.train.frame(self.betas)

    @cached_property
    def chosen(self) -> Setting:
        """The setting with the highest mIoU on ``train``."""
        best = self.frame.loc[self.frame["miou"].idxmax()]
        return float(best["beta"]), int(best["steps"]), float(best["threshold"])

    def confirm(self) -> dict[str, Any]:
        """Return both settings' mIoU on either split, and their difference on ``val`` with its interval."""
        result: dict[str, Any] = {"published": list(self.published), "chosen": list(self.chosen)}
        for name, grid in (("train", self.train), ("val", self.val)):
            pair = [grid.counts(setting) for setting in (self.chosen, self.published)]
            chosen, published = (100 * float(mean_iou_from_counts(c.sum(0))) for c in pair)
            low, high = (100 * end for end in bootstrap_difference(*pair, seed=0))
            result[name] = {
                "chosen": chosen, "published": published, "difference": chosen - published,
                "interval": [low, high], "images": len(pair[0]),
            }  # fmt: skip
        return result
