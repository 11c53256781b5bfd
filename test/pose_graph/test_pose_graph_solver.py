# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import dense_twin
import numpy as np
import pytest
from graph_examples import World, add_loops, loop, noise, spread, world

from ttt3r_ros.geometry import inverse
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End, PoseGraph
from ttt3r_ros.pose_graph.residuals import Edges, Estimate
from ttt3r_ros.pose_graph.solver import LeastSquares


def estimate(graph: PoseGraph) -> Estimate:
    return Estimate.of([graph.pose(segment) for segment in graph.segments])


def tilted(of: World, seed: int) -> list[Edge]:
    """The edges, between cameras that stand anywhere in their segments, of all covariances."""
    generator = np.random.default_rng(seed)
    result = []
    for edge in of.graph.edges:
        first, second = noise(generator, 0.4, 0.7), noise(generator, 0.4, 0.7)
        root = generator.normal(size=(6, 6))
        scaled = np.diag([0.03] * 3 + [0.02] * 3)
        result.append(
            replace(
                edge,
                first=End(edge.first.segment, first),
                second=End(edge.second.segment, second),
                T_first_second=inverse(first) @ edge.T_first_second @ second,
                covariance=scaled @ (root @ root.T + np.eye(6)) @ scaled,
                log_ratio=generator.normal(0, 0.05),
                log_ratio_sigma=0.03,
            )
        )
    return result


@pytest.mark.parametrize("with_scale", [False, True])
def test_derivatives_are_those_of_the_errors(with_scale: bool) -> None:
    of = world(3, segments=20, to_a_round=10)
    add_loops(of, 3, true=5, false=5)
    graph, size = of.graph, 7 if with_scale else 6
    edges = Edges(tilted(of, 4), {segment: segment for segment in graph.segments})
    at = estimate(graph).moved(np.random.default_rng(2).normal(0, 0.3, (20, size)))
    _, by_first, by_second = edges.linearised(at, with_scale)
    step = 1e-6
    for node in range(20):
        for axis in range(size):
            change = np.zeros((20, size))
            change[node, axis] = step
            forward = edges.whitened(at.moved(change), with_scale)
            backward = edges.whitened(at.moved(-change), with_scale)
            numeric = (forward - backward) / (2 * step)
            expected = np.zeros_like(numeric)
            for jacobian, end in ((by_first, edges.first), (by_second, edges.second)):
                expected[end == node] += jacobian[end == node][:, :, axis]
            np.testing.assert_allclose(expected, numeric, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("scale_sigma", [None, 0.1])
def test_a_solution_is_that_of_dense_least_squares_without_derivatives(
    scale_sigma: float | None,
) -> None:
    of = world(5, segments=8, to_a_round=4)
    add_loops(of, 6, true=3, false=1)
    graph, edges = of.graph, tilted(of, 7)
    weights = np.random.default_rng(8).uniform(0.2, 1, len(edges))
    scale = {} if scale_sigma is None else {"scale_sigma": scale_sigma}
    found = LeastSquares(graph.segments, edges, **scale).solve(
        estimate(graph), weights, most_steps=100, least_change=1e-13
    )
    expected = dense_twin.solved(graph, edges, weights.tolist(), scale_sigma)
    poses = [pose for pose, _ in expected.values()]
    np.testing.assert_allclose(found.transforms(), poses, atol=2e-5)
    scales = [scale for _, scale in expected.values()]
    np.testing.assert_allclose(found.log_scale, scales, atol=2e-5)


def test_without_loops_a_chain_stays_where_it_is() -> None:
    graph = world(0, segments=50).graph
    problem = LeastSquares(graph.segments, graph.edges)
    found = problem.solve(estimate(graph), np.ones(49), most_steps=5)
    np.testing.assert_allclose(found.transforms(), estimate(graph).transforms(), atol=1e-9)


def test_the_first_node_of_each_piece_stands_still() -> None:
    of = world(0, segments=20)
    graph = PoseGraph()
    for segment in of.graph.segments:
        graph.add_segment(segment, of.graph.pose(segment))
    edges = [edge for edge in of.graph.edges if edge.second.segment != 10]
    edges += [loop(0, 5, np.eye(4)), loop(10, 15, np.eye(4))]
    problem = LeastSquares(graph.segments, edges)
    found = problem.solve(estimate(graph), np.ones(len(edges)), most_steps=50)
    start, moved = estimate(graph).transforms(), found.transforms()
    for first in (0, 10):
        np.testing.assert_array_equal(moved[first], start[first])
        assert np.linalg.norm(moved[first + 5] - start[first + 5]) > 0.1


def test_scales_measured_at_loops_are_spread_over_the_way() -> None:
    of = world(1, segments=21, to_a_round=10)
    graph = PoseGraph()
    for segment in of.graph.segments:
        graph.add_segment(segment, of.graph.pose(segment))
    edges = [replace(edge, log_ratio_sigma=0.05) for edge in of.graph.edges]
    seen = loop(0, 20, inverse(of.truth[0]) @ of.truth[20])
    edges.append(replace(seen, log_ratio=-0.4, log_ratio_sigma=0.01))
    problem = LeastSquares(graph.segments, edges, scale_sigma=10.0)
    scales = problem.solve(estimate(graph), np.ones(21), most_steps=50).log_scale
    assert scales[20] - scales[0] == pytest.approx(-0.4, abs=0.02)
    assert (np.diff(scales) < 0).all()


def test_what_the_graph_expects_of_a_loop_grows_with_the_way_between() -> None:
    graph = world(0, segments=50).graph
    problem = LeastSquares(graph.segments, graph.edges)
    spreads = []
    for second in (1, 10, 49):
        edge = Edge(End(0), End(second), np.eye(4), spread(1e-3, 1e-3), EdgeKind.LOOP)
        ((_, covariance),) = problem.expected_errors(estimate(graph), np.ones(49), [edge])
        spreads.append(float(np.trace(covariance[:3, :3])))
    assert spreads == sorted(spreads) and spreads[2] > 5 * spreads[1]


def test_what_the_graph_expects_of_a_loop_is_what_random_chains_do() -> None:
    of = world(0, segments=30)
    edge = loop(3, 28, inverse(of.truth[3]) @ of.truth[28])
    squared = []
    for seed in range(200):
        graph = world(seed + 1000, segments=30).graph
        problem = LeastSquares(graph.segments, graph.edges)
        exact = replace(edge, covariance=1e-8 * np.eye(6))
        ((error, covariance),) = problem.expected_errors(estimate(graph), np.ones(29), [exact])
        squared.append(error @ np.linalg.solve(covariance, error))
    # The mean of chi-square with 6 degrees of freedom, over 200 draws: 6 with a spread of 0.25.
    assert np.mean(squared) == pytest.approx(6, abs=1.0)
