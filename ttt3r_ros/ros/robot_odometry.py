# SPDX-License-Identifier: Apache-2.0
"""The robot's own odometry, for `scale_source: odom` and `odom_source: tf`."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from geometry_msgs.msg import Point, Quaternion, Vector3
from nav_msgs.msg import Odometry
from rclpy.impl.rcutils_logger import RcutilsLogger
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from ttt3r_ros.geometry import Transform, transform_from_message
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.ros.frame_tree import frame_name, is_rotation
from ttt3r_ros.ros.transforms import Extrinsics
from ttt3r_ros.tracking.odometry_buffer import OdometryBuffer

_WARNING_PERIOD_S = 5.0


class RobotOdometry:
    """The last poses of the robot's frames by its odometry; threads may share it."""

    def __init__(
        self,
        log: RcutilsLogger,
        tf_frame: str = "",
        on_pose: Callable[[], None] = lambda: None,
    ) -> None:
        """Start with no poses.

        Args:
            log: for what is left out.
            tf_frame: the odometry's frame in TF; empty: it comes as messages.
            on_pose: called after each pose, in the thread of `update` or `update_tf`.
        """
        self._log = log
        self._tf_frame = tf_frame
        self._buffers: dict[str, OdometryBuffer] = {}  # by the child frame
        self._lock = Lock()
        self._on_pose = on_pose

    def update(self, message: Odometry) -> None:
        """Take a message; one that is no pose is left out with a warning."""
        pose = message.pose.pose
        self._add(message.header, message.child_frame_id, pose.position, pose.orientation)

    def update_tf(self, message: TFMessage) -> None:
        """Take the transforms from the odometry's frame."""
        for edge in message.transforms:
            if frame_name(edge.header.frame_id) == self._tf_frame:
                t = edge.transform
                self._add(edge.header, edge.child_frame_id, t.translation, t.rotation)

    def camera_pose(self, at_ns: int, extrinsics: Extrinsics) -> Transform | None:
        """Return the camera's pose in the odometry's frame, None if it is not known (yet)."""
        T_odometry_base = self.base_pose(at_ns, extrinsics)
        return None if T_odometry_base is None else T_odometry_base @ extrinsics.T_base_camera

    def base_pose(self, at_ns: int, extrinsics: Extrinsics) -> Transform | None:
        """Return the pose of the frame that the extrinsics are known in, as `camera_pose`."""
        buffer = self._buffer_of(extrinsics)
        return buffer.at(at_ns) if buffer else None

    def is_past(self, at_ns: int, extrinsics: Extrinsics) -> bool:
        """Return whether poses have come of a time, or of a later one."""
        buffer = self._buffer_of(extrinsics)
        return buffer is not None and buffer.is_past(at_ns)

    def _buffer_of(self, extrinsics: Extrinsics) -> OdometryBuffer | None:
        with self._lock:
            # An odometry that does not say what it is of is of the base.
            buffer = self._buffers.get(extrinsics.base_frame) or self._buffers.get("")
            names = ", ".join(self._buffers)
        if buffer is None and names:
            self._log.warning(
                f"odometry: is of {names}, the camera's extrinsics are known on "
                f"{extrinsics.base_frame}: set base_frame to {names}",
                throttle_duration_sec=_WARNING_PERIOD_S,
            )
        return buffer

    def _add(self, header: Header, child: str, p: Point | Vector3, q: Quaternion) -> None:
        child = frame_name(child)
        with self._lock:
            buffer = self._buffers.get(child) or OdometryBuffer()
        try:
            if not is_rotation(q):
                raise ValueError(f"orientation: no unit quaternion: {q.x} {q.y} {q.z} {q.w}")
            buffer.add(stamp_ns(header.stamp), transform_from_message(p, q))
        except ValueError as error:
            self._log.warning(
                f"odometry: left out: {error}", throttle_duration_sec=_WARNING_PERIOD_S
            )
        else:
            with self._lock:
                self._buffers[child] = buffer
            self._on_pose()
