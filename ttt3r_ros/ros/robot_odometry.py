# SPDX-License-Identifier: Apache-2.0
"""What the robot's own odometry says of the camera, for `scale_source: odom`."""

from __future__ import annotations

from nav_msgs.msg import Odometry
from rclpy.impl.rcutils_logger import RcutilsLogger

from ttt3r_ros.geometry import Transform, transform_from_quaternion
from ttt3r_ros.odometry_buffer import OdometryBuffer
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.ros.transforms import Mount

_WARNING_PERIOD_S = 5.0


class RobotOdometry:
    """The last messages of an odometry topic; threads may share it."""

    def __init__(self, log: RcutilsLogger) -> None:
        """Begin without messages."""
        self._log = log
        self._buffer = OdometryBuffer()
        self._base_frame = ""

    def update(self, message: Odometry) -> None:
        """Take a message; one that is no pose is left out with a warning."""
        p, q = message.pose.pose.position, message.pose.pose.orientation
        self._base_frame = message.child_frame_id
        try:
            pose = transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z))
            self._buffer.add(stamp_ns(message.header.stamp), pose)
        except ValueError as error:
            self._log.warning(
                f"odometry: left out: {error}", throttle_duration_sec=_WARNING_PERIOD_S
            )

    def camera_pose(self, at_ns: int, mount: Mount) -> Transform | None:
        """Return the camera's pose in the odometry's frame, None if it is not known (yet).

        It has to be of the frame that the camera's mount is known in.
        """
        if self._base_frame not in ("", mount.base_frame):
            self._log.warning(
                f"odometry: is of {self._base_frame}, the camera's mount is known on "
                f"{mount.base_frame}: set base_frame to {self._base_frame}",
                throttle_duration_sec=_WARNING_PERIOD_S,
            )
            return None
        T_odometry_base = self._buffer.at(at_ns)
        return None if T_odometry_base is None else T_odometry_base @ mount.T_base_camera
