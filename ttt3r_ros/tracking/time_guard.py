# SPDX-License-Identifier: Apache-2.0
"""What image stamps say about the stream: repeated, out of order, restarted or interrupted."""

from __future__ import annotations

from enum import Enum

from ttt3r_ros.config import TimeConfig
from ttt3r_ros.types import NS_PER_S, FrameRejected

LEAP_S = 60.0
"""A gap longer than this is believed when a second stamp confirms it."""

_MANY = 3  # doubted leaps in turn, none of them confirmed: two sources alternate


class StampStep(Enum):
    """How a stamp follows the last one."""

    NEXT = "next"
    GAP = "gap"  # forward by more than `time.max_gap_s`
    RETURN = "return"  # back to where stamps were before a gap that nothing has confirmed
    RESTART = "restart"  # back by `time.jump_back_s` or more


class TimeGuard:
    """Remembers the stamp of the last image and judges the next one by it.

    Nothing irreversible follows from one stamp: a leap back, or one far ahead, is rejected until a
    second stamp, or the clock, is there, too.
    """

    def __init__(self) -> None:
        self.reset()

    @property
    def is_fresh(self) -> bool:
        """Whether no image has been accepted since the beginning or the last `reset`."""
        return self._last_ns is None

    def reset(self) -> None:
        """Let any stamp be the next one."""
        self._last_ns: int | None = None  # nanoseconds; None: any stamp may be next
        self._before_ns: int | None = None  # the one before a gap that nothing has confirmed
        self._doubted_ns: int | None = None  # where the last leap would have gone
        self._in_vain = 0  # leaps that were not confirmed

    def accept(self, stamp_ns: int, step: StampStep = StampStep.NEXT) -> None:
        """Take a stamp that was judged as the last image's from now on."""
        is_open = step is StampStep.GAP and self._doubted_ns is None
        self._before_ns = self._last_ns if is_open else None
        if step is not StampStep.NEXT:
            self._in_vain = 0
        self._doubted_ns = None
        self._last_ns = stamp_ns

    def doubt(self, stamp_ns: int) -> None:
        """Let the next stamp confirm a leap to one that the clock tells."""
        self._doubted_ns = stamp_ns

    def ahead_s(self, stamp_ns: int, left_out_ns: int | None = None) -> float:
        """Return how far a stamp is ahead of the last image's in seconds; 0 before the first.

        With `left_out_ns`, ahead of the later of the two, unless that one was doubted itself.
        """
        before_ns = self._last_ns
        if before_ns is None:
            return 0.0
        if left_out_ns is not None and left_out_ns != self._doubted_ns:
            before_ns = max(before_ns, left_out_ns)
        return (stamp_ns - before_ns) / NS_PER_S

    def judge(self, stamp_ns: int, left_out_ns: int | None, config: TimeConfig) -> StampStep:
        """Compare a stamp with the last image's, which stays the last one.

        Args:
            stamp_ns: of the next image.
            left_out_ns: of an image in between that was left out.
            config: the limits.

        Raises:
            FrameRejected: the stamp repeats the last one, is a little older, or leaps and is the
                first that does.
        """
        if stamp_ns == self._last_ns:
            raise FrameRejected(f"stamp: {stamp_ns} ns repeats the last image's")
        ahead_s = self.ahead_s(stamp_ns)
        if ahead_s >= 0:
            gap_s = self.ahead_s(stamp_ns, left_out_ns)
            if not 0 < config.max_gap_s < gap_s:
                return StampStep.NEXT
            if gap_s > LEAP_S:
                self._confirm(stamp_ns, f"{gap_s:.3f} s ahead of the last image's")
            return StampStep.GAP
        if -ahead_s < config.jump_back_s and not self._is_confirmed(stamp_ns):
            raise FrameRejected(
                f"stamp: {-ahead_s:.3f} s older than the last image's "
                f"(time.jump_back_s is {config.jump_back_s:g})"
            )
        if self._before_ns is not None and 0 < stamp_ns - self._before_ns <= LEAP_S * NS_PER_S:
            return StampStep.RETURN
        self._confirm(stamp_ns, f"{-ahead_s:.3f} s older than the last image's")
        return StampStep.RESTART

    def _confirm(self, stamp_ns: int, what: str) -> None:
        """Raise FrameRejected unless the sample before has leapt to the same time."""
        if self._is_confirmed(stamp_ns):
            return
        self._doubted_ns = stamp_ns
        self._in_vain += 1
        hint = "; do two sources publish here?" if self._in_vain > _MANY else ""
        raise FrameRejected(f"stamp: {what}: believed when a second one confirms it{hint}")

    def _is_confirmed(self, stamp_ns: int) -> bool:
        doubted_ns = self._doubted_ns
        return doubted_ns is not None and 0 <= stamp_ns - doubted_ns <= LEAP_S * NS_PER_S
