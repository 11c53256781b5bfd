# SPDX-License-Identifier: Apache-2.0
"""Somebody says where the robot is in the map, as RViz does with "2D Pose Estimate", or Nav2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import PoseWithCovarianceStamped
from rclpy.impl.rcutils_logger import RcutilsLogger

from ttt3r_ros.geometry import Transform, transform, transform_from_message
from ttt3r_ros.ros.frame_tree import frame_name
from ttt3r_ros.ros.transforms import Extrinsics
from ttt3r_ros.tracking.covariance import moved
from ttt3r_ros.types import Covariance

TOPICS = ("initialpose", "~/set_pose")
"""Where it is said."""


@dataclass(frozen=True, slots=True, eq=False)
class ToldPose:
    """Where the base is in the map, as somebody knows it."""

    T_map_base: Transform
    covariance: Covariance  # [6, 6], about the map's axes

    def of_camera(self, extrinsics: Extrinsics) -> tuple[Transform, Covariance]:
        """The camera's pose in the map, and the covariance [6, 6] of that."""
        T_map_camera = self.T_map_base @ extrinsics.T_base_camera
        lever = self.T_map_base[:3, 3] - T_map_camera[:3, 3]
        return T_map_camera, moved(self.covariance, transform(np.eye(3), lever))


def read_told_pose(message: PoseWithCovarianceStamped, map_frame: str) -> ToldPose:
    """Return what a message says.

    Raises:
        ValueError: it is of another frame than the map's, or no pose; the message names the field.
    """
    frame = message.header.frame_id
    if frame_name(frame) != frame_name(map_frame):
        raise ValueError(f"header.frame_id: must be {map_frame!r}, got {frame!r}")
    told = message.pose
    T_map_base = transform_from_message(told.pose.position, told.pose.orientation)
    if not np.isfinite(T_map_base).all():
        raise ValueError(f"pose.pose: must be finite, with a rotation, got {told.pose}")
    covariance = np.array(told.covariance, np.float64).reshape(6, 6)
    if not np.isfinite(covariance).all():
        raise ValueError(f"pose.covariance: must be finite, got {covariance.tolist()}")
    covariance = (covariance + covariance.T) / 2
    if (least := float(np.linalg.eigvalsh(covariance)[0])) < -1e-9:
        raise ValueError(f"pose.covariance: must have no negative eigenvalue, got {least:g}")
    return ToldPose(T_map_base, covariance)


class PoseListener:
    """Takes the messages of one topic; those that are of no use are left out with a warning."""

    def __init__(
        self, topic: str, map_frame: str, log: RcutilsLogger, tell: Callable[[ToldPose], None]
    ) -> None:
        """Set up.

        Args:
            topic: by its full name.
            map_frame: that poses have to be in.
            log: for what is left out.
            tell: takes what was said.
        """
        self._topic, self._map_frame, self._log, self._tell = topic, map_frame, log, tell

    def update(self, message: PoseWithCovarianceStamped) -> None:
        """Take a message."""
        try:
            self._tell(read_told_pose(message, self._map_frame))
        except ValueError as error:
            self._log.warning(f"{self._topic}: left out: {error}")
