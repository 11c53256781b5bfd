# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from graph_examples import World, add_loops, loop, world

from ttt3r_ros.geometry import inverse, transform
from ttt3r_ros.pose_graph.robust import passing, solve_again, solve_robustly

BOUNDARIES = 299


@pytest.fixture(scope="module", params=range(3))
def doubtful(request: pytest.FixtureRequest) -> tuple[World, np.ndarray]:
    """300 segments with 20 true and 20 false loops, and which are true."""
    of = world(request.param)
    return of, np.array(add_loops(of, 100 + request.param, true=20, false=20))


def test_no_false_loop_keeps_weight_and_nearly_all_true_ones_do(
    doubtful: tuple[World, np.ndarray],
) -> None:
    of, is_true = doubtful
    weights = solve_robustly(of.graph).weights[BOUNDARIES:]
    assert (weights[~is_true] == 0).all()
    assert weights[is_true].sum() >= 18


def test_false_loops_cost_nothing_of_what_true_ones_give(
    doubtful: tuple[World, np.ndarray],
) -> None:
    of, is_true = doubtful
    robust = of.ate_m(solve_robustly(of.graph).poses)
    true_only = of.graph.copy()
    true_only.remove_edges(
        edge for edge, true in zip(of.graph.loops, is_true, strict=True) if not true
    )
    given = of.ate_m(solve_robustly(true_only, most_squared_error=1e9).poses)
    drifted = of.ate_m(of.poses())
    assert given < 0.6 * drifted
    assert robust < 1.2 * given + 0.02


def test_boundaries_are_never_doubted() -> None:
    of = world(0)
    add_loops(of, 1, true=0, false=40)
    assert (solve_robustly(of.graph).weights[:BOUNDARIES] == 1).all()


def test_a_graph_is_not_changed_by_solving() -> None:
    of = world(0, segments=120)
    add_loops(of, 1, true=5, false=5)
    before = of.poses()
    solve_robustly(of.graph)
    assert all(of.graph.pose(segment) is T for segment, T in before.items())


def test_true_loops_pass_the_gate_and_impossible_ones_do_not() -> None:
    passed = 0
    for seed in range(20):
        of = world(seed, segments=130)
        passed += len(passing(of.graph, [of.true_loop(5, 125, np.random.default_rng(seed))]))
    assert passed >= 19
    # Along a chain of a few boundaries, 12 cm of drift, two metres are not to be had.
    of = world(0, segments=130)
    between = inverse(of.truth[5]) @ of.truth[9] @ transform(np.eye(3), (2.0, 0, 0))
    good = of.true_loop(5, 9, np.random.default_rng(0))
    assert passing(of.graph, [loop(5, 9, between), good]) == [good]


def test_a_loop_more_moves_the_graph_to_where_a_whole_solution_would() -> None:
    of = world(2, segments=180)
    add_loops(of, 3, true=10, false=0)
    of.graph.set_poses(solve_robustly(of.graph).poses)
    of.graph.add_edge(of.true_loop(10, 130, np.random.default_rng(4)))
    again = solve_again(of.graph)
    whole = solve_robustly(of.graph, most_squared_error=1e9)
    assert again is not None
    places = np.array([again.poses[k][:3, 3] for k in range(180)])
    expected = np.array([whole.poses[k][:3, 3] for k in range(180)])
    np.testing.assert_allclose(places, expected, atol=2e-3)


def test_a_loop_that_disagrees_with_believed_ones_is_decided_anew() -> None:
    of = world(2, segments=180)
    add_loops(of, 3, true=20, false=0)
    of.graph.set_poses(solve_robustly(of.graph).poses)
    of.graph.add_edge(loop(10, 155, np.eye(4)))
    assert of.far_apart(10, 155)
    assert solve_again(of.graph) is None
    assert solve_robustly(of.graph).weights[-1] == 0
