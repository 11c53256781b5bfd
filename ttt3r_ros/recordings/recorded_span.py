# SPDX-License-Identifier: Apache-2.0
"""Which of a bag's messages are of the images between two jumps back of the clock.

Behind such a jump stamps come again, so that only the time of recording tells what belongs
together. Everything here is in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

JUMP_BACK_NS = 1_000_000_000
"""A stamp that far before the last one means that time has begun anew, as `time.jump_back_s`."""

LATE_NS = 1_000_000_000
"""By that the times of recording of messages of the same moment may differ."""


@dataclass(frozen=True, slots=True)
class RecordedSpan:
    """When images without a jump back of their stamps were recorded."""

    since_ns: int | None = None  # the first one behind the last jump; None: there was no jump
    until_ns: int | None = None  # the latest one; None: there is no end

    def within(self, recorded_ns: Sequence[int], stamps_ns: Sequence[int]) -> slice:
        """Return which messages of another topic are of the same time.

        Where its stamps jump back too, near the images' jump or after their end, that is where the
        span begins and ends.

        Args:
            recorded_ns: times of recording [N], ascending.
            stamps_ns: of the same messages [N].
        """
        recorded = np.asarray(recorded_ns, np.int64)
        jumps = 1 + np.flatnonzero(-np.diff(np.asarray(stamps_ns, np.int64)) >= JUMP_BACK_NS)
        begin, end = 0, len(recorded)
        if self.since_ns is not None:
            begin = int(np.searchsorted(recorded, self.since_ns - LATE_NS))
            near = jumps[(jumps >= begin) & (recorded[jumps] <= self.since_ns + LATE_NS)]
            begin = int(near[-1]) if len(near) else begin
        if self.until_ns is not None:
            later = jumps[(jumps > begin) & (recorded[jumps] > self.until_ns - LATE_NS)]
            end = int(later[0]) if len(later) else end
        return slice(begin, end)


EVERYTHING = RecordedSpan()
