# SPDX-License-Identifier: Apache-2.0
"""How far an estimated trajectory is from the true one: alignment, ATE and RPE.

They are computed by evo where it is installed (the extra `evaluation`), else in plain NumPy, with
the same numbers. Errors that grow along the way and errors of coming back are computed in `drift`
and `revisits`. What the numbers mean is said in docs/evaluation.md; which poses are compared is
`pose_track`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ttt3r_ros.evaluation.metrics.drift import (
    Floats,
    MotionErrors,
    Poses,
    ScaleDrift,
    motion_errors,
    path_m,
    scale_drift,
)
from ttt3r_ros.evaluation.metrics.revisits import RevisitErrors, revisit_errors
from ttt3r_ros.geometry import Transform, orthonormal
from ttt3r_ros.types import EvaluationError

try:
    from ttt3r_ros.evaluation.metrics.evo_errors import align as _fit
    from ttt3r_ros.evaluation.metrics.evo_errors import neighbour_errors, position_errors
except ImportError:
    from ttt3r_ros.evaluation.metrics.plain_errors import align as _fit
    from ttt3r_ros.evaluation.metrics.plain_errors import neighbour_errors, position_errors

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
    """Errors of poses, after each alignment and along the way.

    Alignments are those of least squares over all positions (Umeyama). Relative errors (RPE) are
    of neighbouring poses.
    """

    poses: int  # compared
    path_length_m: float  # of the true path
    guess_ate_rmse_m: float  # of a camera that never moves, aligned: it stands at the mean position
    by_alignment: dict[str, AlignedErrors]  # all of ALIGNMENTS
    motion: tuple[MotionErrors, ...]  # by length, nothing scaled
    scale_drift: ScaleDrift | None  # None if the path is too short
    revisits: RevisitErrors | None  # None if no place is seen again


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
    by_alignment: dict[str, AlignedErrors] = {}
    for alignment in ALIGNMENTS:
        try:
            path = _aligned(estimate, truth, alignment)
        except NoAlignmentError as error:
            by_alignment[alignment] = AlignedErrors(reason=str(error))
            continue
        by_alignment[alignment] = _errors(path, truth)
    return TrajectoryErrors(
        poses=len(truth),
        path_length_m=float(path_m(truth)[-1]),
        guess_ate_rmse_m=_root_mean_square(np.linalg.norm(places - places.mean(axis=0), axis=1)),
        by_alignment=by_alignment,
        motion=motion_errors(estimate, truth),
        scale_drift=scale_drift(estimate, truth),
        revisits=revisit_errors(estimate, truth, by_alignment["sim3"].scale),
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


def _aligned(estimate: Poses, truth: Poses, alignment: str) -> AlignedPath:
    if alignment == "none":
        return AlignedPath(estimate, 1.0)
    _refuse_lines(estimate, truth)
    try:
        return AlignedPath(*_fit(estimate, truth, alignment))
    except EvaluationError as error:
        raise NoAlignmentError(f"positions: {error}") from error


def _refuse_lines(estimate: Poses, truth: Poses) -> None:
    if len(truth) < 3:
        raise NoAlignmentError(f"positions: at least 3 are needed, got {len(truth)}")
    for name, poses in (("estimated", estimate), ("true", truth)):
        places = poses[:, :3, 3]
        extents = np.linalg.svd(places - places.mean(axis=0), compute_uv=False)
        if extents[1] <= _ON_ONE_LINE * extents[0]:
            raise NoAlignmentError(f"positions: the {name} ones are on one line")


def _errors(path: AlignedPath, truth: Poses) -> AlignedErrors:
    apart_m = position_errors(path.poses, truth)
    trans_m, rot_deg = neighbour_errors(path.poses, truth) if len(truth) > 1 else (None, None)
    return AlignedErrors(
        scale=path.scale,
        ate_rmse_m=_root_mean_square(apart_m),
        ate_mean_m=float(apart_m.mean()),
        ate_median_m=float(np.median(apart_m)),
        ate_max_m=float(apart_m.max()),
        rpe_trans_rmse_m=None if trans_m is None else _root_mean_square(trans_m),
        rpe_rot_rmse_deg=None if rot_deg is None else _root_mean_square(rot_deg),
    )


def _root_mean_square(numbers: Floats) -> float:
    return float(np.sqrt((numbers**2).mean()))
