# SPDX-License-Identifier: Apache-2.0
"""Counts of the image stream since the node was activated."""

from __future__ import annotations

import math
import threading
from collections import deque
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass

import numpy as np

from ttt3r_ros.types import NS_PER_S

_STEPS = 30  # stamps whose distances tell the camera's period
MANY_LOST = 0.3  # share of the camera's images; beyond it the transport is at fault
_PERIOD_PERCENTILE = 35  # of the distances; many of the longer ones may span lost images


@dataclass(frozen=True, slots=True)
class StreamCounts:
    """How many images met which end; received = processed + replaced + rejected + waiting.

    Attributes:
        without_odometry: of those processed, how many would have corrected map -> odom.
    """

    received: int = 0
    processed: int = 0
    replaced: int = 0
    rejected: int = 0
    lost_estimated: int = 0
    without_odometry: int = 0

    def since(self, before: StreamCounts) -> StreamCounts:
        """Return what has been counted since another moment."""
        return StreamCounts(*(n - m for n, m in zip(astuple(self), astuple(before), strict=True)))

    @property
    def lost_share(self) -> float:
        """Estimated share of the camera's images that have never arrived."""
        return self.lost_estimated / max(1, self.received + self.lost_estimated)


class StreamCounter:
    """Counts images from the executor's and the worker's thread."""

    def __init__(self, max_gap_s: float) -> None:
        """Start all counts at zero.

        Args:
            max_gap_s: a longer gap between stamps is a pause and no loss; 0: there is none.
        """
        self._max_gap_ns = max_gap_s * NS_PER_S or math.inf
        self._lock = threading.RLock()
        self._received = self._processed = self._replaced = self._rejected = self._lost = 0
        self._without_odometry = 0
        self._last_ns: int | None = None
        self._steps_ns: deque[int] = deque(maxlen=_STEPS)

    def at_once(self) -> AbstractContextManager[bool]:
        """Let several counts change together: nobody else counts or reads within the context."""
        return self._lock

    def received(self, stamp_ns: int) -> None:
        """Count an image, and estimate from its stamp how many did not arrive before it.

        DDS does not say what best effort has lost. The camera's period is taken from the shorter
        ones of the last distances between stamps.
        """
        with self._lock:
            self._received += 1
            step_ns = 0 if self._last_ns is None else stamp_ns - self._last_ns
            self._last_ns = stamp_ns
            if 0 < step_ns <= self._max_gap_ns:
                self._steps_ns.append(step_ns)
                period_ns = np.percentile(self._steps_ns, _PERIOD_PERCENTILE)
                self._lost += max(0, round(step_ns / period_ns) - 1)

    def processed(self) -> None:
        """Count an image that the network stepped over."""
        with self._lock:
            self._processed += 1

    def replaced(self, images: int = 1) -> None:
        """Count images that were dropped while they waited."""
        with self._lock:
            self._replaced += images

    def rejected(self) -> None:
        """Count an image that was of no use."""
        with self._lock:
            self._rejected += 1

    def without_odometry(self) -> None:
        """Count an image of whose time the robot's odometry has not come."""
        with self._lock:
            self._without_odometry += 1

    def counts(self) -> StreamCounts:
        """Return all counts of one moment."""
        with self._lock:
            return StreamCounts(
                received=self._received,
                processed=self._processed,
                replaced=self._replaced,
                rejected=self._rejected,
                lost_estimated=self._lost,
                without_odometry=self._without_odometry,
            )
