# SPDX-License-Identifier: Apache-2.0
"""What image stamps say about the stream: repeated, out of order, restarted or interrupted."""

from __future__ import annotations

from enum import Enum

from ttt3r_ros.config import TimeConfig
from ttt3r_ros.types import NS_PER_S, FrameRejected


class StampStep(Enum):
    """How a stamp follows the last one."""

    NEXT = "next"
    GAP = "gap"  # forward by more than `time.max_gap_s`
    RESTART = "restart"  # back by `time.jump_back_s` or more


class TimeGuard:
    """Remembers the stamp of the last image and judges the next one by it."""

    def __init__(self) -> None:
        self._last_ns: int | None = None  # nanoseconds; None: any stamp may be next

    @property
    def is_fresh(self) -> bool:
        """Whether no image has been accepted since the beginning or the last `reset`."""
        return self._last_ns is None

    def reset(self) -> None:
        """Let any stamp be the next one."""
        self._last_ns = None

    def accept(self, stamp_ns: int) -> None:
        """Take a stamp that was judged as the last image's from now on."""
        self._last_ns = stamp_ns

    def ahead_s(self, stamp_ns: int, left_out_ns: int | None = None) -> float:
        """Return how far a stamp is ahead of the last image's in seconds; 0 before the first.

        With `left_out_ns`, ahead of the later of the two.
        """
        if self._last_ns is None:
            return 0.0
        return (stamp_ns - max(self._last_ns, left_out_ns or self._last_ns)) / NS_PER_S

    def judge(self, stamp_ns: int, left_out_ns: int | None, config: TimeConfig) -> StampStep:
        """Compare a stamp with the last image's, which stays the last one.

        Args:
            stamp_ns: of the next image.
            left_out_ns: of an image in between that was left out.
            config: the limits.

        Raises:
            FrameRejected: the stamp repeats the last one or is a little older.
        """
        if stamp_ns == self._last_ns:
            raise FrameRejected(f"stamp: {stamp_ns} ns repeats the last image's")
        ahead_s = self.ahead_s(stamp_ns)
        if ahead_s >= 0:
            gap_s = self.ahead_s(stamp_ns, left_out_ns)
            return StampStep.GAP if 0 < config.max_gap_s < gap_s else StampStep.NEXT
        if -ahead_s >= config.jump_back_s:
            return StampStep.RESTART
        raise FrameRejected(
            f"stamp: {-ahead_s:.3f} s older than the last image's "
            f"(time.jump_back_s is {config.jump_back_s:g})"
        )
