# SPDX-License-Identifier: Apache-2.0
"""The depth images of a bag, in step with the colour images they belong to."""

from __future__ import annotations

import logging
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.rosbag2 import Reader

from ttt3r_ros.evaluation.bag_reader import decode_depth, read_whole, stamp_of
from ttt3r_ros.evaluation.pose_track import MAX_DIFFERENCE_S, warn_of_other_times
from ttt3r_ros.types import FrameRejected

_log = logging.getLogger(__name__)


class DepthStream:
    """Depth by the stamp of an image. Asked in time order, it holds only a few in memory."""

    def __init__(
        self, reader: Reader, topic: str, max_difference_s: float = MAX_DIFFERENCE_S
    ) -> None:
        self._topic, self._reader = topic, reader
        self._max_difference_ns = round(1e9 * max_difference_s)
        self._messages = read_whole(reader, reader.topics[topic].connections)
        self._near: deque[tuple[int, Any]] = deque()  # stamp and message, undecoded
        self._read_ns: list[int] = []  # stamps of the first and of the latest
        self._asked_ns: list[int] = []  # likewise
        self._found = self._warned = False

    def at(self, stamp_ns: int) -> npt.NDArray[np.float32] | None:
        """Return the depth image nearest to a stamp, if it is near enough and whole.

        Args:
            stamp_ns: not before the last one asked for.

        Returns:
            Metres, float32 [H, W], NaN where unknown; None if there is no such image. The first
            one that is damaged is told of in a warning.
        """
        self._asked_ns[1:] = [stamp_ns]
        latest_ns = stamp_ns + self._max_difference_ns
        while not self._read_ns or self._read_ns[-1] <= latest_ns:
            if (entry := next(self._messages, None)) is None:
                break
            _, recorded_ns, message = entry
            self._read_ns[1:] = [stamp_of(message, recorded_ns)]
            self._near.append((self._read_ns[-1], message))
        while self._near and self._near[0][0] < stamp_ns - self._max_difference_ns:
            self._near.popleft()
        near = [entry for entry in self._near if entry[0] <= latest_ns]
        if not near:
            return None
        self._found = True
        _, message = min(near, key=lambda entry: abs(entry[0] - stamp_ns))
        try:
            return decode_depth(message)
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
