# SPDX-License-Identifier: Apache-2.0
"""Metres per unit of the network, from what is known beside the images: a height, for one.

A source collects ratios from image to image and says at any time which scale they amount to; who
asks applies it. The floor is found in `floor`, the source that follows an odometry is in
`odometry_scale`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

from ttt3r_ros.tracking.floor import FloorEstimate

_NORMAL = 1.4826  # standard deviations in a median absolute deviation of normal errors


@dataclass(frozen=True, slots=True)
class ScaleEstimate:
    """What a source says."""

    scale: float  # metres per unit of the network
    spread: float  # robust standard deviation of log(scale) over the samples
    samples: int


class ScaleSource:
    """The median of the last ratios of a known length to the network's length.

    Medians of logarithms: up to half of the samples may be wrong altogether, and too long counts
    as much as too short.
    """

    def __init__(self, window: int, fewest: int) -> None:
        """Begin without samples.

        Args:
            window: samples kept, the last ones.
            fewest: with fewer samples nothing is said.

        Raises:
            ValueError: not 1 <= fewest <= window.
        """
        if not 1 <= fewest <= window:
            raise ValueError(f"fewest, window: 1 <= fewest <= window, got {fewest}, {window}")
        self._logarithms: deque[float] = deque(maxlen=window)
        self._fewest = fewest

    def estimate(self) -> ScaleEstimate | None:
        """Return the scale in the network's present unit, None before there are enough samples."""
        if len(self._logarithms) < self._fewest:
            return None
        middle = median(self._logarithms)
        spread = _NORMAL * median(abs(value - middle) for value in self._logarithms)
        return ScaleEstimate(math.exp(middle), spread, len(self._logarithms))

    def trusted(self, max_spread: float) -> float | None:
        """Return the scale if there are enough samples and their spread is at most this."""
        found = self.estimate()
        return found.scale if found and found.spread <= max_spread else None

    def unit_changed(self, ratio: float) -> None:
        """Carry the samples to a segment whose lengths times `ratio` are those of the one before.

        Without a call, segments are taken to have one unit; where they do not, the spread grows.

        Raises:
            ValueError: the ratio is not above 0 or not finite.
        """
        check_positive("ratio", ratio)
        shift = math.log(ratio)
        for place, value in enumerate(self._logarithms):
            self._logarithms[place] = value + shift

    def reset(self) -> None:
        """Forget everything."""
        self._logarithms.clear()

    def _add(self, known_m: float, found: float) -> None:
        self._logarithms.append(math.log(known_m / found))


class HeightScale(ScaleSource):
    """Scale by the camera's known height above the floor."""

    def __init__(self, camera_height_m: float, window: int = 101, fewest: int = 10) -> None:
        """Begin without samples; a sample is an image that shows the floor.

        Raises:
            ValueError: the height is not above 0 or not finite, or not 1 <= fewest <= window.
        """
        super().__init__(window, fewest)
        check_positive("camera_height_m", camera_height_m)
        self._camera_height_m = camera_height_m

    def add(self, floor: FloorEstimate | None) -> None:
        """Take what one image, its points in the network's unit, shows of the floor."""
        if floor is not None:
            self._add(self._camera_height_m, floor.height)


def check_positive(name: str, value: float) -> None:
    """Raise a ValueError if a number is not above 0 or not finite."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: must be above 0 and finite, got {value!r}")
