# SPDX-License-Identifier: Apache-2.0
"""What tells whether the camera is still followed: measured here, judged by `monitor`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transforms3d.axangles import axangle2mat

from ttt3r_ros.camera.reprojection import consistency
from ttt3r_ros.geometry import Intrinsics, Transform, inverse, rotation_vector, transform
from ttt3r_ros.types import NS_PER_S

_LONG_EDGE = 32  # pixels of the thumbnail
_SHIFT = 4  # pictures may be shifted by this fraction of their edges: 17 of 67 degrees
_LEAST_CONTRAST = 1e-3  # grey levels; only so that nothing is divided by zero

Thumbnail = npt.NDArray[np.float32]  # [h, w, 3], grey levels


@dataclass(frozen=True, slots=True, eq=False)
class Appearance:
    """One picture, small."""

    thumbnail: Thumbnail
    contrast: float  # standard deviation of the thumbnail's brightness, in grey levels
    # RMS steps between neighbours from left to right and from top to bottom, at twice the
    # thumbnail's size and as shares of the contrast. Motion blurs one more than the other.
    detail: tuple[float, float]


def appearance(rgb: npt.NDArray[np.uint8]) -> Appearance:
    """Look at a picture, uint8 [H, W, 3]."""
    double = thumbnail(rgb, 2)
    small = cv2.resize(double, _size(rgb), interpolation=cv2.INTER_AREA).astype(np.float32)
    contrast = float(small.mean(axis=2).std())
    grey, unit = double.mean(axis=2), max(contrast, _LEAST_CONTRAST)
    across, down = (float(np.sqrt(np.square(np.diff(grey, axis=axis)).mean())) for axis in (1, 0))
    return Appearance(small, contrast, (across / unit, down / unit))


def thumbnail(rgb: npt.NDArray[np.uint8], times: int = 1) -> Thumbnail:
    """Shrink a picture, uint8 [H, W, 3], to 32 pixels, or so many times 32, of its long edge."""
    width, height = _size(rgb)
    shrunk = cv2.resize(rgb, (times * width, times * height), interpolation=cv2.INTER_AREA)
    return shrunk.astype(np.float32)


def _size(rgb: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of a picture's thumbnail."""
    height, width = rgb.shape[:2]
    unit = max(height, width) / _LONG_EDGE
    return max(_SHIFT, round(width / unit)), max(_SHIFT, round(height / unit))


def similarity(one: Appearance, other: Appearance) -> float:
    """Correlation of two pictures of one size where they match best, -1 to 1.

    The middle of each is looked for in the other, shifted by up to a quarter of the edges, and
    the worse of the two answers counts. Brightness and contrast as a whole make no difference.
    """
    return min(_match(one.thumbnail, other.thumbnail), _match(other.thumbnail, one.thumbnail))


def _match(middle_of: Thumbnail, image: Thumbnail) -> float:
    y, x = (edge // _SHIFT for edge in middle_of.shape[:2])
    middle = np.ascontiguousarray(middle_of[y:-y, x:-x])
    return float(cv2.matchTemplate(image, middle, cv2.TM_CCOEFF_NORMED).max())


@dataclass(frozen=True, slots=True)
class Signals:
    """The measurements of one image. None: nothing to compare with, or not to be told."""

    confidence: float  # median of the confidence image, 1 to infinity
    contrast: float  # of the picture, in grey levels
    detail: tuple[float, float]  # of the picture across and down, see `appearance`
    repeated: bool = False  # the picture is the last one, byte by byte
    dt_s: float | None = None  # since the last picture
    similarity: float | None = None  # of the picture with the last one, -1 to 1
    disagreement: float | None = None  # median |log| of depths, see `consistency`
    share_seen: float | None = None  # of the last image's points that fall into this one
    translation_jump: float | None = None  # off constant velocity, as a share of the depth
    rotation_jump_rad: float | None = None  # off constant velocity
    depth: float | None = None  # typical depth of the last image, in the unit of the points


@dataclass(frozen=True, slots=True, eq=False)
class _Picture:
    stamp_ns: int
    rgb: npt.NDArray[np.uint8]  # [H, W, 3]
    appearance: Appearance


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    points: Tensor  # [H, W, 3]
    confidence: Tensor  # [H, W]
    T_odom_camera: Transform
    step: Transform | None  # T_previous_camera from the view before it
    dt_s: float  # of the step


class MotionGate:
    """Says which images differ enough from the last one in the state to be written into it."""

    def __init__(self, least_difference: float) -> None:
        """Let the next image in.

        Args:
            least_difference: mean difference of thumbnails that counts, in grey levels.
        """
        self._least_difference = least_difference
        self.reset()

    def reset(self) -> None:
        """Let the next image in: nothing is in the state yet."""
        self._written: Thumbnail | None = None

    def lets_in(self, rgb: npt.NDArray[np.uint8]) -> bool:
        """Whether an image, uint8 [H, W, 3], is to be written; it counts as written then."""
        now, last = thumbnail(rgb), self._written
        if last is not None and np.abs(now - last).mean() < self._least_difference:
            return False
        self._written = now
        return True


class SignalMeter:
    """Compares each image with the last one, of which it keeps what it needs."""

    def __init__(self) -> None:
        """Start with an empty history."""
        self.reset()

    def reset(self) -> None:
        """Forget the last image."""
        self._picture: _Picture | None = None
        self._view: _View | None = None

    def new_segment(self) -> None:
        """Forget where the last image was seen from and what depth it had, not its picture."""
        self._view = None

    def unit_changed(self, factor: float) -> None:
        """Take what was one long to be `factor` long from the next image on."""
        if last := self._view:
            step = None
            if last.step is not None:
                step = transform(last.step[:3, :3], factor * last.step[:3, 3])
            self._view = replace(last, points=factor * last.points, step=step)

    def measure(
        self,
        stamp_ns: int,
        rgb: npt.NDArray[np.uint8],
        T_odom_camera: Transform,
        points: Tensor,
        confidence: Tensor,
        median_confidence: float,
        intrinsics: Intrinsics | None,
    ) -> Signals:
        """Measure one image and keep it for the next.

        Waits for the device once, for three numbers; 0.8 ms on a CPU at 128x96.

        Args:
            stamp_ns: of the image, later than the last one's.
            rgb: [H, W, 3] as the network saw it.
            T_odom_camera: of the camera's optical frame, in the unit of the points.
            points: [H, W, 3] in the camera's optical frame.
            confidence: [H, W].
            median_confidence: of `confidence`.
            intrinsics: of the network's image; None: unknown, then depths are not compared.
        """
        picture, last_picture = _Picture(stamp_ns, rgb, appearance(rgb)), self._picture
        # Stamps may return from an odd one ahead.
        dt_s = max(0, stamp_ns - last_picture.stamp_ns) / NS_PER_S if last_picture else 0.0
        alike, repeated = None, False
        if last_picture and last_picture.rgb.shape == rgb.shape:
            alike = similarity(last_picture.appearance, picture.appearance)
            repeated = bool(np.array_equal(last_picture.rgb, rgb))

        step, last = None, self._view
        disagreement = share_seen = depth = None
        if last:
            step = inverse(last.T_odom_camera) @ T_odom_camera
            if intrinsics and last.points.shape == points.shape:
                compared = consistency(
                    last.points,
                    last.confidence,
                    points,
                    torch.from_numpy(inverse(step)).to(points.device, non_blocking=True),
                    intrinsics,
                )
                disagreement, share_seen, depth = map(_finite, compared.tolist())
        jump = rotation_jump_rad = translation_jump = None
        if last and last.step is not None and step is not None and last.dt_s > 0:
            jump = inverse(_extrapolated(last.step, dt_s / last.dt_s)) @ step
            rotation_jump_rad = float(np.linalg.norm(rotation_vector(jump)))
            if depth:
                translation_jump = float(np.linalg.norm(jump[:3, 3])) / depth

        self._picture = picture
        self._view = _View(points, confidence, T_odom_camera, step, dt_s)
        return Signals(
            confidence=median_confidence,
            contrast=picture.appearance.contrast,
            detail=picture.appearance.detail,
            repeated=repeated,
            dt_s=dt_s if last_picture else None,
            similarity=alike,
            disagreement=disagreement,
            share_seen=share_seen,
            translation_jump=translation_jump,
            rotation_jump_rad=rotation_jump_rad,
            depth=depth,
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _extrapolated(step: Transform, factor: float) -> Transform:
    """The step at the same velocity in `factor` times the time."""
    vector = factor * rotation_vector(step)
    angle = float(np.linalg.norm(vector))
    rotation = axangle2mat(vector / angle, angle) if angle > 0 else np.eye(3)
    return transform(rotation, factor * step[:3, 3])
