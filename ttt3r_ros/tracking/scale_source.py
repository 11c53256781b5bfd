# SPDX-License-Identifier: Apache-2.0
"""Metres per unit of the network, from how far an odometry says that the camera has moved.

Poses at the stamps of images come from an `odometry_buffer`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

import numpy as np

from ttt3r_ros.geometry import Transform, Vector
from ttt3r_ros.tracking.floor import FloorEstimate
from ttt3r_ros.types import NS_PER_S

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


_SHORTEST = 1 / 3  # of a chord that the end of a segment cuts short
_STILL = 1e-6  # of what the odometry has moved: as good as no motion in the images


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the camera was, by the network and by the odometry."""

    stamp_ns: int
    segment: int
    p_segment_camera: Vector  # [3] in the network's unit
    p_odom_camera: Vector  # [3] metres


class OdometryScale(ScaleSource):
    """Scale by how far an odometry says that the camera has moved.

    Compared are chords of the camera's path. One ends where the odometry has moved by `chord_m`
    since its beginning, so that noise makes it hardly longer; a camera that stands or only turns
    never gets there. The end of a segment may cut it to a third.
    """

    def __init__(
        self,
        *,
        chord_m: float = 0.3,
        chord_s: float = 10.0,
        window: int = 41,
        fewest: int = 8,
    ) -> None:
        """Begin without samples; a sample is a chord.

        Args:
            chord_m: length of a chord, at least, in metres.
            chord_s: a chord that is not that long within this time, in seconds, is given up.
            window: chords kept, the last ones.
            fewest: with fewer chords nothing is said.

        Raises:
            ValueError: `chord_m` or `chord_s` is not above 0, or not 1 <= fewest <= window.
        """
        super().__init__(window, fewest)
        for name, value in (("chord_m", chord_m), ("chord_s", chord_s)):
            check_positive(name, value)
        self._chord_m = chord_m
        self._chord_ns = round(chord_s * NS_PER_S)
        self._begin: _Place | None = None  # of the chord
        self._last: _Place | None = None

    def unit_changed(self, ratio: float) -> None:
        """Carry the samples on, as `ScaleSource.unit_changed`; the next image is of that segment.

        Raises:
            ValueError: the ratio is not above 0 or not finite.
        """
        self._end_segment()
        super().unit_changed(ratio)

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._begin = self._last = None

    def add(
        self,
        stamp_ns: int,
        segment: int,
        p_segment_camera: Vector,
        T_odom_camera: Transform | None,
    ) -> None:
        """Take one image.

        Args:
            stamp_ns: of the image, nanoseconds.
            segment: its number; places are compared within a segment only.
            p_segment_camera: [3] where the network sees the camera, in its own unit.
            T_odom_camera: [4, 4] where the odometry sees the camera at that time, metres. None:
                not known; then the image tells nothing.

        Raises:
            ValueError: a number is not finite.
        """
        if T_odom_camera is None:
            return
        p_odom_camera = T_odom_camera[:3, 3]
        places = {"p_segment_camera": p_segment_camera, "T_odom_camera": p_odom_camera}
        for name, place in places.items():
            if not np.isfinite(place).all():
                raise ValueError(f"{name}: must be finite, got {place.tolist()}")
        here = _Place(stamp_ns, segment, p_segment_camera, p_odom_camera)
        begin = self._begin
        if begin and begin.segment != segment:
            self._end_segment()
            begin = None
        self._last = here
        if (
            begin is None
            or not 0 <= stamp_ns - begin.stamp_ns <= self._chord_ns
            or self._end_chord(begin, here, self._chord_m)
        ):
            self._begin = here

    def _end_segment(self) -> None:
        if self._begin and self._last:
            self._end_chord(self._begin, self._last, _SHORTEST * self._chord_m)
        self._begin = self._last = None

    def _end_chord(self, begin: _Place, end: _Place, least_m: float) -> bool:
        """Make a sample of a chord if it is long enough."""
        moved_m = float(np.linalg.norm(end.p_odom_camera - begin.p_odom_camera))
        if moved_m < least_m:
            return False
        seen = float(np.linalg.norm(end.p_segment_camera - begin.p_segment_camera))
        self._add(moved_m, max(seen, _STILL * moved_m))
        return True
