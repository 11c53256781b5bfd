# SPDX-License-Identifier: Apache-2.0
"""What the reports of `ttt3r evaluate` are made from: metrics, what happened over time, pictures.

Nothing here knows how a report looks; `files` writes and reads it, `tables` and the
plots draw on it. Pictures are prepared in `pictures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from ttt3r_ros.types import TrackingState

Stamps = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB

_WINDOW_S = 2.0  # of the local scale
_RESTING_M = 0.02  # a camera that spreads no farther than this within a window tells no scale


@dataclass(frozen=True, slots=True)
class Series:
    """What is known of each image of a sequence, in order of time; NaN is unknown.

    LOST images belong here too, with a position of NaN.

    Raises:
        ValueError: the lengths differ.
    """

    stamps_ns: Stamps  # [N]
    positions_m: Numbers  # [N, 3] of the camera, aligned to the truth as `alignment` says
    true_positions_m: Numbers  # [N, 3] in the same frame
    gain: Numbers  # [N] mean gain of the state's update, 0 to 1
    confidence: Numbers  # [N] median of the image
    scale: Numbers  # [N] metres per unit of the network
    step_ms: Numbers  # [N]
    state: npt.NDArray[np.int8]  # [N], of `TrackingState`
    segment: Stamps  # [N] number of the segment that the image belongs to
    alignment: str = "none"  # "sim3", "se3", "scale" or "none"
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)  # in the frame of the positions

    def __post_init__(self) -> None:
        count = len(self.stamps_ns)
        for name in (entry.name for entry in fields(self)[1:-2]):
            array = getattr(self, name)
            expected = (count, 3) if name.endswith("positions_m") else (count,)
            if array.shape != expected:
                raise ValueError(f"{name}: expected {[*expected]}, got {[*array.shape]}")

    @property
    def seconds(self) -> Numbers:
        """[N] since the first image."""
        return (self.stamps_ns - self.stamps_ns[:1]) / 1e9

    @property
    def position_error_m(self) -> Numbers:
        """[N] distance to the true position."""
        distance: Numbers = np.linalg.norm(self.positions_m - self.true_positions_m, axis=1)
        return distance

    def boundaries(self) -> npt.NDArray[np.bool_]:
        """Return [N] whether a segment begins with the image; the first one does not count."""
        follows = np.zeros(len(self.segment), bool)
        tracked = np.flatnonzero(self.state != TrackingState.LOST)
        follows[tracked[1:]] = np.diff(self.segment[tracked]) != 0
        return follows

    def local_scale(self) -> Numbers:
        """Return [N] what the estimate would have to be multiplied with around each image.

        The spread of the true positions over that of the estimated ones, both as root mean squares
        about their means within one second before and after. NaN where the camera hardly moves.
        """
        known = np.isfinite(self.position_error_m)
        seconds = self.seconds[known]
        first = np.searchsorted(seconds, seconds - _WINDOW_S / 2)
        last = np.searchsorted(seconds, seconds + _WINDOW_S / 2, side="right")
        windows = list(zip(first, last, strict=True))
        true, estimated = (
            np.array([np.linalg.norm(positions[i:j].std(axis=0)) for i, j in windows])
            for positions in (self.true_positions_m[known], self.positions_m[known])
        )
        tells = (true > _RESTING_M) & (estimated > 0)
        result = np.full(len(known), np.nan)
        result[known] = np.divide(true, estimated, out=np.full(len(true), np.nan), where=tells)
        return result


@dataclass(frozen=True, slots=True)
class DepthExample:
    """An example of an image and its depth, small enough to be shown; see `make_example`."""

    stamp_ns: int
    rgb: Picture  # [H, W, 3], what the network saw
    depth_m: Floats  # [h, w], NaN where unknown
    true_depth_m: Floats | None = None  # [h, w] of the same view, NaN where unknown


@dataclass(frozen=True, slots=True)
class SequenceReport:
    """All of one sequence under one configuration."""

    name: str
    configuration: str
    metrics: Mapping[str, Any]  # the content of report.json
    series: Series | None = None
    views: Sequence[DepthExample] = ()
    map_picture: Picture | None = None  # the map from above


@dataclass(frozen=True, slots=True)
class Result:
    """One row of a comparison: one sequence under one configuration."""

    sequence: str
    configuration: str
    metrics: Mapping[str, Any] = field(default_factory=dict)  # the content of report.json
    folder: str = ""  # of its own report, as seen from the comparison's; empty: there is none
    failure: str = ""  # why there are no metrics


@dataclass(frozen=True, slots=True)
class Published:
    """What a paper says of a sequence, or of the mean over all of them."""

    name: str  # of the method and the paper's table
    sequence: str  # empty: the mean
    metrics: Mapping[str, Any]  # of the same form as in report.json, as much as there is


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several sequences, several configurations."""

    title: str
    results: Sequence[Result]
    about: str = ""  # the protocol, in words
    published: Sequence[Published] = ()
    run_metadata: Mapping[str, Any] = field(default_factory=dict)  # command, versions, settings


class ExampleSampler:
    """Keeps examples evenly spread over a stream whose length nobody knows yet."""

    def __init__(self, most: int = 6) -> None:
        """Keep at most so many in the end, and at most twice as many until then."""
        self._most, self._every, self._passed = most, 1, 0
        self._kept: list[DepthExample] = []

    def wants_next(self) -> bool:
        """Return whether the next image is to be given to `add`; to be asked once for each."""
        wanted = self._passed % self._every == 0
        self._passed += 1
        return wanted

    def add(self, view: DepthExample) -> None:
        """Take an example."""
        self._kept.append(view)
        if len(self._kept) > 2 * self._most:
            self._kept = self._kept[::2]
            self._every *= 2

    def views(self) -> list[DepthExample]:
        """Return those chosen, in order of time."""
        count = min(self._most, len(self._kept))
        middles = (np.arange(count) + 0.5) / max(count, 1) * len(self._kept)
        return [self._kept[int(place)] for place in middles]
