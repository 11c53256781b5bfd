# SPDX-License-Identifier: Apache-2.0
"""The depth images of a bag, in step with the colour images they belong to."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ttt3r_ros.recordings.bag_reader import decode_depth, read_whole, stamp_of
from ttt3r_ros.recordings.pose_track import MAX_DIFFERENCE_S, warn_of_other_times
from ttt3r_ros.recordings.recorded_span import EVERYTHING, JUMP_BACK_NS, LATE_NS, RecordedSpan
from ttt3r_ros.recordings.rosbag2 import Reader
from ttt3r_ros.types import FrameRejected

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A message, undecoded."""

    recorded_ns: int
    stamp_ns: int
    message: Any


class DepthStream:
    """Depth by the stamp of an image. Asked in time order, it holds only a few in memory."""

    def __init__(
        self, reader: Reader, topic: str, max_difference_s: float = MAX_DIFFERENCE_S
    ) -> None:
        self._topic, self._reader = topic, reader
        self._max_difference_ns = round(1e9 * max_difference_s)
        self._entries = self._read()
        self._since_ns: int | None = None  # behind which jump of the images that is
        self._near: deque[_Entry] = deque()
        self._held: _Entry | None = None  # the first one behind a jump back
        self._last_ns: int | None = None  # the latest stamp read before that
        self._read_ns: list[int] = []  # stamps of the first and of the latest
        self._asked_ns: list[int] = []  # likewise
        self._found = self._warned = False

    def at(self, stamp_ns: int, span: RecordedSpan = EVERYTHING) -> npt.NDArray[np.float32] | None:
        """Return the depth image nearest to a stamp, if it is near enough and whole.

        Args:
            stamp_ns: not before the last one asked for in the same span.
            span: when images up to that one were recorded; not before the last one.

        Returns:
            Metres, float32 [H, W], NaN where unknown; None if there is no such image. The first
            one that is damaged is told of in a warning.
        """
        self._asked_ns[1:] = [stamp_ns]
        if span.since_ns is not None and span.since_ns != self._since_ns:
            self._begin_anew(span.since_ns)
        latest_ns = stamp_ns + self._max_difference_ns
        while self._last_ns is None or self._last_ns <= latest_ns:
            if not self._take():
                break
            self._drop_before(stamp_ns)
        self._drop_before(stamp_ns)
        near = [entry for entry in self._near if entry.stamp_ns <= latest_ns]
        if not near:
            return None
        self._found = True
        entry = min(near, key=lambda entry: abs(entry.stamp_ns - stamp_ns))
        try:
            return decode_depth(entry.message)
        except FrameRejected as error:
            if not self._warned:
                _log.warning(
                    "%s: %s: image at %d ns has no true depth, perhaps others: %s",
                    self._reader.path,
                    self._topic,
                    stamp_ns,
                    error,
                )
            self._warned = True
            return None

    def close(self) -> None:
        """Say so if there was nothing for any image; the bag stays open."""
        if self._asked_ns and not self._found:
            warn_of_other_times(
                self._topic, np.array(self._read_ns, np.int64), np.array(self._asked_ns, np.int64)
            )

    def _read(self, start_ns: int | None = None) -> Iterator[_Entry]:
        connections = self._reader.topics[self._topic].connections
        for _, recorded_ns, message in read_whole(self._reader, connections, start_ns):
            yield _Entry(recorded_ns, stamp_of(message, recorded_ns), message)

    def _begin_anew(self, since_ns: int) -> None:
        """Go to where images behind a jump have theirs; see `RecordedSpan.within`."""
        self._since_ns = since_ns
        self._near.clear()
        self._held = self._last_ns = None
        self._entries = self._read(since_ns - LATE_NS)
        while True:
            while self._take() and self._near[-1].recorded_ns <= since_ns + LATE_NS:
                pass
            if self._held is None or self._held.recorded_ns > since_ns + LATE_NS:
                return
            self._near.clear()  # it was of the images before
            self._last_ns = None

    def _take(self) -> bool:
        """Read one more, up to a jump back of the stamps; return whether there was one."""
        entry, self._held = self._held or next(self._entries, None), None
        if entry is None:
            return False
        if self._last_ns is not None and self._last_ns - entry.stamp_ns >= JUMP_BACK_NS:
            self._held = entry
            return False
        self._last_ns = entry.stamp_ns
        self._read_ns[1:] = [entry.stamp_ns]
        self._near.append(entry)
        return True

    def _drop_before(self, stamp_ns: int) -> None:
        while self._near and self._near[0].stamp_ns < stamp_ns - self._max_difference_ns:
            self._near.popleft()
