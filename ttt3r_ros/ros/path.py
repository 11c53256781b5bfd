# SPDX-License-Identifier: Apache-2.0
"""The way of the robot as a message; which poses are in it, and when it goes out, is not here."""

from __future__ import annotations

from collections.abc import Sequence

from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from std_msgs.msg import Header

from ttt3r_ros.geometry import Transform
from ttt3r_ros.ros.conversions import stamp_message
from ttt3r_ros.ros.transforms import Extrinsics, pose_message


class PathMessages:
    """Makes messages of a path that grows.

    Those of its poses are kept from one to the next: making 1000 takes 26 ms of Python, in which
    no other thread of the node gets on; making the few that are new takes next to nothing.
    """

    def __init__(self, frame: str) -> None:
        """Begin with none made.

        Args:
            frame: of the poses.
        """
        self._frame = frame
        self._extrinsics: Extrinsics | None = None
        self._made: list[tuple[tuple[int, Transform], PoseStamped]] = []

    def path(
        self, poses: Sequence[tuple[int, Transform]], extrinsics: Extrinsics | None, stamp_ns: int
    ) -> Path:
        """Return the path of the base.

        Args:
            poses: stamps in nanoseconds and T_map_camera, in order. What is the same tuple as in
                the last path is not made again.
            extrinsics: of the camera on the base; None: not known, so there are no poses.
            stamp_ns: of the whole.
        """
        kept = self._made if extrinsics is self._extrinsics else []
        by_identity = {id(pose): message for pose, message in kept}
        made = []
        if extrinsics is not None:
            made = [
                (pose, by_identity.get(id(pose)) or self._pose(*pose, extrinsics)) for pose in poses
            ]
        self._extrinsics, self._made = extrinsics, made
        return Path(header=self._header(stamp_ns), poses=[message for _, message in made])

    def _pose(self, stamp_ns: int, T_map_camera: Transform, extrinsics: Extrinsics) -> PoseStamped:
        pose = pose_message(extrinsics.odom_to_base(T_map_camera))
        return PoseStamped(header=self._header(stamp_ns), pose=pose)

    def _header(self, stamp_ns: int) -> Header:
        return Header(stamp=stamp_message(stamp_ns), frame_id=self._frame)
