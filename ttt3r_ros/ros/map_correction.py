# SPDX-License-Identifier: Apache-2.0
"""map -> odom beside an odometry that is not this node's (`odom_source: tf`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from ttt3r_ros.geometry import Transform, inverse
from ttt3r_ros.ros.robot_odometry import RobotOdometry
from ttt3r_ros.ros.transforms import Extrinsics
from ttt3r_ros.types import NS_PER_S, FrameResult, TrackingState

_WAIT_NS = round(0.2 * NS_PER_S)  # for odometry, which is at 10 Hz or more


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """Where the odometry's frame is in the map, after an image."""

    stamp_ns: int  # of the image
    extrinsics: Extrinsics  # of its camera
    T_map_odom: Transform | None  # None: not known since the last reset
    is_missed: bool  # no odometry has come of the image's time


@dataclass(frozen=True, slots=True, eq=False)
class _Tracked:
    stamp_ns: int
    extrinsics: Extrinsics
    T_map_base: Transform | None  # None: the camera was lost


class MapCorrection:
    """Where the odometry's frame is in the map, as the last image that knew it said.

    Images wait here until the odometry has come to their time, and nothing waits for them. While
    the camera is LOST, or the odometry silent, the robot is believed to go on from there. For one
    thread, the executor's.
    """

    def __init__(self, odometry: RobotOdometry) -> None:
        """Start with an empty queue."""
        self._odometry = odometry
        self._waiting: deque[_Tracked] = deque()
        self._T_map_odom: Transform | None = None

    def add(self, result: FrameResult, extrinsics: Extrinsics) -> None:
        """Take an image that was tracked, with the extrinsics of its camera."""
        is_lost = result.state is TrackingState.LOST
        if result.images_since_reset <= (0 if is_lost else 1):  # the map has begun anew
            self._waiting.clear()
            self._T_map_odom = None
        T_map_base = None if is_lost else extrinsics.odom_to_base(result.T_map_camera)
        self._waiting.append(_Tracked(result.stamp_ns, extrinsics, T_map_base))

    def take(self) -> Iterator[Correction]:
        """Yield, in order, what is known of images that need not wait any more."""
        while self._waiting:
            image = self._waiting[0]
            is_missed = False
            if image.T_map_base is not None:
                T_odom_base = self._odometry.base_pose(image.stamp_ns, image.extrinsics)
                if T_odom_base is not None:
                    self._T_map_odom = image.T_map_base @ inverse(T_odom_base)
                elif self._may_come(image):
                    return
                is_missed = T_odom_base is None
            self._waiting.popleft()
            yield Correction(image.stamp_ns, image.extrinsics, self._T_map_odom, is_missed)

    def _may_come(self, image: _Tracked) -> bool:
        """Return whether the odometry of an image's time may still come."""
        waited_ns = self._waiting[-1].stamp_ns - image.stamp_ns
        return waited_ns <= _WAIT_NS and not self._odometry.is_past(
            image.stamp_ns, image.extrinsics
        )
