# SPDX-License-Identifier: Apache-2.0
"""Whether a calibration can be that of a camera, or is what a driver sends instead of one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BORDER_PX = 1.0  # a principal point nearer to the border than that was divided by the size
_SQUARE = 2.0  # pixels may be so much wider than high, or higher than wide
_FIELD_OF_VIEW_DEG = (5.0, 175.0)
_ORTHONORMAL = 1e-3  # the most that R Rᵀ may be off


def check_camera_matrix(
    name: str, matrix: npt.NDArray[np.float64], width: int, height: int
) -> None:
    """Check a camera matrix [3, 3] against the size of its image, of the whole sensor.

    Raises:
        ValueError: it begins with the name, and says what cannot be.
    """
    fx, fy, cx, cy = (float(matrix[place]) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    if not (np.isfinite((fx, fy, cx, cy)).all() and fx > 0 and fy > 0):
        raise ValueError(f"{name}: fx and fy must be positive, all finite, got {fx, fy, cx, cy}")
    if not 1 / _SQUARE <= fx / fy <= _SQUARE:
        raise ValueError(f"{name}: fx / fy must be within 0.5 and 2, got {fx:g} / {fy:g}")
    degrees = [2 * np.degrees(np.arctan2(size / 2, f)) for size, f in ((width, fx), (height, fy))]
    low, high = _FIELD_OF_VIEW_DEG
    if not low <= max(degrees) <= high:
        raise ValueError(
            f"{name}: a field of view of {max(degrees):.1f} degrees, of {low:g} to {high:g}, by "
            f"fx, fy {fx:g}, {fy:g} and {width}x{height} pixels"
        )
    for axis, size, c in (("cx", width, cx), ("cy", height, cy)):
        if not _BORDER_PX < c < size - _BORDER_PX:
            raise ValueError(f"{name}: {axis} must be inside the image, 0 to {size}, got {c:g}")


def check_rotation(name: str, matrix: npt.NDArray[np.float64]) -> None:
    """Check a rotation [3, 3].

    Raises:
        ValueError: it begins with the name.
    """
    off = np.abs(matrix @ matrix.T - np.eye(3)).max()
    if not (off < _ORTHONORMAL and np.linalg.det(matrix) > 0):
        raise ValueError(f"{name}: is no rotation: {matrix.flatten().round(4).tolist()}")
