# SPDX-License-Identifier: Apache-2.0
"""map -> odom beside an odometry that is not this node's (`odom_source: tf`)."""

from __future__ import annotations

from ttt3r_ros.geometry import Transform, inverse
from ttt3r_ros.ros.transforms import Mount
from ttt3r_ros.tracking_state import TrackingState
from ttt3r_ros.types import FrameResult


class MapCorrection:
    """Where the odometry's frame is in the map, as the last image that knew it said.

    While the camera is LOST, or the odometry silent, the robot is believed to go on from there.
    """

    def __init__(self) -> None:
        self._T_map_odom: Transform | None = None

    def update(
        self, result: FrameResult, mount: Mount, T_odom_base: Transform | None
    ) -> Transform | None:
        """Return T_map_odom after an image, None if there is none since the last reset.

        Args:
            result: of the image.
            mount: of the camera.
            T_odom_base: by the odometry, at the image's stamp; None: not known.
        """
        is_lost = result.state is TrackingState.LOST
        if result.images_since_reset <= (0 if is_lost else 1):  # the map has begun anew
            self._T_map_odom = None
        if not is_lost and T_odom_base is not None:
            T_map_base = mount.odom_to_base(result.T_map_camera)
            self._T_map_odom = T_map_base @ inverse(T_odom_base)
        return self._T_map_odom
