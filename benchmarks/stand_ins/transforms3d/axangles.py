# SPDX-License-Identifier: Apache-2.0
"""Rotations by axis and angle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def axangle2mat(axis: npt.ArrayLike, angle: float) -> npt.NDArray[np.float64]:
    """Return the rotation [3, 3] by an angle in radians about an axis [3] of any length."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    result: npt.NDArray[np.float64] = (
        np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    )
    return result
