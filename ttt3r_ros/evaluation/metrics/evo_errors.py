# SPDX-License-Identifier: Apache-2.0
"""Alignment, ATE and RPE by evo, as `plain_errors` has them.

This is the one file that imports evo (GPL-3.0, in the extra `evaluation`). Only `evo.core` is
used: importing it reads and writes no settings and loads no plotting.
"""

from __future__ import annotations

import numpy as np
from evo.core import metrics
from evo.core.geometry import GeometryException
from evo.core.trajectory import PosePath3D

from ttt3r_ros.evaluation.metrics.drift import Floats, Poses
from ttt3r_ros.types import EvaluationError


def align(poses: Poses, truth: Poses, alignment: str) -> tuple[Poses, float]:
    """Lay poses on the true ones; see `plain_errors.align`.

    Raises:
        EvaluationError: no alignment is the best.
    """
    path = _path(poses)
    try:
        _, _, scale = path.align(
            _path(truth),
            correct_scale=alignment == "sim3",
            correct_only_scale=alignment == "scale",
        )
    except GeometryException as error:
        raise EvaluationError(str(error)) from error
    return np.array(path.poses_se3), float(scale)


def position_errors(poses: Poses, truth: Poses) -> Floats:
    """Return the distances [N] of positions from the true ones, metres."""
    metric = metrics.APE(metrics.PoseRelation.translation_part)
    metric.process_data((_path(truth), _path(poses)))
    return np.asarray(metric.error)


def neighbour_errors(poses: Poses, truth: Poses) -> tuple[Floats, Floats]:
    """Return the errors of the motions from each pose to the next, [N - 1] metres and degrees."""
    paths = _path(truth), _path(poses)
    found = []
    for part in (metrics.PoseRelation.translation_part, metrics.PoseRelation.rotation_angle_deg):
        metric = metrics.RPE(part, delta=1, delta_unit=metrics.Unit.frames, all_pairs=True)
        metric.process_data(paths)
        found.append(np.asarray(metric.error))
    return found[0], found[1]


def _path(poses: Poses) -> PosePath3D:
    return PosePath3D(poses_se3=list(poses))
