# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms, intrinsics and unprojection; the conventions of the package are stated here.

`T_a_b` is a float64 [4, 4] matrix with p_a = T_a_b · p_b: the pose of frame b in frame a.
Optical frames are x right, y down, z forward; body frames x forward, y left, z up (REP-103).
Quaternions are (w, x, y, z) and go through transforms3d. Pixel (u, v) = (column, row), and the
centre of the first pixel is (0, 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from transforms3d.axangles import axangle2mat
from transforms3d.euler import euler2mat
from transforms3d.quaternions import mat2quat, quat2mat

Transform = npt.NDArray[np.float64]  # [4, 4]
Vector = npt.NDArray[np.float64]

R_BODY_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Rotation of an optical frame in the body frame of a camera that looks along +x (REP-103)."""


@dataclass(frozen=True, slots=True)
class Intrinsics:
    """A pinhole camera without distortion, in pixels of an image of `width` x `height`."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        for name in ("fx", "fy", "width", "height"):
            if not getattr(self, name) > 0:
                raise ValueError(f"intrinsics.{name}: must be positive, got {getattr(self, name)}")
        for name in ("fx", "fy", "cx", "cy"):
            if not np.isfinite(getattr(self, name)):
                raise ValueError(f"intrinsics.{name}: must be finite, got {getattr(self, name)}")

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return the camera matrix K, float64 [3, 3]."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


def transform(rotation: npt.ArrayLike, translation: npt.ArrayLike) -> Transform:
    """Build a [4, 4] transform from a rotation [3, 3] and a translation [3] in metres."""
    result = np.eye(4)
    result[:3, :3] = rotation
    result[:3, 3] = translation
    return result


def transform_from_quaternion(translation: npt.ArrayLike, wxyz: npt.ArrayLike) -> Transform:
    """Build a [4, 4] transform from a translation [3] in metres and a quaternion (w, x, y, z)."""
    return transform(quat2mat(np.asarray(wxyz, dtype=np.float64)), translation)


def transform_from_message(translation: Any, rotation: Any) -> Transform:
    """Build a [4, 4] transform from two parts of a ROS message, of rclpy or of rosbags.

    Args:
        translation: with x, y, z in metres, as geometry_msgs/Vector3 and Point.
        rotation: with x, y, z, w, as geometry_msgs/Quaternion.

    Returns:
        NaN everywhere where a number is not finite or the quaternion is zero.
    """
    wxyz = (rotation.w, rotation.x, rotation.y, rotation.z)
    xyz = (translation.x, translation.y, translation.z)
    if not (any(wxyz) and np.isfinite((*xyz, *wxyz)).all()):
        return np.full((4, 4), np.nan)
    return transform_from_quaternion(xyz, wxyz)


def quaternion(T: Transform) -> Vector:
    """Return the rotation of a transform as a unit quaternion (w, x, y, z) with w >= 0."""
    wxyz: Vector = mat2quat(T[:3, :3])
    return wxyz


def rotation_vector(T: Transform) -> Vector:
    """Return the rotation of a transform as axis times angle [3] in radians, exact near zero."""
    w, *xyz = quaternion(T)
    sine = float(np.linalg.norm(xyz))  # of half the angle
    scale = 2 * np.arctan2(sine, w) / sine if sine > 1e-9 else 2.0
    return scale * np.asarray(xyz)


def inverse(T: Transform) -> Transform:
    """Return the inverse of a rigid transform [4, 4]."""
    rotation = T[:3, :3].T
    return transform(rotation, -rotation @ T[:3, 3])


def between(begin: Transform, end: Transform, share: float) -> Transform:
    """Return the pose [4, 4] on the way from `begin` to `end`, at 0 and 1, at constant speed."""
    turn = rotation_vector(inverse(begin) @ end)
    angle = float(np.linalg.norm(turn))
    rotation = begin[:3, :3]
    if angle > 0:
        rotation = rotation @ axangle2mat(turn, share * angle)
    return transform(rotation, (1 - share) * begin[:3, 3] + share * end[:3, 3])


def orthonormal(T: Transform) -> Transform:
    """Return the rigid transform nearest to `T`, so that long products do not drift off SO(3)."""
    u, _, vt = np.linalg.svd(T[:3, :3])
    return transform(u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt, T[:3, 3])


def optical_extrinsics(pose: Sequence[float] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)) -> Transform:
    """Return T_base_optical of a camera mounted at `pose`.

    Args:
        pose: x y z in metres, roll pitch yaw in radians, of the camera's body frame in the base
            frame. All zero is a level camera that looks along +x.

    Raises:
        ValueError: not six finite numbers.
    """
    values = np.asarray(pose, dtype=np.float64)
    if values.shape != (6,) or not np.isfinite(values).all():
        raise ValueError(f"camera_pose: six finite numbers x y z roll pitch yaw, got {list(pose)}")
    return transform(euler2mat(*values[3:], axes="sxyz") @ R_BODY_OPTICAL, values[:3])


@dataclass(frozen=True, slots=True)
class CropTransform:
    """How an image is scaled and then cropped or squeezed; all in pixels."""

    source_width: int
    source_height: int
    scaled_width: int
    scaled_height: int
    fit: str  # "crop" or "resize"
    width: int  # of the result
    height: int

    @property
    def left(self) -> int:
        """Columns cut away at the left after scaling."""
        return self.scaled_width // 2 - self.width // 2 if self.fit == "crop" else 0

    @property
    def top(self) -> int:
        """Rows cut away at the top after scaling."""
        return self.scaled_height // 2 - self.height // 2 if self.fit == "crop" else 0

    def intrinsics(self, source: Intrinsics) -> Intrinsics:
        """Return the intrinsics of the result of a camera with these of the source image.

        Pixel centres are at whole numbers, so the image begins half a pixel before 0 and a
        centre c scaled by s comes to (c + 1/2) s - 1/2.

        Raises:
            ValueError: they are of an image of another size.
        """
        if (source.width, source.height) != (self.source_width, self.source_height):
            raise ValueError(
                f"intrinsics: expected those of a {self.source_width}x{self.source_height} image, "
                f"got {source.width}x{source.height}"
            )
        cropped = self.fit == "crop"
        scale_x = (self.scaled_width if cropped else self.width) / self.source_width
        scale_y = (self.scaled_height if cropped else self.height) / self.source_height
        return Intrinsics(
            fx=source.fx * scale_x,
            fy=source.fy * scale_y,
            cx=(source.cx + 0.5) * scale_x - 0.5 - self.left,
            cy=(source.cy + 0.5) * scale_y - 0.5 - self.top,
            width=self.width,
            height=self.height,
        )
