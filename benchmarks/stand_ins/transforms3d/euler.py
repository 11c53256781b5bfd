# SPDX-License-Identifier: Apache-2.0
"""Rotations by Euler angles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .axangles import axangle2mat


def euler2mat(ai: float, aj: float, ak: float, axes: str = "sxyz") -> npt.NDArray[np.float64]:
    """Return the rotation [3, 3] by roll, pitch and yaw in radians about fixed axes, "sxyz" only.

    Raises:
        ValueError: other axes.
    """
    if axes != "sxyz":
        raise ValueError(f"axes: only sxyz, got {axes!r}")
    x, y, z = np.eye(3)
    return axangle2mat(z, ak) @ axangle2mat(y, aj) @ axangle2mat(x, ai)
