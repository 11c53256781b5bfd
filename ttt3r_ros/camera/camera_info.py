# SPDX-License-Identifier: Apache-2.0
"""What `sensor_msgs/CameraInfo` says of images; takes rclpy's and rosbags' messages.

The matrices are chosen and adjusted to binning and region of interest as image_geometry does.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ttt3r_ros.camera.rectification import Matrix, Rectification
from ttt3r_ros.geometry import Intrinsics
from ttt3r_ros.types import Mask

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Pinhole:
    """A pinhole camera, and how its picture comes from the raw one."""

    intrinsics: Intrinsics
    rectification: Rectification | None  # None: the picture is the camera's own


class PinholeImage(NamedTuple):
    """An image as a camera without distortion sees it; named as the fields of `Frame`."""

    rgb: npt.NDArray[np.uint8]  # [H, W, 3]
    intrinsics: Intrinsics | None  # None: not known
    mask: Mask | None = None  # [H, W] pixels left out of the map
    outside_fov: Mask | None = None  # [H, W] pixels that the lens does not show


class CameraModel:
    """What the latest `CameraInfo` says about the images of one topic.

    Two threads may share it, one that updates and one that applies.
    """

    def __init__(self, image_topic: str) -> None:
        """Know nothing yet.

        Args:
            image_topic: as everywhere in ROS, D, K and R belong to raw images and P to rectified
                ones, whose topic is called `image_rect...`.
        """
        self._is_rectified = is_rectified(image_topic)
        self._values: tuple[Any, ...] = ()
        self._view: _Pinhole | None = None
        self._heard = threading.Event()
        self._warned_shape: tuple[int, ...] = ()

    def update(self, info: Any) -> None:
        """Take a `CameraInfo`; warnings are logged only when it differs from the last one."""
        values = (
            # As bytes, for a NaN is equal to nothing.
            np.concatenate([info.d, info.k, info.r, info.p]).tobytes(),
            *(info.width, info.height, info.distortion_model, info.binning_x, info.binning_y),
            *(info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height),
        )
        if values == self._values:
            return
        self._values = values
        try:
            self._view = self._understood(info)
        except ValueError as error:  # all zero: a camera that was never calibrated
            _log.warning("camera_info: not used: %s", error)
            self._view = None
        self._heard.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the first `CameraInfo`, or for `end_wait`; return whether it came in time."""
        return self._heard.wait(timeout_s)

    def end_wait(self) -> None:
        """Let nobody wait from now on."""
        self._heard.set()

    def apply(self, rgb: npt.NDArray[np.uint8], mask: Mask | None = None) -> PinholeImage:
        """Return an image as a pinhole camera's, with intrinsics, as far as the camera is known.

        Distortion is taken out of image and mask. A camera info for another size is not used, with
        a warning.

        Args:
            rgb: uint8 [H, W, 3] as the camera sent it.
            mask: bool [H, W] of the same pixels.
        """
        view = self._view
        if view is None:
            return PinholeImage(rgb, None, mask)
        known, shape = view.intrinsics, rgb.shape
        if (known.height, known.width) != shape[:2]:
            if shape != self._warned_shape:
                self._warned_shape = shape
                _log.warning(
                    "camera_info: not used: is for %dx%d, the images have %dx%d",
                    *(known.width, known.height, shape[1], shape[0]),
                )
            return PinholeImage(rgb, None, mask)
        lens = view.rectification
        if lens is None:
            return PinholeImage(rgb, known, mask)
        return PinholeImage(lens.image(rgb), known, lens.mask(mask), lens.outside)

    def apply_to_depth(self, raw_m: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return depth [h, w] that is registered to raw images as one of what `apply` returns."""
        view = self._view
        if view is None or view.rectification is None:
            return raw_m
        return view.rectification.depth(raw_m)

    def _understood(self, info: Any) -> _Pinhole:
        """Raise ValueError if that is not possible."""
        K, P = _adjusted(np.reshape(info.k, (3, 3)), info), np.reshape(info.p, (3, 4))[:, :3]
        P = _adjusted(P, info)
        if self._is_rectified:
            return _Pinhole(_intrinsics(P, info), None)
        raw = _intrinsics(K, info)
        if not any(info.d):
            return _Pinhole(raw, None)
        R = np.reshape(info.r, (3, 3))
        R = R if R.any() else np.eye(3)
        try:
            pinhole = _intrinsics(P, info)
        except ValueError:  # only the raw image was calibrated
            pinhole = raw
        try:
            size = (pinhole.width, pinhole.height)
            lens = Rectification(info.distortion_model, info.d, K, R, pinhole.matrix(), *size)
        except ValueError as error:
            _log.warning("camera_info: images are used with their distortion: %s", error)
            return _Pinhole(raw, None)
        return _Pinhole(pinhole, lens)


def is_rectified(topic: str) -> bool:
    """Return whether the images of a topic are rectified, by its name, as everywhere in ROS."""
    for transport in ("/compressed", "/compressedDepth"):
        topic = topic.removesuffix(transport)
    return topic.rpartition("/")[2].startswith("image_rect")


def _binning(info: Any) -> tuple[int, int]:
    return info.binning_x or 1, info.binning_y or 1


def _adjusted(matrix: npt.NDArray[np.float64], info: Any) -> Matrix:
    """Return a camera matrix [3, 3] of the whole sensor as one of the images that it sends."""
    adjusted = np.array(matrix, np.float64)
    adjusted[:2, 2] -= (info.roi.x_offset, info.roi.y_offset)
    adjusted[:2] /= np.reshape(_binning(info), (2, 1))
    return adjusted


def _intrinsics(matrix: Matrix, info: Any) -> Intrinsics:
    columns, rows = _binning(info)
    width, height = info.roi.width or info.width, info.roi.height or info.height
    fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return Intrinsics(fx, fy, cx, cy, width // columns, height // rows)
