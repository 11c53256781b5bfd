# SPDX-License-Identifier: Apache-2.0
"""How far an estimated trajectory is from the true one, computed by evo.

This is the one file that imports evo (GPL-3.0, in the extra `evaluation`). Only `evo.core` is
used: importing it reads and writes no settings and loads no plotting. What the numbers mean is said
in docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ttt3r_ros.evaluation.evaluation_error import EvaluationError
from ttt3r_ros.geometry import Transform

try:
    from evo.core import sync
    from evo.core.geometry import GeometryException
    from evo.core.metrics import APE, RPE, PoseRelation, StatisticsType, Unit
    from evo.core.trajectory import PosePath3D
except ImportError as error:
    raise EvaluationError(
        "comparing trajectories needs the library evo, which is not installed; "
        "pip install 'ttt3r_ros[evaluation]'"
    ) from error

Stamps = npt.NDArray[np.int64]  # [N] nanoseconds
Poses = npt.NDArray[np.float64]  # [N, 4, 4] camera to world, metres

MAX_DIFFERENCE_S = 0.01
"""Stamps that differ by more are of different moments; evo's own default."""


@dataclass(frozen=True, slots=True)
class TrajectoryErrors:
    """Root mean squares; None where the poses are too few or on one line, which fixes no rotation.

    Alignments are those of least squares over all positions (Umeyama). Relative errors (RPE) are
    of neighbouring poses.
    """

    poses: int  # compared
    path_length_m: float  # of the true path
    guess_ate_rmse_m: float  # of a camera that never moves, aligned: it stands at the mean position
    ate_rmse_m: float | None  # after an SE(3) alignment
    ate_sim3_rmse_m: float | None  # after a Sim(3) alignment
    sim3_scale: float | None  # by which it multiplies the estimate
    rpe_trans_m: float | None  # any SE(3) alignment leaves it as it is
    rpe_trans_sim3_m: float | None  # after the Sim(3) alignment
    rpe_rot_deg: float | None


def associate(stamps_ns: Stamps, true_stamps_ns: Stamps) -> tuple[list[int], list[int]]:
    """Find the nearest true pose of each estimated one.

    Args:
        stamps_ns: [N], of estimated poses.
        true_stamps_ns: [M], of true ones, in any order.

    Returns:
        Places in `stamps_ns` and in `true_stamps_ns` of those no more than `MAX_DIFFERENCE_S`
        apart.
    """
    if not len(stamps_ns) or not len(true_stamps_ns):
        return [], []
    order = np.argsort(true_stamps_ns, kind="stable")
    # Seconds as floats since the epoch would lose digits.
    first = min(stamps_ns.min(), true_stamps_ns.min())
    seconds, true_seconds = (1e-9 * (s - first) for s in (stamps_ns, true_stamps_ns[order]))
    here, there = sync.matching_time_indices(seconds, true_seconds, MAX_DIFFERENCE_S)
    return here, [int(order[place]) for place in there]


def trajectory_errors(
    poses: Iterable[Transform], true_poses: Iterable[Transform]
) -> TrajectoryErrors:
    """Compare estimated poses with the true ones of the same moments.

    Args:
        poses: N of them, in a world of their own, float64 [4, 4], metres.
        true_poses: as many.

    Raises:
        EvaluationError: there are none, or not as many.
    """
    estimate, truth = np.array([*poses]), np.array([*true_poses])
    if estimate.shape != truth.shape or estimate.shape[1:] != (4, 4):
        raise EvaluationError(
            f"poses: expected as many as true ones and at least one, [N, 4, 4], "
            f"got {[*estimate.shape]} and {[*truth.shape]}"
        )
    places = truth[:, :3, 3]
    rigid = _aligned(estimate, truth, with_scale=False)
    similar = _aligned(estimate, truth, with_scale=True)
    return TrajectoryErrors(
        poses=len(truth),
        path_length_m=float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum()),
        guess_ate_rmse_m=float(np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean())),
        ate_rmse_m=_absolute(rigid[0], truth) if rigid else None,
        ate_sim3_rmse_m=_absolute(similar[0], truth) if similar else None,
        sim3_scale=similar[1] if similar else None,
        rpe_trans_m=_relative(estimate, truth, PoseRelation.translation_part),
        rpe_trans_sim3_m=(
            _relative(similar[0], truth, PoseRelation.translation_part) if similar else None
        ),
        rpe_rot_deg=_relative(estimate, truth, PoseRelation.rotation_angle_deg),
    )


def _path(poses: Poses) -> PosePath3D:
    return PosePath3D(poses_se3=list(poses))


def _aligned(estimate: Poses, truth: Poses, *, with_scale: bool) -> tuple[Poses, float] | None:
    """Return the estimate aligned to the truth, and the scale; None if no alignment is the best."""
    path = _path(estimate)
    try:
        _, _, scale = path.align(_path(truth), correct_scale=with_scale)
    except GeometryException:
        return None
    return np.array(path.poses_se3), float(scale)


def _absolute(estimate: Poses, truth: Poses) -> float:
    metric = APE(PoseRelation.translation_part)
    metric.process_data((_path(truth), _path(estimate)))
    return float(metric.get_statistic(StatisticsType.rmse))


def _relative(estimate: Poses, truth: Poses, relation: PoseRelation) -> float | None:
    if len(truth) < 2:
        return None
    metric = RPE(relation, delta=1, delta_unit=Unit.frames, all_pairs=True)
    metric.process_data((_path(truth), _path(estimate)))
    return float(metric.get_statistic(StatisticsType.rmse))
