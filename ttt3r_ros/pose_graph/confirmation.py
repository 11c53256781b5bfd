# SPDX-License-Identifier: Apache-2.0
"""Loops that tie pieces of a graph that nothing else ties, as after a camera was carried.

Within a piece the gate knows what is possible. Between two pieces it knows next to nothing, and one
wrong answer, of a picture that hangs in another room, too, would lay the one map on the other. So
such loops wait until images that look elsewhere agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ttt3r_ros.geometry import Transform, inverse, orthonormal, rotation_vector
from ttt3r_ros.pose_graph.graph import Edge, End, PoseGraph
from ttt3r_ros.pose_graph.robust import passing

_ELSEWHERE = 1.0  # shares of the depth, and radians, between two images
_MOST_OF_AN_IMAGE, _MOST_WAITING = 2, 64


def confirm(
    graph: PoseGraph, loops: Sequence[Edge], waiting: Sequence[Edge], depth_m: float
) -> tuple[list[Edge], list[Edge]]:
    """Tell new loops that may be believed from those that have to wait.

    Args:
        graph: without any of these.
        loops: of one image, which is the second end of all.
        waiting: loops of earlier images.
        depth_m: a typical one.

    Returns:
        Those that may be believed, the new ones first, and those that wait from now on.
    """
    pieces = graph.pieces()

    def tied(edge: Edge) -> frozenset[int]:
        return frozenset((pieces[edge.first.segment], pieces[edge.second.segment]))

    def in_piece(edge: Edge, piece: int) -> End:
        """The end that is in this piece; an image may have been recognized there, too."""
        return edge.second if pieces[edge.second.segment] == piece else edge.first

    waiting = [edge for edge in waiting if len(tied(edge)) == 2]  # others were outrun
    credible = [edge for edge in loops if len(tied(edge)) == 1]
    confirmed: dict[int, Edge] = {}
    new: Counter[frozenset[int]] = Counter()  # that wait, of this image
    for edge in loops:
        if len(tied(edge)) == 1:
            continue
        here = pieces[edge.second.segment]
        witnesses = [
            other
            for other in waiting
            if tied(other) == tied(edge)
            and _between(graph, in_piece(other, here), edge.second, depth_m) >= _ELSEWHERE
            and _agree(graph, pieces, other, edge)
        ]
        if witnesses:
            credible.append(edge)
            confirmed |= {id(other): other for other in witnesses}
        elif new[tied(edge)] < _MOST_OF_AN_IMAGE:
            new[tied(edge)] += 1
            waiting.append(edge)
    waiting = [edge for edge in waiting if id(edge) not in confirmed]
    if len(waiting) > _MOST_WAITING:  # however slow the camera is, early ones are among them
        waiting = waiting[::-2][::-1]
    return [*credible, *confirmed.values()], waiting


def _between(graph: PoseGraph, one: End, other: End, depth_m: float) -> float:
    """How far apart two images of one piece are."""
    T_one_other = inverse(_pose(graph, one)) @ _pose(graph, other)
    metres = float(np.linalg.norm(T_one_other[:3, 3]))
    return metres / depth_m + float(np.linalg.norm(rotation_vector(T_one_other)))


def _pose(graph: PoseGraph, end: End) -> Transform:
    return graph.pose(end.segment) @ end.T_segment_camera


def _agree(graph: PoseGraph, pieces: Mapping[int, int], one: Edge, other: Edge) -> bool:
    """Whether the other loop is possible where the piece of its image stands as this one says."""
    first, second = _pose(graph, one.first), _pose(graph, one.second)
    T = orthonormal(first @ one.T_first_second @ inverse(second))
    moving = [s for s in pieces if pieces[s] == pieces[one.second.segment]]
    as_one_says = graph.copy()
    as_one_says.set_poses({s: T @ graph.pose(s) for s in moving})
    as_one_says.add_edge(one)
    return bool(passing(as_one_says, [other]))
