# SPDX-License-Identifier: Apache-2.0
"""What belongs to the images between one activation of the node and its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ttt3r_ros.camera.camera_info import CameraModel
from ttt3r_ros.ros.map_correction import MapCorrection
from ttt3r_ros.ros.masks import Masks
from ttt3r_ros.ros.robot_odometry import RobotOdometry
from ttt3r_ros.ros.stream import StreamCounter
from ttt3r_ros.ros.transforms import Extrinsics
from ttt3r_ros.types import FrameRejected


@dataclass(slots=True, eq=False)
class Activation:
    """One activation: what it has been given, and what it has found out."""

    camera: CameraModel
    masks: Masks
    find_extrinsics: Callable[[str], Extrinsics]  # of a camera frame; may raise `FrameRejected`
    odometry: RobotOdometry | None  # of the robot, if the scale or odom -> base comes from it
    correction: MapCorrection | None  # None: odom -> base is ours; the executor's thread's
    counter: StreamCounter
    is_over: bool = False  # nothing of it is published any more
    last_received_ns: int | None = None  # the executor's thread's
    is_camera_awaited: bool = False  # the worker's; what follows is written by it and read by all
    extrinsics: Extrinsics | None = None
    extrinsics_frame: str = ""  # the camera frame that `extrinsics` is for
    doubted_frame: str = ""  # another camera frame, of which there was one image so far

    def confirm_frame(self, frame_id: str) -> None:
        """Let a change of the camera frame, which begins a new map, be told by two images in turn.

        Raises:
            FrameRejected: it is the first one.
        """
        doubted, self.doubted_frame = self.doubted_frame, ""
        if self.extrinsics is None or frame_id in (self.extrinsics_frame, doubted):
            return
        self.doubted_frame = frame_id
        raise FrameRejected(
            f"header.frame_id: {frame_id!r}, the images before were of {self.extrinsics_frame!r}: "
            "believed when the next one says so, too; do two sources publish here?"
        )
