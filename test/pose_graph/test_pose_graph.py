# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
from graph_examples import add_loops, loop, noise, spread, world

from ttt3r_ros.geometry import inverse
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End, PoseGraph
from ttt3r_ros.pose_graph.residuals import Edges, Estimate
from ttt3r_ros.pose_graph.robust import camera_covariance, solve_robustly


def camera_in_map(graph: PoseGraph, end: End) -> np.ndarray:
    return graph.pose(end.segment) @ end.T_segment_camera


def errors(graph: PoseGraph, edges: list[Edge]) -> np.ndarray:
    rows = {segment: row for row, segment in enumerate(graph.segments)}
    at = Estimate.of([graph.pose(segment) for segment in graph.segments])
    return Edges(edges, rows).errors(at)


def test_segments_cannot_be_added_twice() -> None:
    graph = PoseGraph()
    graph.add_segment(3, np.eye(4))
    with pytest.raises(ValueError, match="3 is in the graph"):
        graph.add_segment(3, np.eye(4))


def test_a_segment_with_a_pose_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="T_map_segment"):
        PoseGraph().add_segment(0, np.full((4, 4), np.nan))


def test_an_edge_needs_two_different_nodes_of_the_graph() -> None:
    graph = PoseGraph()
    graph.add_segment(0, np.eye(4))
    for first, second in ((0, 0), (0, 1)):
        with pytest.raises(ValueError, match=f"{first} and {second}"):
            graph.add_edge(loop(first, second, np.eye(4)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("T_first_second", np.full((4, 4), np.inf)),
        ("covariance", np.zeros((6, 6))),
        ("covariance", np.eye(5)),
        ("log_ratio", np.nan),
        ("log_ratio_sigma", 0.0),
    ],
)
def test_an_edge_that_says_nothing_is_refused_by_name(name: str, value: object) -> None:
    good = dict(T_first_second=np.eye(4), covariance=np.eye(6))
    with pytest.raises(ValueError, match=name):
        Edge(End(0), End(1), kind=EdgeKind.LOOP, **{**good, name: value})  # type: ignore[arg-type]


def test_moving_an_unknown_node_moves_none() -> None:
    graph = world(0, segments=3).graph
    before = graph.pose(0)
    with pytest.raises(KeyError):
        graph.set_poses({0: np.eye(4), 7: np.eye(4)})
    assert graph.pose(0) is before


def test_a_copy_does_not_see_what_comes_later() -> None:
    graph = world(0, segments=5).graph
    copy = graph.copy()
    graph.set_poses({0: 2 * np.eye(4)})
    graph.add_segment(5, np.eye(4))
    graph.add_edge(loop(0, 4, np.eye(4)))
    assert len(copy) == 5 and len(copy.edges) == 4 and copy.pose(0)[0, 0] != 2


def test_an_edge_between_keyframes_acts_as_one_between_their_segments() -> None:
    of = world(1, segments=30, to_a_round=15)
    generator = np.random.default_rng(5)
    in_first, in_second = noise(generator, 0.5, 0.5), noise(generator, 0.5, 0.5)
    between = inverse(of.truth[2]) @ of.truth[17]
    camera_loop = Edge(
        End(2, in_first),
        End(17, in_second),
        inverse(in_first) @ between @ in_second,
        spread(0.01, 0.01),
        EdgeKind.LOOP,
    )
    of.graph.add_edge(camera_loop)
    poses = solve_robustly(of.graph, most_squared_error=1e9).poses
    of.graph.set_poses(poses)
    found = inverse(of.graph.pose(2)) @ of.graph.pose(17)
    # The chain of 15 boundaries says 12 cm and 8 degrees of it, the loop 1 cm.
    np.testing.assert_allclose(found[:3, 3], between[:3, 3], atol=0.02)


def test_merging_keeps_every_camera_and_what_edges_say() -> None:
    of = world(2, segments=40, to_a_round=10)
    add_loops(of, 3, true=10, false=0)
    graph = of.graph
    before = {id(edge.T_first_second): edge for edge in graph.edges}
    said = dict(zip(before, errors(graph, graph.edges), strict=True))
    places = {
        key: (camera_in_map(graph, edge.first), camera_in_map(graph, edge.second))
        for key, edge in before.items()
    }
    gone = graph.merge(25)
    assert len(graph) == 25 and len(gone) == 15
    assert not set(gone) & set(graph.segments) and set(gone.values()) <= set(graph.segments)
    now = errors(graph, graph.edges)
    assert len(graph.edges) >= 24
    for edge, error in zip(graph.edges, now, strict=True):
        key = id(edge.T_first_second)
        np.testing.assert_allclose(error, said[key], atol=1e-9)
        np.testing.assert_allclose(camera_in_map(graph, edge.first), places[key][0], atol=1e-12)
        np.testing.assert_allclose(camera_in_map(graph, edge.second), places[key][1], atol=1e-12)


def test_merging_leaves_the_newer_half_alone() -> None:
    graph = world(0, segments=40).graph
    graph.merge(30)
    assert set(graph.segments) >= set(range(30, 40))


def test_merging_makes_pieces_of_like_size() -> None:
    graph = world(0, segments=2).graph
    gone: dict[int, int] = {}
    for number in range(2, 1000):
        graph.add_segment(number, np.eye(4))
        graph.add_edge(
            Edge(End(number - 1), End(number), np.eye(4), 0.01 * np.eye(6), EdgeKind.BOUNDARY)
        )
        gone |= graph.merge(50)
    assert len(graph) == 50 and len(graph.edges) == 49
    sizes = [graph.size(segment) for segment in graph.segments]
    assert sum(sizes) == 1000 and max(sizes) <= 100


def test_of_many_loops_between_two_pieces_the_surest_stay() -> None:
    of = world(0, segments=40, to_a_round=10)
    for shift in range(10):
        sure = spread(0.01 * (1 + shift), 0.01)
        edge = Edge(End(5), End(25), np.eye(4), sure, EdgeKind.LOOP)
        of.graph.add_edge(edge)
    of.graph.merge(39)
    assert [round(edge.covariance[0, 0] ** 0.5, 3) for edge in of.graph.loops] == [
        0.01,
        0.02,
        0.03,
        0.04,
    ]


def test_merging_below_two_nodes_is_refused() -> None:
    with pytest.raises(ValueError, match="most_nodes"):
        world(0, segments=3).graph.merge(1)


def test_of_loops_between_two_pieces_those_that_are_believed_stay_before_surer_ones() -> None:
    of = world(0, segments=2)
    for sure in range(1, 9):
        edge = replace(loop(0, 1, np.eye(4)), covariance=spread(0.1 / sure, 0.1 / sure))
        of.graph.add_edge(replace(edge, is_believed=sure <= 3))
    of.graph.thin_loops()
    traces = [np.trace(edge.covariance) for edge in of.graph.loops if edge.is_believed]
    assert len(of.graph.loops) == 4 and len(traces) == 3


@pytest.mark.parametrize("held", [{0}, {0, 1, 2, 3}, {7}, set(range(20))])
def test_what_is_held_stays_exactly_and_the_rest_is_solved_around_it(held: set[int]) -> None:
    of = world(3, segments=20, to_a_round=10)
    add_loops(of, 3, true=12, false=0)
    free = of.graph.copy()
    of.graph.held = frozenset(held)
    solved = solve_robustly(of.graph)
    for segment in held:
        np.testing.assert_allclose(solved.poses[segment], of.graph.pose(segment), atol=1e-12)
    moved = [s for s in range(20) if np.abs(solved.poses[s] - of.graph.pose(s)).max() > 1e-3]
    assert bool(moved) is (len(held) < 20) and not held & set(moved)
    if len(held) == 1:  # the same shape, wherever it is held
        (still,) = held
        other = solve_robustly(free)
        T = solved.poses[still] @ inverse(other.poses[still])
        for segment in range(20):
            expected = T @ other.poses[segment]
            np.testing.assert_allclose(solved.poses[segment], expected, atol=1e-4)


def test_between_what_is_held_nothing_is_uncertain() -> None:
    of = world(3, segments=20, to_a_round=10)
    of.graph.held = frozenset(range(10))
    camera = End(9), End(15)
    known, unknown = (camera_covariance(of.graph, end) for end in camera)
    np.testing.assert_allclose(known, 0, atol=1e-12)
    assert np.linalg.eigvalsh(unknown)[0] > 0
    whole = of.graph.copy()
    whole.held = frozenset()
    assert np.trace(unknown) < np.trace(camera_covariance(whole, camera[1]))


def test_a_piece_that_takes_in_what_is_held_is_held() -> None:
    of = world(0, segments=8)
    of.graph.held = frozenset({0, 1, 3})
    gone = of.graph.merge(5)
    assert of.graph.held <= set(of.graph.segments)
    assert {gone.get(segment, segment) for segment in (0, 1, 3)} == of.graph.held


def test_numbered_anew_and_beside_another_a_graph_says_the_same() -> None:
    of, other = world(1, segments=6), world(2, segments=4)
    of.graph.merge(5)
    numbers = {segment: -10 + i for i, segment in enumerate(of.graph.segments)}
    renumbered = of.graph.renumbered(numbers)
    for old, new in numbers.items():
        assert renumbered.size(new) == of.graph.size(old)
        np.testing.assert_array_equal(renumbered.pose(new), of.graph.pose(old))
    np.testing.assert_array_equal(
        errors(renumbered, renumbered.edges), errors(of.graph, of.graph.edges)
    )
    renumbered.add(other.graph)
    assert renumbered.segments == (*numbers.values(), 0, 1, 2, 3)
    assert len(renumbered.edges) == len(of.graph.edges) + len(other.graph.edges)
    with pytest.raises(ValueError, match="in the graph already"):
        renumbered.add(other.graph)
