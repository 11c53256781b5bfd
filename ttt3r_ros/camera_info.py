# SPDX-License-Identifier: Apache-2.0
"""`sensor_msgs/CameraInfo` as `Intrinsics`; takes rclpy's and rosbags' messages."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Intrinsics

_log = logging.getLogger(__name__)


class CameraModel:
    """What the latest `CameraInfo` says about the images of one topic."""

    def __init__(self, image_topic: str) -> None:
        """Know nothing yet.

        Args:
            image_topic: as everywhere in ROS, K belongs to raw images and P to rectified ones,
                whose topic is called `image_rect...`.
        """
        name = image_topic.removesuffix("/compressed").rpartition("/")[2]
        self._rectified = name.startswith("image_rect")
        self._values: tuple[Any, ...] = ()
        self._intrinsics: Intrinsics | None = None
        self._warned_shape: tuple[int, ...] = ()

    def update(self, info: Any) -> None:
        """Take a `CameraInfo`; warnings are logged only when it differs from the last one."""
        values = (info.width, info.height, *info.d, *info.k, *info.p)
        if values == self._values:
            return
        self._values = values
        if any(info.d) and not self._rectified:
            _log.warning("camera_info: lens distortion is ignored, images are used as they are")
        matrix = np.reshape(info.p, (3, 4)) if self._rectified else np.reshape(info.k, (3, 3))
        try:
            self._intrinsics = Intrinsics(
                float(matrix[0, 0]),
                float(matrix[1, 1]),
                float(matrix[0, 2]),
                float(matrix[1, 2]),
                info.width,
                info.height,
            )
        except ValueError as error:  # all zero: a camera that was never calibrated
            _log.warning("camera_info: not used: %s", error)
            self._intrinsics = None

    def intrinsics_of(self, rgb: npt.NDArray[np.uint8]) -> Intrinsics | None:
        """Return the intrinsics of an image [H, W, 3]; None, with a warning, if of another size."""
        known = self._intrinsics
        if known is None or (known.height, known.width) == rgb.shape[:2]:
            return known
        if rgb.shape != self._warned_shape:
            self._warned_shape = rgb.shape
            _log.warning(
                "camera_info: not used: is for %dx%d, the images have %dx%d",
                known.width,
                known.height,
                rgb.shape[1],
                rgb.shape[0],
            )
        return None
