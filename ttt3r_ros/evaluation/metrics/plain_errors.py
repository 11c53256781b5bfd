# SPDX-License-Identifier: Apache-2.0
"""Alignment, ATE and RPE in plain NumPy: what evo computes, where evo is not installed.

The tests hold both to the same numbers. Which one is used is `trajectory`'s choice.
"""

from __future__ import annotations

import numpy as np

from ttt3r_ros.evaluation.metrics.drift import Floats, Poses, relative_errors


def align(poses: Poses, truth: Poses, alignment: str) -> tuple[Poses, float]:
    """Lay poses on the true ones by least squares over all positions.

    Rotation by Horn 1987 (Closed-form solution of absolute orientation using unit quaternions),
    scale by Umeyama 1991.

    Args:
        poses: [N, 4, 4], not all on one line.
        truth: [N, 4, 4].
        alignment: "sim3", "se3" or "scale".

    Returns:
        Aligned poses [N, 4, 4], and what their positions were multiplied with.
    """
    x, y = poses[:, :3, 3], truth[:, :3, 3]
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = a.T @ b
    symmetric = np.array([
        [xx + yy + zz, yz - zy, zx - xz, xy - yx],
        [yz - zy, xx - yy - zz, xy + yx, zx + xz],
        [zx - xz, xy + yx, -xx + yy - zz, yz + zy],
        [xy - yx, zx + xz, yz + zy, -xx - yy + zz],
    ])  # fmt: skip
    w, *v = np.linalg.eigh(symmetric)[1][:, -1]
    axis = np.array(v)
    cross = np.cross(np.eye(3), axis)
    R = (w * w - axis @ axis) * np.eye(3) + 2 * np.outer(axis, axis) + 2 * w * cross
    scale = 1.0 if alignment == "se3" else float(((a @ R.T) * b).sum() / (a * a).sum())
    if alignment == "scale":
        R, shift = np.eye(3), np.zeros(3)
    else:
        shift = y.mean(axis=0) - scale * R @ x.mean(axis=0)
    result = np.tile(np.eye(4), (len(poses), 1, 1))
    result[:, :3, :3] = R @ poses[:, :3, :3]
    result[:, :3, 3] = scale * x @ R.T + shift
    return result, scale


def position_errors(poses: Poses, truth: Poses) -> Floats:
    """Return the distances [N] of positions from the true ones, metres."""
    distances: Floats = np.linalg.norm(poses[:, :3, 3] - truth[:, :3, 3], axis=1)
    return distances


def neighbour_errors(poses: Poses, truth: Poses) -> tuple[Floats, Floats]:
    """Return the errors of the motions from each pose to the next, [N - 1] metres and degrees."""
    places = np.arange(len(poses))
    return relative_errors(poses, truth, places[:-1], places[1:])
