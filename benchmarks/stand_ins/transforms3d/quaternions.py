# SPDX-License-Identifier: Apache-2.0
"""Rotations by quaternions (w, x, y, z)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def quat2mat(q: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the rotation [3, 3] of a quaternion of any length but 0."""
    w, *xyz = np.asarray(q, float) / np.linalg.norm(q)
    x, y, z = xyz
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    result: npt.NDArray[np.float64] = np.eye(3) + 2 * w * cross + 2 * cross @ cross
    return result


def mat2quat(M: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the unit quaternion, w >= 0, nearest to a rotation [3, 3].

    It is the eigenvector of the largest eigenvalue of a symmetric matrix (Bar-Itzhack 2000).
    """
    (xx, yx, zx), (xy, yy, zy), (xz, yz, zz) = np.asarray(M, float)
    lower = [
        [xx + yy + zz, 0.0, 0.0, 0.0],
        [yz - zy, xx - yy - zz, 0.0, 0.0],
        [zx - xz, yx + xy, yy - xx - zz, 0.0],
        [xy - yx, zx + xz, zy + yz, zz - xx - yy],
    ]
    wxyz: npt.NDArray[np.float64] = np.linalg.eigh(lower)[1][:, -1]  # looks at the lower half
    return -wxyz if wxyz[0] < 0 else wxyz
