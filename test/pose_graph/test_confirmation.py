# SPDX-License-Identifier: Apache-2.0
"""Loops between pieces of a graph wait for images that look elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graph_examples import spread
from loop_examples import at

from ttt3r_ros.geometry import Transform, inverse
from ttt3r_ros.pose_graph.confirmation import confirm
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End, PoseGraph

FOLLOWED, CARRIED = spread(0.05, 0.03), spread(1.0, 1.5)
CARRIED_AT = 3  # the first segment after that
DEPTH_M = 1.9
T_TRUE = at(4.0, -3.0, 0.8)  # of what was mapped after, in the map of before


@pytest.fixture
def graph() -> PoseGraph:
    """Six segments a metre apart; before the fourth the camera was carried somewhere."""
    made = PoseGraph()
    for segment in range(6):
        made.add_segment(segment, at(float(segment)))
        if segment:
            covariance = CARRIED if segment == CARRIED_AT else FOLLOWED
            ends = End(segment - 1), End(segment)
            made.add_edge(Edge(*ends, at(1.0), covariance, EdgeKind.BOUNDARY))
    return made


def loop(graph: PoseGraph, first: int, second: int, off: Transform | None = None) -> Edge:
    """What a true answer would say, or one that is off."""
    moved = T_TRUE if second >= CARRIED_AT > first else np.eye(4)
    T = inverse(graph.pose(first)) @ moved @ graph.pose(second)
    ends = End(first, stamp_ns=first), End(second, stamp_ns=second)
    return Edge(*ends, T if off is None else T @ off, spread(0.05, 0.03), EdgeKind.LOOP)


def test_a_camera_that_was_carried_begins_another_piece(graph) -> None:
    assert list(graph.pieces().values()) == [0, 0, 0, 3, 3, 3]
    graph.add_edge(loop(graph, 0, 5))
    assert set(graph.pieces().values()) == {0}


def test_loops_that_are_not_believed_tie_nothing(graph) -> None:
    graph.add_edge(loop(graph, 0, 5))
    graph.believe(np.array([1.0] * 5 + [0.0]))
    assert list(graph.pieces().values()) == [0, 0, 0, 3, 3, 3]


def test_within_a_piece_loops_are_believed_at_once(graph) -> None:
    inside = [loop(graph, 0, 2), loop(graph, 1, 2)]
    assert confirm(graph, inside, [], DEPTH_M) == (inside, [])


def test_between_pieces_a_second_image_that_looks_elsewhere_has_to_agree(graph) -> None:
    early, near, late = loop(graph, 0, 3), loop(graph, 1, 4), loop(graph, 2, 5)
    assert confirm(graph, [early], [], DEPTH_M) == ([], [early])
    # A metre on is but half of the depth.
    assert confirm(graph, [near], [early], DEPTH_M) == ([], [early, near])
    assert confirm(graph, [late], [early, near], DEPTH_M) == ([late, early], [near])


def test_several_answers_about_one_image_confirm_nothing(graph) -> None:
    same = [loop(graph, 0, 3), loop(graph, 1, 3), loop(graph, 2, 3)]
    assert confirm(graph, same, [], DEPTH_M) == ([], same[:2])


def test_one_picture_that_is_seen_from_both_pieces_does_not_confirm_itself(graph) -> None:
    seen = loop(graph, 0, 3)
    again = Edge(
        replace(seen.second, stamp_ns=9),
        replace(seen.first, stamp_ns=10),
        inverse(seen.T_first_second),
        seen.covariance,
        EdgeKind.LOOP,
    )
    assert confirm(graph, [again], [seen], DEPTH_M) == ([], [seen, again])
    elsewhere = replace(again, first=End(5, stamp_ns=9), second=End(2, stamp_ns=10))
    T = inverse(graph.pose(2)) @ T_TRUE @ graph.pose(5)
    elsewhere = replace(elsewhere, T_first_second=inverse(T))
    assert confirm(graph, [elsewhere], [seen], DEPTH_M) == ([elsewhere, seen], [])


def test_answers_that_contradict_each_other_wait(graph) -> None:
    early, late = loop(graph, 0, 3, at(2.0)), loop(graph, 2, 5)
    assert confirm(graph, [late], [early], DEPTH_M) == ([], [early, late])


def test_what_waits_is_forgotten_once_its_pieces_are_one_or_others_have_come(graph) -> None:
    early = loop(graph, 0, 3)
    graph.add_edge(loop(graph, 1, 4))
    assert confirm(graph, [], [early], DEPTH_M) == ([], [])


def test_only_so_many_wait_and_early_ones_are_among_them(graph) -> None:
    waiting = [loop(graph, 0, 3, at(0.3 * number)) for number in range(65)]
    _, left = confirm(graph, [], waiting, DEPTH_M)
    assert left == waiting[::2]


def test_a_camera_that_was_lost_and_recognized_one_place_is_not_tied_to_it(graph) -> None:
    graph.add_edge(Edge(End(1), End(4), np.eye(4), FOLLOWED, EdgeKind.LOOP))
    assert list(graph.pieces().values()) == [0, 0, 0, 3, 3, 3]


def test_nodes_of_two_pieces_do_not_become_one_while_there_are_others(graph) -> None:
    graph.merge(3)
    assert sorted(set(graph.pieces().values())) == [0, 3]
    graph.merge(2)
    assert list(graph.pieces().items()) == [(0, 0), (3, 3)]
