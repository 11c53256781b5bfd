# SPDX-License-Identifier: Apache-2.0
"""A classical camera path as a yardstick: features, essential matrix, and steps of equal length.

Two pictures of one camera do not tell how far it went, so each step counts as long as any other;
compare such a path after an alignment that scales. Not part of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

_CORNERS, _QUALITY, _APART = 400, 0.005, 3  # pixels between two corners
_WINDOW = (11, 11)
_BACK_PX = 0.7  # a corner tracked there and back comes this near to where it was
_INLIER_PX = 0.7
_FEWEST = 12
_RESTING_PX = 0.3  # median motion below which the camera is taken to stand still


def path(
    pictures: Sequence[npt.NDArray[np.uint8]], K: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Follow a camera.

    Args:
        pictures: T of [H, W, 3].
        K: intrinsic matrix, [3, 3].

    Returns:
        T_first_camera, [T, 4, 4]; every step that is not a rest has length 1. A step that cannot
        be told is the one before it again.
    """
    cv2.setRNGSeed(0)
    poses, step = [np.eye(4)], np.eye(4)
    grey = [np.asarray(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), np.uint8) for p in pictures]
    for before, after in pairwise(grey):
        step = _step(before, after, K, step)
        poses.append(poses[-1] @ step)
    return np.stack(poses)


def _step(
    before: npt.NDArray[np.uint8],
    after: npt.NDArray[np.uint8],
    K: npt.NDArray[np.float64],
    last: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """The pose of the second camera in the frame of the first."""
    corners = cv2.goodFeaturesToTrack(before, _CORNERS, _QUALITY, _APART)
    if corners is None:
        return last
    # Arrays of their own: the function writes into its fourth argument.
    there, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, corners, np.zeros_like(corners), winSize=_WINDOW
    )
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(
        after, before, there, np.zeros_like(corners), winSize=_WINDOW
    )
    near = np.linalg.norm(back - corners, axis=2) < _BACK_PX
    good = (near & (found > 0) & (found_back > 0))[:, 0]
    a, b = corners[good][:, 0], there[good][:, 0]
    if len(a) < _FEWEST:
        return last
    if np.median(np.linalg.norm(b - a, axis=1)) < _RESTING_PX:
        return np.eye(4)
    essential, inliers = cv2.findEssentialMat(a, b, K, cv2.RANSAC, 0.999, _INLIER_PX)
    if essential is None or essential.shape != (3, 3):
        return last
    count, rotation, translation, _ = cv2.recoverPose(essential, a, b, K, mask=inliers)
    if count < _FEWEST // 2:
        return last
    T_after_before = np.eye(4)
    T_after_before[:3, :3], T_after_before[:3, 3] = rotation, translation[:, 0]
    return np.asarray(np.linalg.inv(T_after_before), np.float64)
