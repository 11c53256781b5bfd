# SPDX-License-Identifier: Apache-2.0
"""How motion and scale of an estimated trajectory go wrong along the way.

Nothing here aligns trajectories or needs evo; that is `trajectory`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Poses = npt.NDArray[np.float64]  # [N, 4, 4] camera to world, metres
Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]  # in a sequence of poses

LENGTHS_M = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, *(100.0 * i for i in range(1, 9)))
"""A room, a building, and KITTI's 100 to 800 m."""

LEAST_WINDOW_M = 1.0
"""Over less path than that, the noise of single poses is a large share of the motion."""
MOST_WINDOWS = 20
_STILL = 1e-9  # an estimate that moves by a smaller share than that does not move


@dataclass(frozen=True, slots=True)
class MotionErrors:
    """Errors of the motion over a length of the true path, by that length, as KITTI's."""

    length_m: float
    pairs: int  # images that have another one so much further
    trans_percent: float  # mean
    rot_deg_per_m: float  # mean


@dataclass(frozen=True, slots=True)
class ScaleWindow:
    """What the estimate must be multiplied with along a piece of the path."""

    first: int  # place of its first pose
    last: int  # and of its last
    path_m: float  # from the beginning of the true path to the middle of the piece
    scale: float


@dataclass(frozen=True, slots=True)
class ScaleDrift:
    """How much the scale changes along the path; 1 and 0 if it stays."""

    window_m: float  # of true path
    last_by_first: float  # scale in the last window by that in the first
    log_spread: float  # standard deviation of the scales' logarithms
    windows: tuple[ScaleWindow, ...]


def path_m(poses: Poses) -> Floats:
    """Return how far along its path each pose is, [N] metres."""
    steps = np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)
    return np.concatenate(([0.0], steps.cumsum()))


def relative_errors(
    poses: Poses, true_poses: Poses, start: Places, stop: Places
) -> tuple[Floats, Floats]:
    """Compare motions from one pose to another with the true ones.

    Args:
        poses: N.
        true_poses: N.
        start: [K], where motions begin.
        stop: [K], where they end.

    Returns:
        Errors of translations [K] in metres and of rotations [K] in degrees.
    """
    true_motion = _inverse(true_poses[start]) @ true_poses[stop]
    error = _inverse(true_motion) @ _inverse(poses[start]) @ poses[stop]
    turn = error[:, :3, :3]
    skew = turn - turn.transpose(0, 2, 1)
    # The arc cosine alone would lose half of the digits of small angles.
    sine = np.linalg.norm(skew[:, (2, 0, 1), (1, 2, 0)], axis=1)  # doubled, as the cosine is
    angle = np.arctan2(sine, np.trace(turn, axis1=1, axis2=2) - 1)
    return np.linalg.norm(error[:, :3, 3], axis=1), np.degrees(angle)


def motion_errors(
    poses: Poses, true_poses: Poses, lengths_m: Sequence[float] = LENGTHS_M
) -> tuple[MotionErrors, ...]:
    """Compare motions over lengths of the true path.

    From every image to the first one that is so much further along the true path; each error is
    divided by the path between the two. (KITTI's own program begins at every tenth image, divides
    by the length asked for and takes one mean over 100 to 800 m.)

    Args:
        poses: N.
        true_poses: N.
        lengths_m: over which lengths.

    Returns:
        Errors by length, without the lengths that the path does not have.
    """
    along_m = path_m(true_poses)
    results = []
    for length_m in lengths_m:
        stop = np.searchsorted(along_m, along_m + length_m)
        start = np.flatnonzero(stop < len(along_m))
        if len(start):
            stop = stop[start]
            travelled_m = along_m[stop] - along_m[start]
            trans_m, rot_deg = relative_errors(poses, true_poses, start, stop)
            trans_percent = float(100 * (trans_m / travelled_m).mean())
            rot_deg_per_m = float((rot_deg / travelled_m).mean())
            results.append(MotionErrors(length_m, len(start), trans_percent, rot_deg_per_m))
    return tuple(results)


def scale_drift(poses: Poses, true_poses: Poses) -> ScaleDrift | None:
    """Follow the scale along the true path.

    The scale in a window is the quotient of the root mean square distances of true and estimated
    positions from their means: the symmetric scale of Horn 1987 (Closed-form solution of absolute
    orientation using unit quaternions). It needs no rotation, so a straight path has one, and
    unlike the quotient of path lengths it hardly sees jitter.

    Args:
        poses: N.
        true_poses: N.

    Returns:
        None if the path has less than two windows in which the estimate moves.
    """
    along_m = path_m(true_poses)
    count = min(int(along_m[-1] / LEAST_WINDOW_M), MOST_WINDOWS)
    if count < 2:
        return None
    window_m = float(along_m[-1] / count)
    borders = np.searchsorted(along_m, window_m * np.arange(1, count))  # shared by neighbours
    borders = np.array([0, *borders, len(along_m) - 1])
    windows = []
    for first, last in pairwise(borders):
        true_spread, spread = (
            float(np.sqrt(given[first : last + 1, :3, 3].var(axis=0).sum()))
            for given in (true_poses, poses)
        )
        if spread > _STILL * true_spread > 0:
            middle_m = float(along_m[first] + along_m[last]) / 2
            windows.append(ScaleWindow(int(first), int(last), middle_m, true_spread / spread))
    if len(windows) < 2:
        return None
    scales = [window.scale for window in windows]
    return ScaleDrift(
        window_m=window_m,
        last_by_first=scales[-1] / scales[0],
        log_spread=float(np.log(scales).std()),
        windows=tuple(windows),
    )


def _inverse(poses: Poses) -> Poses:
    result = np.zeros_like(poses)
    result[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
    result[:, :3, 3] = -np.einsum("nji,nj->ni", poses[:, :3, :3], poses[:, :3, 3])
    result[:, 3, 3] = 1.0
    return result
