# SPDX-License-Identifier: Apache-2.0
"""Taking the distortion of a lens out of pictures, as image_proc's rectify does.

Which matrices belong to a camera is `camera_info`'s.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]  # [3, 3]
Maps = tuple[npt.NDArray[Any], npt.NDArray[Any]]

_OPENCV = (4, 5, 8, 12, 14)  # k1 k2 p1 p2 k3, then k4 k5 k6 below the line, s1..s4, tx ty
COEFFICIENTS = {"plumb_bob": _OPENCV, "rational_polynomial": _OPENCV, "equidistant": (4,)}
"""The distortion models of `sensor_msgs/CameraInfo`, and how many coefficients they may have."""

MAX_PIXELS = 32_000_000
"""Of a picture whose lens is undone: maps take 25 bytes for each."""

_RADII = 2000  # at which a lens is looked at


class Rectification:
    """From the raw picture of a lens to a pinhole camera's picture of the same size.

    Where each pixel comes from is worked out once. Between raw pixels colours are interpolated
    linearly in steps of 1/32, so that pictures are equal to image_proc's.

    Attributes:
        outside: pixels [H, W] of the pinhole camera's that the raw picture does not show; None:
            there are none.
    """

    def __init__(
        self,
        model: str,
        distortion: npt.ArrayLike,
        K: Matrix,
        R: Matrix,
        P: Matrix,
        width: int,
        height: int,
    ) -> None:
        """Work out where pixels come from.

        Args:
            model: one of `COEFFICIENTS`.
            distortion: its coefficients.
            K: of the raw picture.
            R: from the lens's axes to the pinhole camera's.
            P: of the pinhole camera's picture.
            width: of both pictures, in pixels.
            height: of both pictures, in pixels.

        Raises:
            ValueError: there is no such model, it does not have these coefficients, there are more
                than `MAX_PIXELS`, or OpenCV cannot do it.
        """
        d = coefficients(model, distortion)
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width}x{height}: at most {MAX_PIXELS} pixels can be rectified")
        is_fisheye = model == "equidistant"
        make = cv2.fisheye.initUndistortRectifyMap if is_fisheye else cv2.initUndistortRectifyMap
        blank = np.full((height, width), 255, np.uint8)
        try:
            self._maps: Maps = make(K, d, R, P, (width, height), cv2.CV_16SC2)
            # With the maps above, OpenCV takes the pixel at the upper left for the nearest one.
            self._coordinates: Maps = cv2.convertMaps(*self._maps, cv2.CV_32FC1)
            outside = cv2.remap(blank, *self._maps, cv2.INTER_LINEAR) < 255
        except cv2.error as error:
            raise ValueError(f"{width}x{height}: not possible for OpenCV: {error.err}") from error
        x, y, z = _rays(R, P, width, height)
        outside |= ~(z > 0)
        if (largest := _largest_radius(d, is_fisheye)) < np.inf:
            outside |= np.hypot(x, y) > largest * z
        self.outside = outside if outside.any() else None
        self._lens_z = z  # depth by the lens of what is 1 deep by the pinhole camera

    def image(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the pinhole camera's picture of a raw one [H, W, 3], black outside of that."""
        return cv2.remap(rgb, *self._maps, cv2.INTER_LINEAR).astype(np.uint8, copy=False)

    def mask(self, mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_] | None:
        """Return the mask of a raw picture [H, W] as one of the pinhole camera's."""
        if mask is None:
            return None
        return cv2.remap(mask.astype(np.uint8), *self._coordinates, cv2.INTER_NEAREST) > 0

    def depth(self, depth_m: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return raw depth [h, w] of any size as the pinhole camera's, NaN where there is none.

        Both are along the optical axis of their camera.
        """
        height, width = depth_m.shape
        x, y = (cv2.resize(m, (width, height)) for m in self._coordinates)
        rows, columns = self._coordinates[0].shape
        x, y = (x + 0.5) * width / columns - 0.5, (y + 0.5) * height / rows - 0.5
        seen = cv2.remap(depth_m, x, y, cv2.INTER_NEAREST, borderValue=np.nan)
        if self.outside is not None:
            outside = cv2.resize(self.outside.astype(np.uint8), (width, height))
            seen[outside > 0] = np.nan
        return (seen / cv2.resize(self._lens_z, (width, height))).astype(np.float32, copy=False)


def coefficients(model: str, distortion: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the coefficients of a lens, without zeros that its model does not have at their end.

    Raises:
        ValueError: there is no such model, or it does not have these coefficients.
    """
    d = np.asarray(distortion, np.float64)
    if model not in COEFFICIENTS:
        raise ValueError(f"distortion_model: {model!r} is not one of {', '.join(COEFFICIENTS)}")
    counts = COEFFICIENTS[model]
    known = max((count for count in counts if count <= len(d)), default=0)
    if not known or d[known:].any() or not np.isfinite(d).all():
        allowed = " or ".join(map(str, counts))
        raise ValueError(f"d: {model} has {allowed} finite coefficients, got {d[:20].tolist()}")
    return d[:known]


def _rays(R: Matrix, P: Matrix, width: int, height: int) -> list[npt.NDArray[np.float32]]:
    """Return x, y and z [H, W] of where pixels look: by the lens, 1 deep by the pinhole camera."""
    u, v = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    rows = np.linalg.inv(P @ R).astype(np.float32)
    return [row[0] * u + row[1] * v + row[2] for row in rows]


def _largest_radius(d: npt.NDArray[np.float64], is_fisheye: bool) -> float:
    """Return up to where a lens keeps the order of what it sees.

    Beyond that the polynomials, which nobody has measured there, fold the picture over itself.
    """
    angle = np.linspace(0, np.pi / 2, _RADII, endpoint=False)
    radius = np.tan(angle)
    if is_fisheye:
        squared, seen = angle**2, angle
        above = np.polynomial.polynomial.polyval(squared, [1, *d])
        below = 1.0
    else:
        k1, k2, _, _, k3, k4, k5, k6 = np.pad(d[:8], (0, max(0, 8 - len(d))))
        squared, seen = radius**2, radius
        above = np.polynomial.polynomial.polyval(squared, [1, k1, k2, k3])
        below = np.polynomial.polynomial.polyval(squared, [1, k4, k5, k6])
    falls = np.diff(seen * above / below) <= 0
    return float(radius[falls.argmax()]) if falls.any() else np.inf
