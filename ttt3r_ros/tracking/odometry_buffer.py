# SPDX-License-Identifier: Apache-2.0
"""The last poses of an odometry, asked for at the stamps of images."""

from __future__ import annotations

from bisect import bisect_left
from threading import Lock

import numpy as np

from ttt3r_ros.geometry import Transform, between
from ttt3r_ros.types import NS_PER_S


class OdometryBuffer:
    """A bounded history of poses in the order of their stamps. Threads may share it."""

    def __init__(
        self, capacity: int = 2000, *, max_gap_s: float = 0.25, jump_back_s: float = 1.0
    ) -> None:
        """Start empty.

        Args:
            capacity: poses kept, those with the latest stamps.
            max_gap_s: between poses further apart in time nothing is interpolated.
            jump_back_s: a stamp this far before the latest one means that time has begun anew:
                all that was before is forgotten. Nearer ones are late and put in their place.

        Raises:
            ValueError: a number is not above 0.
        """
        numbers = {"capacity": capacity, "max_gap_s": max_gap_s, "jump_back_s": jump_back_s}
        for name, number in numbers.items():
            if not number > 0:
                raise ValueError(f"{name}: must be above 0, got {number!r}")
        self._capacity = capacity
        self._max_gap_ns = round(max_gap_s * NS_PER_S)
        self._jump_back_ns = round(jump_back_s * NS_PER_S)
        self._stamps_ns: list[int] = []
        self._poses: list[Transform] = []
        self._lock = Lock()

    def add(self, stamp_ns: int, T_odom_base: Transform) -> None:
        """Keep a pose; of several with one stamp, the last.

        Args:
            stamp_ns: nanoseconds.
            T_odom_base: [4, 4], metres.

        Raises:
            ValueError: not a finite [4, 4]; nothing has changed.
        """
        if T_odom_base.shape != (4, 4) or not np.isfinite(T_odom_base).all():
            raise ValueError(f"T_odom_base: expected a finite [4, 4], got {T_odom_base.tolist()}")
        with self._lock:
            stamps, poses = self._stamps_ns, self._poses
            if stamps and stamps[-1] - stamp_ns >= self._jump_back_ns:
                stamps.clear()
                poses.clear()
            place = bisect_left(stamps, stamp_ns)
            if place < len(stamps) and stamps[place] == stamp_ns:
                poses[place] = T_odom_base
                return
            stamps.insert(place, stamp_ns)
            poses.insert(place, T_odom_base)
            if len(stamps) > self._capacity:
                del stamps[0], poses[0]

    def is_past(self, stamp_ns: int) -> bool:
        """Return whether a pose of a later time, or of this one, is known."""
        with self._lock:
            return bool(self._stamps_ns) and self._stamps_ns[-1] >= stamp_ns

    def at(self, stamp_ns: int) -> Transform | None:
        """Return the pose [4, 4] at a time, None before, after and in gaps of what is known."""
        with self._lock:
            after = bisect_left(self._stamps_ns, stamp_ns)
            if after == len(self._stamps_ns):
                return None
            if self._stamps_ns[after] == stamp_ns:
                return self._poses[after]
            if after == 0:
                return None
            begin_ns, end_ns = self._stamps_ns[after - 1 : after + 1]
            begin, end = self._poses[after - 1 : after + 1]
        if end_ns - begin_ns > self._max_gap_ns:
            return None
        return between(begin, end, (stamp_ns - begin_ns) / (end_ns - begin_ns))
