# SPDX-License-Identifier: Apache-2.0
"""What `sensor_msgs/CameraInfo` says of images; takes rclpy's and rosbags' messages.

The matrices are chosen and adjusted to binning and region of interest as image_geometry does.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ttt3r_ros.camera.plausibility import check_camera_matrix, check_rotation
from ttt3r_ros.camera.rectification import Matrix, Rectification, coefficients
from ttt3r_ros.geometry import Intrinsics
from ttt3r_ros.types import Mask

_log = logging.getLogger(__name__)


_MOST = 0.5  # of the pixels of a rectified picture have to be of the raw one
_TOLD = 100  # kinds of warnings, so that what is remembered of them is bounded


@dataclass(frozen=True, eq=False)
class _Lens:
    """A lens whose distortion is taken out of raw pictures; maps are made once one has come."""

    model: str
    d: npt.NDArray[np.float64]
    K: Matrix
    R: Matrix
    raw: Intrinsics
    pinhole: Intrinsics

    @cached_property
    def rectification(self) -> Rectification:
        """Raise ValueError if that is not possible."""
        size = (self.pinhole.width, self.pinhole.height)
        return Rectification(self.model, self.d, self.K, self.R, self.pinhole.matrix(), *size)


@dataclass(frozen=True, slots=True, eq=False)
class _Pinhole:
    """A pinhole camera, and how its picture comes from the raw one."""

    intrinsics: Intrinsics
    lens: _Lens | None  # None: the picture is the camera's own


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
        self._told: set[str] = set()

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
            self._view = None
            self._warn(_kind(error), f"not used: {error}")
        self._heard.set()

    @property
    def in_use(self) -> str:
        """What is known of the camera; empty: nothing."""
        view = self._view
        if view is None:
            return ""
        c = view.intrinsics
        lens = f"{view.lens.model} undone" if view.lens else "no lens undone"
        return f"{c.width}x{c.height}, f {c.fx:.5g} {c.fy:.5g}, c {c.cx:.5g} {c.cy:.5g}, {lens}"

    def begin_wait(self) -> None:
        """Let `wait` wait again, unless there has been a `CameraInfo`."""
        if not self._values:
            self._heard.clear()

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
            sizes = f"{known.width}x{known.height}, the images have {shape[1]}x{shape[0]}"
            self._warn(sizes, f"not used: is for {sizes}")
            return PinholeImage(rgb, None, mask)
        view, lens = self._undone(view)
        if lens is None:
            return PinholeImage(rgb, view.intrinsics if view else None, mask)
        return PinholeImage(lens.image(rgb), known, lens.mask(mask), lens.outside)

    def apply_to_depth(self, raw_m: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return depth [h, w] that is registered to raw images as one of what `apply` returns."""
        lens = self._undone(self._view)[1]
        return raw_m if lens is None else lens.depth(raw_m)

    def _understood(self, info: Any) -> _Pinhole:
        """Raise ValueError if that is not possible, or cannot be."""
        K, P = np.reshape(info.k, (3, 3)), np.reshape(info.p, (3, 4))[:, :3]
        given = {"K": K} if K.any() else {}
        if P.any():
            given["P"] = P
        wanted = ["P"] if self._is_rectified else ["K", "P"] if any(info.d) else ["K"]
        for name in [n for n in wanted if n in given] or given:
            check_camera_matrix(name, given[name], info.width, info.height)
        if self._is_rectified:
            # Without distortion both pictures have the same matrix, if R turns nothing.
            return _Pinhole(_intrinsics(P if P.any() or any(info.d) else K, info), None)
        raw = _intrinsics(K if K.any() else P, info)
        if not any(info.d):
            return _Pinhole(raw, None)
        R = np.reshape(info.r, (3, 3))
        R = R if R.any() else np.eye(3)
        check_rotation("R", R)
        try:
            if not K.any():
                raise ValueError("K: is empty, and it takes more than P to undo a lens")
            d = coefficients(info.distortion_model, info.d)
        except ValueError as error:
            self._warn(_kind(error), f"images are used with their distortion: {error}")
            return _Pinhole(raw, None)
        pinhole = _intrinsics(P, info) if P.any() else raw  # only the raw image was calibrated
        return _Pinhole(
            pinhole, _Lens(info.distortion_model, d, _adjusted(K, info), R, raw, pinhole)
        )

    def _undone(self, view: _Pinhole | None) -> tuple[_Pinhole | None, Rectification | None]:
        """Return a view that can be had and how its lens is undone; None: there is none."""
        if view is None or (lens := view.lens) is None:
            return view, None
        try:
            made = lens.rectification
        except ValueError as error:
            possible: _Pinhole | None = _Pinhole(lens.raw, None)
            self._warn("lens", f"images are used with their distortion: {error}")
        else:
            outside = 0.0 if made.outside is None else float(made.outside.mean())
            if outside <= _MOST:
                return view, made
            possible = None
            self._warn("seen", f"not used: P: {outside:.0%} of its picture are not in the raw one")
        if self._view is view:
            self._view = possible
        return possible, None

    def _warn(self, kind: str, text: str) -> None:
        """Warn once of each kind, however often messages change."""
        if kind not in self._told and len(self._told) < _TOLD:
            self._told.add(kind)
            _log.warning("camera_info: %s", text)


def is_rectified(topic: str) -> bool:
    """Return whether the images of a topic are rectified, by its name, as everywhere in ROS."""
    for transport in ("/compressed", "/compressedDepth"):
        topic = topic.removesuffix(transport)
    return topic.rpartition("/")[2].startswith("image_rect")


def _kind(error: ValueError) -> str:
    """Return the field that an error begins with."""
    return str(error).partition(":")[0]


def _binning(info: Any) -> tuple[int, int]:
    return info.binning_x or 1, info.binning_y or 1


def _adjusted(matrix: npt.NDArray[np.float64], info: Any) -> Matrix:
    """Return a camera matrix [3, 3] of the whole sensor as one of the images that it sends."""
    adjusted = np.array(matrix, np.float64)
    adjusted[:2, 2] -= (info.roi.x_offset, info.roi.y_offset)
    adjusted[:2] /= np.reshape(_binning(info), (2, 1))
    return adjusted


def _intrinsics(sensor: npt.NDArray[np.float64], info: Any) -> Intrinsics:
    matrix, (columns, rows) = _adjusted(sensor, info), _binning(info)
    width, height = info.roi.width or info.width, info.roi.height or info.height
    fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return Intrinsics(fx, fy, cx, cy, width // columns, height // rows)
