# SPDX-License-Identifier: Apache-2.0
"""The same least squares in plain words: one edge after the other, no derivatives, dense."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from ttt3r_ros.geometry import Transform, inverse
from ttt3r_ros.pose_graph.graph import Edge, End, PoseGraph

Pose = tuple[Transform, float]  # of a segment, and the logarithm of its scale


def camera(pose: Pose, end: End) -> Transform:
    T_segment_camera = end.T_segment_camera.copy()
    T_segment_camera[:3, 3] *= np.exp(pose[1])
    return pose[0] @ T_segment_camera


def error(edge: Edge, first: Pose, second: Pose) -> np.ndarray:
    """[7], in standard deviations."""
    measured = edge.T_first_second.copy()
    measured[:3, 3] *= np.exp(first[1])
    E = inverse(measured) @ inverse(camera(first, edge.first)) @ camera(second, edge.second)
    turn = Rotation.from_matrix(E[:3, :3]).as_rotvec()
    whitening = np.linalg.inv(np.linalg.cholesky(edge.covariance))
    ratio = (second[1] - first[1] - edge.log_ratio) / edge.log_ratio_sigma
    return np.append(whitening @ np.hstack((E[:3, 3], turn)), ratio)


def moved(T: Transform, step: np.ndarray) -> Transform:
    result = T.copy()
    result[:3, 3] += T[:3, :3] @ step[:3]
    result[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(step[3:]).as_matrix()
    return result


def solved(
    graph: PoseGraph,
    edges: Sequence[Edge],
    weights: Sequence[float],
    scale_sigma: float | None = None,
) -> dict[int, Pose]:
    """Poses and scales; the first node stands still, scales only move with a sigma."""
    segments = graph.segments
    size = 6 if scale_sigma is None else 7

    def poses(x: np.ndarray) -> dict[int, Pose]:
        steps = x.reshape(-1, size)
        result = {}
        for segment, step in zip(segments, steps, strict=True):
            is_first = segment == segments[0]
            T = graph.pose(segment)
            T = T if is_first else moved(T, step[:6])
            result[segment] = (T, 0.0 if scale_sigma is None else step[6])
        return result

    def errors(x: np.ndarray) -> np.ndarray:
        at = poses(x)
        parts = [
            np.sqrt(weight) * error(edge, at[edge.first.segment], at[edge.second.segment])
            for edge, weight in zip(edges, weights, strict=True)
        ]
        if scale_sigma is not None:
            parts.append(np.array([scale / scale_sigma for _, scale in at.values()]))
        return np.concatenate(parts)

    found = least_squares(errors, np.zeros(size * len(segments)), xtol=1e-12, ftol=1e-12)
    return poses(found.x)
