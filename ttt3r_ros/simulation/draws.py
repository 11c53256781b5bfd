# SPDX-License-Identifier: Apache-2.0
"""Random numbers that depend on a seed alone. What they decide is said where they are drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Draws:
    """A row of uniform numbers for each seed, handed out in order.

    Row r depends on `seeds[r]` and `purpose` alone: neither on the other seeds of the batch nor
    on the device the results are moved to.

    Args:
        seeds: one or several non-negative integers; R is their number.
        purpose: separates users of the same seed, so that a room's size says nothing about the
            camera path drawn with the same number.
        count: numbers available for each seed.
        dtype: of the results.

    Raises:
        ValueError: no seed, or a negative one.
    """

    def __init__(
        self,
        seeds: int | Sequence[int],
        purpose: int,
        count: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
        if not self.seeds or min(self.seeds) < 0:
            raise ValueError(f"seeds: need at least one and none below 0, got {seeds!r}")
        rows = [np.random.default_rng((purpose, seed)).random(count) for seed in self.seeds]
        self._numbers = torch.from_numpy(np.stack(rows)).to(dtype)  # [R, count]
        self._used = 0

    def uniform(self, low: float | Tensor, high: float | Tensor, *shape: int) -> Tensor:
        """The next numbers of every row, spread over [low, high]: [R, *shape]."""
        size = int(np.prod(shape, dtype=int))
        numbers = self._numbers[:, self._used : self._used + size]
        if numbers.shape[1] < size:
            raise ValueError(f"count: {self._numbers.shape[1]} numbers are too few")
        self._used += size
        unit = numbers.reshape(len(self.seeds), *shape)
        return low + (high - low) * unit

    def chance(self, probability: float, *shape: int) -> Tensor:
        """True with the given probability: [R, *shape] bool."""
        return self.uniform(0.0, 1.0, *shape) < probability

    def choice(self, options: Tensor, *shape: int) -> Tensor:
        """One of `options` [n, ...] for each place: [R, *shape, ...]."""
        index = (self.uniform(0.0, 1.0, *shape) * len(options)).long()
        return options[index.clamp(max=len(options) - 1)]
