# SPDX-License-Identifier: Apache-2.0
"""How far an estimated trajectory is from the true one; association, alignment, ATE, RPE by evo.

This is the one file that imports evo (GPL-3.0, in the extra `evaluation`). Only `evo.core` is
used: importing it reads and writes no settings and loads no plotting. Errors that grow along the
way and errors of coming back are computed in `drift` and `revisits`. What the
numbers mean is said in docs/evaluation.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ttt3r_ros.evaluation.evaluation_error import EvaluationError
from ttt3r_ros.evaluation.metrics.drift import (
    MotionErrors,
    Poses,
    ScaleDrift,
    motion_errors,
    path_m,
    scale_drift,
)
from ttt3r_ros.evaluation.metrics.revisits import RevisitErrors, revisit_errors
from ttt3r_ros.geometry import Transform, orthonormal

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

MAX_DIFFERENCE_S = 0.01
"""Stamps that differ by more are of different moments; evo's own default."""

ALIGNMENTS = ("sim3", "se3", "scale", "none")
"""What the least squares over all positions (Umeyama) may change of the estimate: rotation, origin
and scale; rotation and origin; the scale alone, about the origin; nothing."""

_ON_ONE_LINE = 1e-6  # of the extent along the line: what text files round is no direction
_ROUNDED = 1e-3  # rotations that are farther from orthonormal are not rotations


class NoAlignmentError(EvaluationError):
    """No alignment is the best one; why."""


@dataclass(frozen=True, slots=True)
class AlignedPath:
    """An estimate as the alignment lays it on the truth."""

    poses: Poses  # [N, 4, 4]
    scale: float  # by which positions were multiplied; 1 if the alignment does not scale


@dataclass(frozen=True, slots=True)
class AlignedErrors:
    """Errors after one alignment; None where there is none, or no pair of poses."""

    scale: float | None = None  # by which it multiplies the estimate
    ate_rmse_m: float | None = None
    ate_mean_m: float | None = None
    ate_median_m: float | None = None
    ate_max_m: float | None = None
    rpe_trans_rmse_m: float | None = None
    rpe_rot_rmse_deg: float | None = None
    reason: str | None = None  # why there is no alignment


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
    by_alignment: dict[str, AlignedErrors]  # all of ALIGNMENTS
    motion: tuple[MotionErrors, ...]  # by length, nothing scaled
    motion_sim3: tuple[MotionErrors, ...] | None  # after the Sim(3) alignment
    scale_drift: ScaleDrift | None  # None if the path is too short
    revisits: RevisitErrors | None  # None if no place is seen again


def associate(
    stamps_ns: Stamps, true_stamps_ns: Stamps, max_difference_s: float = MAX_DIFFERENCE_S
) -> tuple[list[int], list[int]]:
    """Find pairs of estimated and true poses of the same moments, as evo's programs do.

    Each pose of the trajectory that has fewer (of both as many: of the estimate) goes with the
    nearest one of the other.

    Args:
        stamps_ns: [N], of estimated poses, in any order.
        true_stamps_ns: [M], of true ones, in any order.
        max_difference_s: no pair is farther apart.

    Returns:
        Places in `stamps_ns` and in `true_stamps_ns`. In the sparser one they are as there, each
        at most once.
    """
    if not len(stamps_ns) or not len(true_stamps_ns):
        return [], []
    if len(stamps_ns) > len(true_stamps_ns):
        there, here = _nearest(true_stamps_ns, stamps_ns, max_difference_s)
    else:
        here, there = _nearest(stamps_ns, true_stamps_ns, max_difference_s)
    return here, there


def trajectory_errors(
    poses: Iterable[Transform], true_poses: Iterable[Transform]
) -> TrajectoryErrors:
    """Compare estimated poses with the true ones of the same moments.

    Args:
        poses: N of them, in a world of their own, float64 [4, 4], metres.
        true_poses: as many.

    Raises:
        EvaluationError: there are none, or not as many, or one is no pose.
    """
    estimate, truth = _checked(poses, true_poses)
    places = truth[:, :3, 3]
    # Whatever is aligned, rotations are compared with their neighbours'.
    rpe_rot_deg = _relative(estimate, truth, PoseRelation.rotation_angle_deg)
    by_alignment: dict[str, AlignedErrors] = {}
    scaled: Poses | None = None
    for alignment in ALIGNMENTS:
        try:
            path = _aligned(estimate, truth, alignment)
        except NoAlignmentError as error:
            by_alignment[alignment] = AlignedErrors(reason=str(error))
            continue
        by_alignment[alignment] = _errors(path, truth, rpe_rot_deg)
        if alignment == "sim3":
            scaled = path.poses
    rigid, similar = by_alignment["se3"], by_alignment["sim3"]
    return TrajectoryErrors(
        poses=len(truth),
        path_length_m=float(path_m(truth)[-1]),
        guess_ate_rmse_m=float(np.sqrt(((places - places.mean(axis=0)) ** 2).sum(axis=1).mean())),
        ate_rmse_m=rigid.ate_rmse_m,
        ate_sim3_rmse_m=similar.ate_rmse_m,
        sim3_scale=similar.scale,
        rpe_trans_m=by_alignment["none"].rpe_trans_rmse_m,
        rpe_trans_sim3_m=similar.rpe_trans_rmse_m,
        rpe_rot_deg=rpe_rot_deg,
        by_alignment=by_alignment,
        motion=motion_errors(estimate, truth),
        motion_sim3=None if scaled is None else motion_errors(scaled, truth),
        scale_drift=scale_drift(estimate, truth),
        revisits=revisit_errors(estimate, truth, similar.scale),
    )


def align(
    poses: Iterable[Transform], true_poses: Iterable[Transform], alignment: str
) -> AlignedPath:
    """Lay estimated poses on the true ones of the same moments, for pictures of them.

    Args:
        poses: N of them, float64 [4, 4], metres.
        true_poses: as many.
        alignment: one of `ALIGNMENTS`.

    Raises:
        NoAlignmentError: there are too few poses, or they are on one line.
        EvaluationError: as `trajectory_errors`, or there is no such alignment.
    """
    if alignment not in ALIGNMENTS:
        raise EvaluationError(f"alignment: expected {', '.join(ALIGNMENTS)}, got {alignment!r}")
    return _aligned(*_checked(poses, true_poses), alignment)


def _nearest(
    stamps: Stamps, others: Stamps, max_difference_s: float
) -> tuple[list[int], list[int]]:
    order = np.argsort(others, kind="stable")
    # Seconds as floats since the epoch would lose digits.
    first = min(stamps.min(), others.min())
    seconds, other_seconds = (1e-9 * (s - first) for s in (stamps, others[order]))
    here, there = sync.matching_time_indices(seconds, other_seconds, max_difference_s)
    return here, [int(order[place]) for place in there]


def _checked(poses: Iterable[Transform], true_poses: Iterable[Transform]) -> tuple[Poses, Poses]:
    estimate, truth = np.array([*poses]), np.array([*true_poses])
    if estimate.shape != truth.shape or estimate.shape[1:] != (4, 4):
        raise EvaluationError(
            f"poses: expected as many as true ones and at least one, [N, 4, 4], "
            f"got {[*estimate.shape]} and {[*truth.shape]}"
        )
    return _rigid(estimate, "poses"), _rigid(truth, "true poses")


def _rigid(poses: Poses, name: str) -> Poses:
    """Return poses whose rotations are exact; what a text file rounds is too much for evo."""
    result = np.array([orthonormal(T) for T in np.where(np.isfinite(poses), poses, 0.0)])
    wrong = ~(np.abs(result - poses).max(axis=(1, 2)) < _ROUNDED)
    if wrong.any():
        place = int(wrong.argmax())
        raise EvaluationError(
            f"{name}: number {place} is not a rotation and a translation in metres: "
            f"{poses[place].tolist()}"
        )
    return result


def _path(poses: Poses) -> PosePath3D:
    return PosePath3D(poses_se3=list(poses))


def _aligned(estimate: Poses, truth: Poses, alignment: str) -> AlignedPath:
    if alignment == "none":
        return AlignedPath(estimate, 1.0)
    _refuse_lines(estimate, truth)
    path = _path(estimate)
    try:
        _, _, scale = path.align(
            _path(truth),
            correct_scale=alignment == "sim3",
            correct_only_scale=alignment == "scale",
        )
    except GeometryException as error:
        raise NoAlignmentError(f"positions: {error}") from error
    return AlignedPath(np.array(path.poses_se3), float(scale))


def _refuse_lines(estimate: Poses, truth: Poses) -> None:
    if len(truth) < 3:
        raise NoAlignmentError(f"positions: at least 3 are needed, got {len(truth)}")
    for name, poses in (("estimated", estimate), ("true", truth)):
        places = poses[:, :3, 3]
        extents = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
        if extents[1] <= _ON_ONE_LINE * extents[0]:
            raise NoAlignmentError(f"positions: the {name} ones are on one line")


def _errors(path: AlignedPath, truth: Poses, rpe_rot_deg: float | None) -> AlignedErrors:
    metric = APE(PoseRelation.translation_part)
    metric.process_data((_path(truth), _path(path.poses)))
    rmse, mean, median, most = (
        float(metric.get_statistic(statistic))
        for statistic in (
            StatisticsType.rmse,
            StatisticsType.mean,
            StatisticsType.median,
            StatisticsType.max,
        )
    )
    return AlignedErrors(
        scale=path.scale,
        ate_rmse_m=rmse,
        ate_mean_m=mean,
        ate_median_m=median,
        ate_max_m=most,
        rpe_trans_rmse_m=_relative(path.poses, truth, PoseRelation.translation_part),
        rpe_rot_rmse_deg=rpe_rot_deg,
    )


def _relative(estimate: Poses, truth: Poses, relation: PoseRelation) -> float | None:
    if len(truth) < 2:
        return None
    metric = RPE(relation, delta=1, delta_unit=Unit.frames, all_pairs=True)
    metric.process_data((_path(truth), _path(estimate)))
    return float(metric.get_statistic(StatisticsType.rmse))
