# SPDX-License-Identifier: Apache-2.0
"""Solving a graph some of whose loops are false.

Graduated non-convexity with truncated least squares: Yang, Antonante, Tzoumas and Carlone,
"Graduated Non-Convexity for Robust Spatial Perception" (arXiv:1909.08605), section IV. It begins
with a cost in which all loops pull, and loops that go on disagreeing lose their weight on the way
to one in which they are either believed or not. Boundaries and odometry are never doubted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri

from ttt3r_ros.geometry import Transform, inverse
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End, PoseGraph
from ttt3r_ros.pose_graph.residuals import Estimate
from ttt3r_ros.pose_graph.rotations import Array
from ttt3r_ros.pose_graph.solver import LeastSquares

_DIMENSIONS = 6  # of an error
_MOST_SQUARED_ERROR = float(chdtri(_DIMENSIONS, 0.01))  # of a loop that is believed: 16.8
_GATE = float(chdtri(_DIMENSIONS, 0.001))  # of one that may be looked at: 22.5
_FACTOR = 1.4  # by which the cost gets steeper from one turn to the next, as in the paper
_MOST_TURNS = 100
_STEPS_PER_TURN = 2
_LAST_STEPS = 20
_SETTLED = 1e-3  # of weights from 0 and 1


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A graph's solution.

    Attributes:
        poses: T_map_segment of every node.
        log_scales: what each node's scale is wrong by, as a logarithm; 0 without Sim(3).
        weights: of each edge in the graph's order, 0 or 1, all but exactly.
    """

    poses: dict[int, Transform]
    log_scales: dict[int, float]
    weights: npt.NDArray[np.float64]  # [E]


def squared_distance(error: Array, covariance: Array) -> float:
    """Mahalanobis' distance, squared, of an error [6] with a covariance [6, 6]."""
    return float(error @ np.linalg.solve(covariance, error))


def passing(graph: PoseGraph, edges: Sequence[Edge]) -> list[Edge]:
    """Those of some new loops that may be true by how uncertain the graph is between their ends.

    Args:
        graph: without these loops; loops that it does not believe do not count.
        edges: each is judged alone.
    """
    errors = expected_errors(graph, edges)
    return [
        edge for edge, error in zip(edges, errors, strict=True) if squared_distance(*error) <= _GATE
    ]


def expected_errors(graph: PoseGraph, edges: Sequence[Edge]) -> list[tuple[Array, Array]]:
    """What new edges say against the graph [6], and the covariances [6, 6] that this has."""
    if not edges:
        return []
    problem = LeastSquares(graph.segments, graph.edges, held=graph.held)
    at = Estimate.of([graph.pose(segment) for segment in graph.segments])
    return problem.expected_errors(at, graph.weights, edges)


def camera_covariance(graph: PoseGraph, camera: End) -> Array:
    """How unsure a camera's pose in the map is, [6, 6] in its axes; what stands still is sure."""
    first = End(graph.segments[0])
    if camera.segment == first.segment:
        return np.zeros((6, 6))
    T_first_camera = inverse(graph.pose(first.segment)) @ graph.pose(camera.segment)
    T_first_camera = T_first_camera @ camera.T_segment_camera
    exact = Edge(first, camera, T_first_camera, np.eye(6), EdgeKind.LOOP)
    return expected_errors(graph, [exact])[0][1] - np.eye(6)


def solve_robustly(
    graph: PoseGraph,
    *,
    scale_sigma: float = math.inf,
    most_squared_error: float = _MOST_SQUARED_ERROR,
) -> Solved:
    """Solve a graph from where it stands, deciding anew which loops are believed.

    Args:
        graph: it is not changed.
        scale_sigma: as of `LeastSquares`.
        most_squared_error: of a loop that is believed, in variances.
    """
    problem = LeastSquares(graph.segments, graph.edges, scale_sigma, graph.held)
    at = Estimate.of([graph.pose(segment) for segment in graph.segments])
    doubted = np.array([edge.kind is EdgeKind.LOOP for edge in graph.edges], bool)
    weights = np.ones(len(graph.edges))
    at = problem.solve(at, weights, _STEPS_PER_TURN)
    squared = problem.squared_errors(at)
    worst = float(squared[doubted].max(initial=0.0))
    if 2 * worst > most_squared_error:
        control = most_squared_error / (2 * worst - most_squared_error)
        for _ in range(_MOST_TURNS):
            weights[doubted] = _weights(squared[doubted], control, most_squared_error)
            at = problem.solve(at, weights, _STEPS_PER_TURN)
            squared = problem.squared_errors(at)
            control *= _FACTOR
            if np.minimum(weights, 1 - weights).max() < _SETTLED:
                break
    weights[doubted] = squared[doubted] <= most_squared_error
    return _named(graph, problem.solve(at, weights, _LAST_STEPS), weights)


def solve_again(graph: PoseGraph) -> Solved | None:
    """Solve a graph of which little has changed, with loops believed as before.

    Args:
        graph: it stands where the last solution put it, and is not changed.

    Returns:
        None if a loop that is believed then disagrees: it has to be decided anew.
    """
    problem = LeastSquares(graph.segments, graph.edges, held=graph.held)
    at = Estimate.of([graph.pose(segment) for segment in graph.segments])
    weights = graph.weights
    at = problem.solve(at, weights, _LAST_STEPS, least_change=1e-3)
    squared = problem.squared_errors(at)
    loops = np.array([edge.kind is EdgeKind.LOOP for edge in graph.edges], bool)
    if (squared[loops & (weights > 0)] > _MOST_SQUARED_ERROR).any():
        return None
    return _named(graph, at, weights)


def _weights(squared: Array, control: float, most: float) -> Array:
    """Equation 14 of the paper, [E]."""
    low, high = control / (control + 1) * most, (control + 1) / control * most
    between = np.sqrt(most * control * (control + 1) / np.maximum(squared, low)) - control
    return np.where(squared <= low, 1.0, np.where(squared >= high, 0.0, between.clip(0, 1)))


def _named(graph: PoseGraph, at: Estimate, weights: Array) -> Solved:
    poses = dict(zip(graph.segments, at.transforms(), strict=True))
    scales = dict(zip(graph.segments, at.log_scale.tolist(), strict=True))
    return Solved(poses, scales, weights)
