# SPDX-License-Identifier: Apache-2.0
"""Graphs of a robot that drives round after round on an oval, with known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.bench_pose_graph import ate_m
from ttt3r_ros.geometry import Transform, inverse, transform
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End, PoseGraph
from ttt3r_ros.pose_graph.rotations import exponential

DRIFT_M, DRIFT_RAD = 0.03, 0.02  # of each boundary
LOOP_M, LOOP_RAD = 0.03, 0.015


@dataclass(frozen=True, eq=False)
class World:
    """A drifted graph, and where its segments are in truth."""

    graph: PoseGraph
    truth: list[Transform]
    round: int  # segments after which a place is seen again

    def true_loop(self, first: int, second: int, generator: np.random.Generator) -> Edge:
        """What a relocalization would have said."""
        between = inverse(self.truth[first]) @ self.truth[second]
        return loop(first, second, between @ noise(generator, LOOP_M, LOOP_RAD))

    def far_apart(self, first: int, second: int) -> bool:
        difference = self.truth[first][:3, 3] - self.truth[second][:3, 3]
        return bool(np.linalg.norm(difference) > 1.5)

    def ate_m(self, poses: dict[int, Transform]) -> float:
        """Of the segments' places, rigidly aligned."""
        return ate_m(self.truth, poses)

    def poses(self) -> dict[int, Transform]:
        return {segment: self.graph.pose(segment) for segment in self.graph.segments}


def noise(generator: np.random.Generator, metres: float, rad: float) -> Transform:
    turn = exponential(generator.normal(0, rad, (1, 3)))[0]
    return transform(turn, generator.normal(0, metres, 3))


def spread(metres: float, rad: float) -> npt.NDArray[np.float64]:
    return np.diag([metres**2] * 3 + [rad**2] * 3)


def loop(first: int, second: int, T_first_second: Transform) -> Edge:
    ends = End(first), End(second)
    return Edge(*ends, T_first_second, spread(LOOP_M, LOOP_RAD), EdgeKind.LOOP)


def world(seed: int, segments: int = 300, to_a_round: int = 60) -> World:
    """A chain without loops."""
    generator = np.random.default_rng(seed)
    truth = []
    for k in range(segments):
        angle = 2 * np.pi * k / to_a_round
        turn = exponential(np.array([[0, 0, angle + np.pi / 2]]))[0]
        place = (3 * np.cos(angle), 2 * np.sin(angle), 0.1 * np.sin(3 * angle))
        truth.append(transform(turn, place))
    graph, T = PoseGraph(), truth[0]
    graph.add_segment(0, T)
    for k in range(1, segments):
        step = inverse(truth[k - 1]) @ truth[k] @ noise(generator, DRIFT_M, DRIFT_RAD)
        T = T @ step
        graph.add_segment(k, T)
        boundary = EdgeKind.BOUNDARY
        graph.add_edge(Edge(End(k - 1), End(k), step, spread(DRIFT_M, DRIFT_RAD), boundary))
    return World(graph, truth, to_a_round)


def add_loops(of: World, seed: int, true: int, false: int) -> list[bool]:
    """Add loops; return for each of them whether it is true."""
    generator = np.random.default_rng(seed)
    count = len(of.truth)
    is_true = []
    while sum(is_true) < true:
        second = int(generator.integers(of.round, count))
        first = second - of.round * int(generator.integers(1, second // of.round + 1))
        of.graph.add_edge(of.true_loop(first, second, generator))
        is_true.append(True)
    while len(is_true) < true + false:
        first, second = sorted(generator.integers(0, count, 2).tolist())
        if of.far_apart(first, second):  # said to be all but the same place
            of.graph.add_edge(loop(first, second, noise(generator, 0.3, 0.2)))
            is_true.append(False)
    return is_true
