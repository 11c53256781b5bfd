# SPDX-License-Identifier: Apache-2.0
"""The pose graph for others to see, `~/graph`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from geometry_msgs.msg import Point
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from ttt3r_ros.geometry import Vector
from ttt3r_ros.pose_graph.graph import Edge, End, PoseGraph
from ttt3r_ros.pose_graph.loop_closer import LoopCloser

_NODE_M, _LINE_M = 0.06, 0.015  # sizes
_BLUE, _GREY, _GREEN, _RED = (
    ColorRGBA(r=r, g=g, b=b, a=1.0)
    for r, g, b in ((0.1, 0.4, 0.9), (0.6, 0.6, 0.6), (0.1, 0.8, 0.2), (0.9, 0.2, 0.1))
)


class GraphWatch:
    """A copy of the graph that does not change, made anew when the graph has changed.

    Attributes:
        latest: the copy; any thread may read it.
    """

    def __init__(self, loops: LoopCloser) -> None:
        """Begin with an empty graph."""
        self._loops = loops
        self._seen: tuple[object, ...] = ()
        self.latest = PoseGraph()

    def look(self) -> None:
        """Bring the copy up to date; between two images."""
        graph, counts = self._loops.graph, self._loops.counts
        now = (counts.accepted, counts.corrections, len(graph.edges), graph.segments)
        if now != self._seen:
            self._seen, self.latest = now, graph.copy()


def graph_message(graph: PoseGraph, header: Header) -> MarkerArray:
    """Return a graph as markers.

    Args:
        graph: to be drawn.
        header: with the map's frame.

    Returns:
        Spheres where segments begin, lines between segments that follow each other, and lines
        between the two cameras of each loop, in namespaces of their own: `nodes`, `boundaries`,
        `loops`, and `doubted` for loops that do not count. One without content is deleted.
    """
    loops = graph.loops
    ids = {id(edge) for edge in loops}
    boundaries = [edge for edge in graph.edges if id(edge) not in ids]
    believed = [edge for edge in loops if edge.is_believed]
    doubted = [edge for edge in loops if not edge.is_believed]
    nodes = map(graph.pose, graph.segments)
    return MarkerArray(
        markers=[
            _marker(header, "nodes", Marker.SPHERE_LIST, _NODE_M, _BLUE, nodes),
            _lines(header, "boundaries", _GREY, graph, boundaries),
            _lines(header, "loops", _GREEN, graph, believed),
            _lines(header, "doubted", _RED, graph, doubted),
        ]
    )


def _lines(
    header: Header, name: str, colour: ColorRGBA, graph: PoseGraph, edges: Sequence[Edge]
) -> Marker:
    def pose(end: End) -> Vector:
        return graph.pose(end.segment) @ end.T_segment_camera

    poses = [pose(end) for edge in edges for end in (edge.first, edge.second)]
    return _marker(header, name, Marker.LINE_LIST, _LINE_M, colour, poses)


def _marker(
    header: Header, name: str, kind: int, size_m: float, colour: ColorRGBA, poses: Iterable[Vector]
) -> Marker:
    marker = Marker(header=header, ns=name, type=kind, color=colour)
    marker.points = [Point(x=T[0, 3], y=T[1, 3], z=T[2, 3]) for T in poses]
    marker.action = Marker.ADD if marker.points else Marker.DELETE
    marker.scale.x = marker.scale.y = marker.scale.z = size_m
    marker.pose.orientation.w = 1.0
    return marker
