# SPDX-License-Identifier: Apache-2.0
"""Whether an estimated trajectory comes back to where it was when the camera does.

A recurrent state that remembers places closes loops without being told to; odometry that forgets
lands beside the place by all the drift in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ttt3r_ros.evaluation.metrics.drift import Places, Poses, path_m, relative_errors

NEAR_M = 0.3
NEAR_DEG = 30.0
"""Nearer than both, two images of a room show the same things from the same side: at 30 degrees
half of a view of 60 degrees is shared."""
AWAY_M = 1.0
AWAY_DEG = 60.0
"""In between the camera has been farther from the place, or has looked elsewhere, so that little
of it was to be seen: coming back is not the same as staying."""
BETWEEN_M = 3.0
"""And has gone so far in between: after a glance aside there is no drift that could be closed."""


@dataclass(frozen=True, slots=True)
class RevisitErrors:
    """Errors of the motion from an earlier image to one that sees the same place again."""

    images: int  # that see a place again; each is compared with the nearest earlier one
    visits: int  # unbroken runs of such images
    path_between_m: float  # median of the true path from one to the other
    trans_median_m: float
    trans_rmse_m: float
    trans_sim3_median_m: float | None  # with the scale of the Sim(3) alignment
    trans_sim3_rmse_m: float | None
    rot_median_deg: float
    rot_rmse_deg: float


def find_revisits(true_poses: Poses) -> tuple[Places, Places]:
    """Find images that see again what an earlier one saw.

    Args:
        true_poses: N, of cameras that look along their z axis.

    Returns:
        Places [K] of earlier images and places [K] of later ones, these in ascending order. Of
        several earlier images it is the nearest.
    """
    positions, views = true_poses[:, :3, 3], true_poses[:, :3, 2]
    along_m = path_m(true_poses)
    near_cosine, away_cosine = np.cos(np.radians((NEAR_DEG, AWAY_DEG)))
    nearest_m = np.full(len(true_poses), NEAR_M)
    earlier = np.full(len(true_poses), -1)
    for here in range(len(true_poses) - 1):
        apart_m = np.linalg.norm(positions[here:] - positions[here], axis=1)
        cosine = views[here:] @ views[here]
        been_away = np.logical_or.accumulate((apart_m > AWAY_M) | (cosine < away_cosine))
        again = (
            been_away
            & (along_m[here:] - along_m[here] >= BETWEEN_M)
            & (apart_m < nearest_m[here:])
            & (cosine > near_cosine)
        )
        later = here + np.flatnonzero(again)
        nearest_m[later], earlier[later] = apart_m[again], here
    later = np.flatnonzero(earlier >= 0)
    return earlier[later], later


def revisit_errors(
    poses: Poses, true_poses: Poses, sim3_scale: float | None
) -> RevisitErrors | None:
    """Compare the way back to known places with the true one.

    Args:
        poses: N.
        true_poses: N.
        sim3_scale: of the Sim(3) alignment of all poses, if there is one.

    Returns:
        None if no place is seen again.
    """
    earlier, later = find_revisits(true_poses)
    if not len(later):
        return None
    trans_m, rot_deg = relative_errors(poses, true_poses, earlier, later)
    sim3_m = None
    if sim3_scale is not None:
        scaled = poses.copy()
        scaled[:, :3, 3] *= sim3_scale
        sim3_m, _ = relative_errors(scaled, true_poses, earlier, later)
    along_m = path_m(true_poses)
    return RevisitErrors(
        images=len(later),
        visits=1 + int((np.diff(later) > 1).sum()),
        path_between_m=float(np.median(along_m[later] - along_m[earlier])),
        trans_median_m=float(np.median(trans_m)),
        trans_rmse_m=float(np.sqrt((trans_m**2).mean())),
        trans_sim3_median_m=None if sim3_m is None else float(np.median(sim3_m)),
        trans_sim3_rmse_m=None if sim3_m is None else float(np.sqrt((sim3_m**2).mean())),
        rot_median_deg=float(np.median(rot_deg)),
        rot_rmse_deg=float(np.sqrt((rot_deg**2).mean())),
    )
