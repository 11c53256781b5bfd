# SPDX-License-Identifier: Apache-2.0
"""The depth images of a bag, in step with the colour images they belong to."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from ttt3r_ros.evaluation.bag_reader import decode_depth, read_messages
from ttt3r_ros.evaluation.source import SourceError
from ttt3r_ros.types import FrameRejected

_MAX_DIFFERENCE_NS = 10_000_000  # as between poses, `trajectory_metrics.MAX_DIFFERENCE_S`

_types = get_typestore(Stores.ROS2_JAZZY)


class DepthStream:
    """Depth by the stamp of an image. Asked in time order, it holds only a few in memory."""

    def __init__(self, reader: Reader, topic: str) -> None:
        self._topic, self._reader = topic, reader
        self._messages = read_messages(reader, reader.topics[topic].connections)
        self._near: deque[tuple[int, Any]] = deque()  # stamp and message, undecoded
        self._read_until_ns = -1

    def at(self, stamp_ns: int) -> npt.NDArray[np.float32] | None:
        """Return the depth image nearest to a stamp, at most 0.01 s away.

        Args:
            stamp_ns: not before the last one asked for.

        Returns:
            Metres, float32 [H, W], NaN where unknown; None if there is no such image.

        Raises:
            SourceError: the bag is damaged, or the image is.
        """
        latest_ns = stamp_ns + _MAX_DIFFERENCE_NS
        while self._read_until_ns <= latest_ns and (entry := next(self._messages, None)):
            message: Any = _types.deserialize_cdr(entry[2], entry[0].msgtype)
            stamp = message.header.stamp
            self._read_until_ns = stamp.sec * 1_000_000_000 + stamp.nanosec or entry[1]
            self._near.append((self._read_until_ns, message))
        while self._near and self._near[0][0] < stamp_ns - _MAX_DIFFERENCE_NS:
            self._near.popleft()
        near = [entry for entry in self._near if entry[0] <= latest_ns]
        if not near:
            return None
        _, message = min(near, key=lambda entry: abs(entry[0] - stamp_ns))
        try:
            return decode_depth(message)
        except FrameRejected as error:
            raise SourceError(
                f"{self._reader.path}: {self._topic}: image at {stamp_ns} ns: {error}"
            ) from error
