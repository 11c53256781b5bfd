# SPDX-License-Identifier: Apache-2.0
"""Metres per unit of the network, from what is known beside the images.

That is the camera's height above the floor (`floor`), or the way that the robot's odometry has
gone (poses at the stamps of images come from an `odometry_buffer`). A source collects ratios from
image to image; `MetricScale` says when a segment may take their median.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

import numpy as np
from torch import Tensor

from ttt3r_ros.config import Config, ConfigError
from ttt3r_ros.geometry import Transform, Vector
from ttt3r_ros.tracking.floor import FloorEstimate, floor_height
from ttt3r_ros.types import NS_PER_S

_NORMAL = 1.4826  # standard deviations in a median absolute deviation of normal errors
_SHORTEST = 1 / 3  # of a chord that the end of a segment cuts short
_STILL = 1e-6  # of what the odometry has moved: as good as no motion in the images


@dataclass(frozen=True, slots=True, eq=False)
class ScaleObservation:
    """What one image shows of the scale; lengths are in the network's unit."""

    stamp_ns: int
    segment: int  # number of the image's segment
    p_segment_camera: Vector  # [3] place of the camera in its segment
    T_odometry_camera: Transform | None  # [4, 4] by the robot's odometry, metres; None: not known
    T_map_camera: Transform  # [4, 4], of which only the rotation is used
    points: Tensor  # [H, W, 3] in the camera's optical frame
    confidence: Tensor  # [H, W]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the camera was, by the network and by the odometry."""

    stamp_ns: int
    segment: int
    p_segment_camera: Vector  # [3] in the network's unit
    p_odom_camera: Vector  # [3] metres


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

    # Whether the image that two segments share is to be observed in both.
    observes_shared_image = False

    def __init__(self, window: int, fewest: int) -> None:
        """Start with no samples.

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

    def observe(self, image: ScaleObservation) -> None:
        """Take one image that was tracked."""
        raise NotImplementedError

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

    def __init__(
        self,
        camera_height_m: float,
        window: int = 101,
        fewest: int = 10,
        min_confidence: float = 1.0,
    ) -> None:
        """Start with no samples; a sample is an image that shows the floor.

        Args:
            camera_height_m: of the camera above the floor.
            window: images kept, the last ones.
            fewest: with fewer images nothing is said.
            min_confidence: points below are not looked at for the floor.

        Raises:
            ValueError: the height is not above 0 or not finite, or not 1 <= fewest <= window.
        """
        super().__init__(window, fewest)
        check_positive("camera_height_m", camera_height_m)
        self._camera_height_m = camera_height_m
        self._min_confidence = min_confidence

    def observe(self, image: ScaleObservation) -> None:
        """Look for the floor in an image.

        It is looked for below the map's horizon: of the two frames the map is level even after a
        fall in the dark.
        """
        self.add(
            floor_height(
                image.points,
                image.confidence,
                image.T_map_camera,
                min_confidence=self._min_confidence,
            )
        )

    def add(self, floor: FloorEstimate | None) -> None:
        """Take what one image, its points in the network's unit, shows of the floor."""
        if floor is not None:
            self._add(self._camera_height_m, floor.height)


def check_positive(name: str, value: float) -> None:
    """Raise a ValueError if a number is not above 0 or not finite."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: must be above 0 and finite, got {value!r}")


class OdometryScale(ScaleSource):
    """Scale by how far an odometry says that the camera has moved.

    Compared are chords of the camera's path. One ends where the odometry has moved by `chord_m`
    since its beginning, so that noise makes it hardly longer; a camera that stands or only turns
    never gets there. The end of a segment may cut it to a third.
    """

    observes_shared_image = True  # a chord may begin there

    def __init__(
        self,
        *,
        chord_m: float = 0.3,
        chord_s: float = 10.0,
        window: int = 41,
        fewest: int = 8,
    ) -> None:
        """Start with no samples; a sample is a chord.

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

    def observe(self, image: ScaleObservation) -> None:
        """Take an image's place by the network and by the odometry."""
        self.add(image.stamp_ns, image.segment, image.p_segment_camera, image.T_odometry_camera)

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


class MetricScale:
    """The scale that segments take from the source which the settings name, once it is trusted."""

    def __init__(self, config: Config) -> None:
        """Start with no samples.

        Raises:
            ConfigError: `scale_source` needs a setting that is not given.
        """
        self._max_log_spread = config.scale_max_log_spread
        self._source: ScaleSource | None = None
        if config.scale_source == "odom":
            self._source = OdometryScale()
        elif config.scale_source == "camera_height":
            if not config.camera_height_m:
                raise ConfigError(
                    "camera_height_m: must be above 0 with scale_source camera_height"
                )
            self._source = HeightScale(config.camera_height_m, min_confidence=config.confidence.min)
        self._is_taken = False

    def reset(self) -> None:
        """Forget all samples: what comes is in another unit."""
        if self._source:
            self._source.reset()
        self._is_taken = False

    def observe(self, image: ScaleObservation) -> None:
        """Take an image that was tracked."""
        if self._source:
            self._source.observe(image)

    def observe_shared(self, image: ScaleObservation) -> None:
        """Take an image that was observed in the segment before, as its new segment sees it."""
        if self._source and self._source.observes_shared_image:
            self._source.observe(image)

    def unit_changed(self, ratio: float) -> None:
        """Carry the samples on to a segment of another unit, see `ScaleSource.unit_changed`."""
        if self._source:
            self._source.unit_changed(ratio)

    def take(self) -> float | None:
        """Return the scale for a segment that begins, None if none is trusted."""
        scale = self._trusted()
        self._is_taken |= scale is not None
        return scale

    @property
    def is_news(self) -> bool:
        """Whether a scale is trusted for the first time: it should not wait for a next segment."""
        return not self._is_taken and self._trusted() is not None

    @property
    def is_pending(self) -> bool:
        """Whether segments are still in another unit than they will be in."""
        return self._source is not None and not self._is_taken

    @property
    def log_spread(self) -> float:
        """Spread of the logarithm of the samples; NaN: no source, or too few samples."""
        found = self._source.estimate() if self._source else None
        return found.spread if found else math.nan

    def _trusted(self) -> float | None:
        return self._source.trusted(self._max_log_spread) if self._source else None
