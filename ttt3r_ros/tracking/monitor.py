# SPDX-License-Identifier: Apache-2.0
"""Whether the camera is still followed, judged image by image from `signals`.

What the picture itself shows is compared with fixed limits. What the network says is compared with
what it said of the stream's last images, for its level is another with other weights and places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ttt3r_ros.config import TrackingConfig
from ttt3r_ros.geometry import Intrinsics, Transform
from ttt3r_ros.tracking.signals import SignalMeter, Signals
from ttt3r_ros.types import TrackingState

_LEAST_CONFIDENCE = 1e-3  # above 1, so that there is something to take a share of
_HIGH = 0.9  # quantile of the history that jumps are measured by
_ODD, _TWO_ODD, _LOST = 1, 2, 3  # points


class _Finding(NamedTuple):
    points: int
    text: str


class Monitor:
    """Measures each image of a stream and judges it by these signals.

    One odd signal makes an image UNCERTAIN. Three at once, two at once in two images in a row, or
    a picture that is empty or another make it LOST, and it stays so until nothing is odd. Images
    that are not LOST become part of what is usual, so a change that lasts is odd for half of the
    history at most; what is odd when LOST, and a picture that is repeated, for `patience` images:
    a robot at rest in a simulation without noise sends the same picture for ever.

    Attributes:
        state: of the last image.
        reason: what was wrong with it, else empty.
        compared: the numbers of the last image that limits are for, by name; jumps as shares of
            their limits.
    """

    def __init__(self, config: TrackingConfig | None = None) -> None:
        """Start with an empty history."""
        limits = self._limits = config or TrackingConfig()
        self._below = {  # odd below the first, LOST below the second
            "contrast": (0.0, limits.lost_contrast),
            "similarity": (limits.odd_similarity, limits.lost_similarity),
            "detail": (limits.odd_detail, 0.0),
            "confidence": (limits.odd_confidence, 0.0),
            "share_seen": (limits.odd_share_seen, 0.0),
        }
        self._least_jumps = {
            "disagreement": limits.least_disagreement,
            "translation_jump": limits.least_translation,
            "rotation_jump_rad": limits.least_rotation_rad,
        }
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._meter = SignalMeter()
        length = self._limits.history
        self._confidence = deque[float](maxlen=length)  # above 1
        self._detail = deque[tuple[float, float]](maxlen=length)
        self._jumps = {name: deque[float](maxlen=length) for name in self._least_jumps}
        self._waiting = 0  # LOST images in a row that were no worse than odd
        self.state = TrackingState.INITIALIZING
        self.reason = ""
        self.compared: dict[str, float] = {}
        self.new_segment()

    def new_segment(self) -> None:
        """Expect an image of a new state; what is usual stays so."""
        self.forget_view()
        self._images = 0  # of the segment
        self._good = 0  # in a row
        self._repeats = 0  # in a row
        self._last_points = 0

    def forget_view(self) -> None:
        """Compare the next image's points and pose with nothing: they are another state's."""
        self._meter.new_segment()

    def unit_changed(self, factor: float) -> None:
        """Take what was one long to be `factor` long from the next image on."""
        self._meter.unit_changed(factor)

    def observe(
        self,
        stamp_ns: int,
        rgb: npt.NDArray[np.uint8],
        T_odom_camera: Transform,
        points: Tensor,
        confidence: Tensor,
        median_confidence: float,
        intrinsics: Intrinsics | None,
    ) -> Signals:
        """Measure and judge the next image; points [H, W, 3], the rest as in `SignalMeter`."""
        signals = self._meter.measure(
            stamp_ns, rgb, T_odom_camera, points, confidence, median_confidence, intrinsics
        )
        self.judge(signals)
        return signals

    def judge(self, signals: Signals) -> TrackingState:
        """Judge the next image by its signals alone.

        A LOST image belongs to no segment: the next one begins a new state, as if `new_segment`
        had been called. The first one that is not LOST is INITIALIZING, and so is the first of
        all.
        """
        self._repeats = self._repeats + 1 if signals.repeated else 0
        self.compared = self._compare(signals)
        findings = list(self._findings())
        self.reason = ", ".join(finding.text for finding in findings)
        points = sum(finding.points for finding in findings)
        broken = any(finding.points == _LOST for finding in findings)
        if self._is_lost(points, broken):
            if broken and self.compared.get("detail", 1.0) >= self._limits.odd_detail:
                self._detail.clear()  # not blurred, but perhaps another view, which has its own
            self.new_segment()
            self.state = TrackingState.LOST
            return self.state
        self._remember(signals)
        self._last_points = points
        self._images += 1
        self._good = 0 if points else self._good + 1
        if self._images == 1:
            self.state = TrackingState.INITIALIZING
        elif self._good >= self._limits.good_images:
            self.state = TrackingState.TRACKING
        elif points or self.state is not TrackingState.TRACKING:
            self.state = TrackingState.UNCERTAIN
        return self.state

    def _compare(self, signals: Signals) -> dict[str, float]:
        limits, enough = self._limits, self._limits.least_history
        compared = {"contrast": signals.contrast, "repeats": float(self._repeats)}
        near = signals.dt_s is not None and signals.dt_s <= limits.similarity_s
        if signals.similarity is not None and near:
            compared["similarity"] = signals.similarity
        if signals.share_seen is not None:
            compared["share_seen"] = signals.share_seen
        if len(self._confidence) >= enough:
            above_1 = signals.confidence - 1
            compared["confidence"] = above_1 / _quantile(self._confidence, 0.5)
        if len(self._detail) >= enough:
            usual = (_quantile(past, 0.5) for past in zip(*self._detail, strict=True))
            shares = (now / past for now, past in zip(signals.detail, usual, strict=True) if past)
            compared["detail"] = min(shares, default=1.0)
        for name, past in self._jumps.items():
            value = getattr(signals, name)
            if value is not None and len(past) >= enough:
                usual_most = limits.odd_jump * _quantile(past, _HIGH)
                compared[name] = value / max(usual_most, self._least_jumps[name])
        return compared

    def _findings(self) -> Iterator[_Finding]:
        for name, (odd, lost) in self._below.items():
            value = self.compared.get(name)
            if value is not None and value < max(odd, lost):
                limit = lost if value < lost else odd
                points = _LOST if value < lost else _ODD
                yield _Finding(points, f"{name} {value:.2f} below {limit:g}")
        for name in self._jumps:
            value = self.compared.get(name)
            if value is not None and value > 1:
                yield _Finding(_ODD, f"{name} {value:.1f} times its limit")
        if 0 < self._limits.odd_repeats <= self._repeats <= self._limits.patience:
            yield _Finding(_ODD, f"the same picture {self._repeats + 1} times")

    def _is_lost(self, points: int, broken: bool) -> bool:
        if self.state is not TrackingState.LOST:
            self._waiting = 0
            return points >= _LOST or min(points, self._last_points) >= _TWO_ODD
        self._waiting = 0 if broken else self._waiting + 1
        if self._waiting <= self._limits.patience:
            return points > 0
        self._confidence.clear()
        self._detail.clear()
        return False

    def _remember(self, signals: Signals) -> None:
        if signals.repeated:  # tells of the picture before, once more
            return
        self._confidence.append(max(signals.confidence - 1, _LEAST_CONFIDENCE))
        self._detail.append(signals.detail)
        for name, jumps in self._jumps.items():
            if (jump := getattr(signals, name)) is not None:
                jumps.append(jump)


def _quantile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[round(share * (len(ordered) - 1))]
