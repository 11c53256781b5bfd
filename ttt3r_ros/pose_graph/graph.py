# SPDX-License-Identifier: Apache-2.0
"""The graph: segments where they stand in the map, and what was measured between them.

A keyframe is rigid in its segment, so an edge between two keyframes acts on their segments; it
keeps where in them they stand. Solving is `solver`'s and `robust`'s. The number of nodes is
bounded by `merge`: neighbours become one rigid piece, and edges stay what they say.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Transform, inverse
from ttt3r_ros.types import Covariance

_LOOPS_PER_PAIR = 4  # kept between two nodes by `thin_loops`
_VAGUE_RAD = 0.5  # standard deviation of an edge that does not say where a camera looks


class EdgeKind(Enum):
    """Where an edge comes from; only loops are doubted."""

    BOUNDARY = "boundary"  # of two segments that follow each other
    LOOP = "loop"  # a place was recognized
    ODOMETRY = "odometry"  # the robot's own


@dataclass(frozen=True, slots=True, eq=False)
class End:
    """One end of an edge: a camera that is rigid in a segment."""

    segment: int
    T_segment_camera: Transform = field(default_factory=lambda: np.eye(4))
    stamp_ns: int | None = None  # of its image; None: it is none's


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """A measured pose of one camera in another's frame.

    Attributes:
        first: in whose axes it is measured.
        second: whose pose it is.
        T_first_second: [4, 4], metres at the first segment's scale.
        covariance: [6, 6] of the error, translation before rotation, in the second camera's own
            axes: the true pose is `T_first_second` moved by the error on its right.
        kind: where it comes from.
        log_ratio: logarithm of the factor by which the second segment's scale must be multiplied
            to agree with the first one's, from what both say about one image; 0 if they agree.
        log_ratio_sigma: its standard deviation; infinite where nothing was measured.
        is_believed: whether it counts, by the last decision; only loops may not.
    """

    first: End
    second: End
    T_first_second: Transform
    covariance: Covariance
    kind: EdgeKind
    log_ratio: float = 0.0
    log_ratio_sigma: float = math.inf
    is_believed: bool = True

    def __post_init__(self) -> None:
        for name, shape in (("T_first_second", (4, 4)), ("covariance", (6, 6))):
            value = getattr(self, name)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"edge.{name}: expected finite numbers {list(shape)}, got {value}")
        if not math.isfinite(self.log_ratio):
            raise ValueError(f"edge.log_ratio: must be finite, got {self.log_ratio}")
        if not self.log_ratio_sigma > 0:
            raise ValueError(f"edge.log_ratio_sigma: must be above 0, got {self.log_ratio_sigma}")
        if np.linalg.eigvalsh((self.covariance + self.covariance.T) / 2)[0] <= 0:
            raise ValueError(f"edge.covariance: must be positive definite, got {self.covariance}")


class PoseGraph:
    """Segments with their poses in the map, in the order in which they began, and edges.

    Attributes:
        edges: all of them, the oldest first.
        held: nodes that stand still, whatever is measured; beside them the first one does.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.edges: list[Edge] = []
        self.held: frozenset[int] = frozenset()
        self._poses: dict[int, Transform] = {}
        self._merged: dict[int, int] = {}  # segments that a node stands for

    def __len__(self) -> int:
        return len(self._poses)

    def __contains__(self, segment: int) -> bool:
        return segment in self._poses

    @property
    def segments(self) -> tuple[int, ...]:
        """The nodes, the oldest first."""
        return tuple(self._poses)

    @property
    def loops(self) -> list[Edge]:
        """Edges that may be doubted."""
        return [edge for edge in self.edges if edge.kind is EdgeKind.LOOP]

    def pieces(self) -> dict[int, int]:
        """For each node the oldest one of its piece, within which it is known what is where.

        Edges that are not believed, or by which a camera may look anywhere, tie nothing together,
        and neither does it that a camera that was lost has recognized a place: that is one image.
        """
        piece = {segment: segment for segment in self._poses}

        def oldest(segment: int) -> int:
            while piece[segment] != segment:
                segment = piece[segment]
            return segment

        age = {segment: number for number, segment in enumerate(self._poses)}
        for edge in self.edges:
            is_vague = edge.covariance.diagonal()[3:].max() >= _VAGUE_RAD**2
            was_lost = edge.kind is EdgeKind.LOOP and edge.second.stamp_ns is None
            if edge.is_believed and not is_vague and not was_lost:
                ends = oldest(edge.first.segment), oldest(edge.second.segment)
                first, second = sorted(ends, key=age.__getitem__)
                piece[second] = first
        return {segment: oldest(segment) for segment in piece}

    def pose(self, segment: int) -> Transform:
        """T_map_segment of a node.

        Raises:
            KeyError: there is no such node.
        """
        return self._poses[segment]

    def size(self, segment: int) -> int:
        """How many segments a node stands for."""
        return self._merged[segment]

    def add_segment(self, segment: int, T_map_segment: Transform, size: int = 1) -> None:
        """Add a node that stands for so many segments.

        Raises:
            ValueError: there is one with this number, the pose is not finite, or the size below 1.
        """
        if size < 1:
            raise ValueError(f"size: must be at least 1, got {size}")
        if segment in self._poses:
            raise ValueError(f"segment: {segment} is in the graph already")
        if T_map_segment.shape != (4, 4) or not np.isfinite(T_map_segment).all():
            raise ValueError(f"T_map_segment: expected finite [4, 4], got {T_map_segment}")
        self._poses[segment] = T_map_segment
        self._merged[segment] = size

    @property
    def weights(self) -> npt.NDArray[np.float64]:
        """1 for edges that are believed, 0 for others, [E]."""
        return np.array([edge.is_believed for edge in self.edges], np.float64)

    def believe(self, weights: npt.NDArray[np.float64]) -> None:
        """Say anew which edges, the oldest ones first, are believed: [E], 0 or 1.

        There may be fewer weights than edges; newer ones stay as they are.
        """
        for i, weight in enumerate(weights.tolist()):
            if (weight > 0.5) is not self.edges[i].is_believed:
                self.edges[i] = replace(self.edges[i], is_believed=weight > 0.5)

    def add_edge(self, edge: Edge) -> None:
        """Add what was measured between two nodes.

        Raises:
            ValueError: an end is not in the graph, or both are the same node.
        """
        first, second = edge.first.segment, edge.second.segment
        if first == second or first not in self._poses or second not in self._poses:
            raise ValueError(f"edge: expected two different nodes, got {first} and {second}")
        self.edges.append(edge)

    def add(self, other: PoseGraph) -> None:
        """Add all nodes and edges of another graph, which do not move.

        Raises:
            ValueError: both have a node of the same number.
        """
        for segment, T_map_segment in other._poses.items():
            self.add_segment(segment, T_map_segment, other._merged[segment])
        for edge in other.edges:
            self.add_edge(edge)

    def remove_edges(self, gone: Iterable[Edge]) -> None:
        """Take out edges, by identity."""
        ids = {id(edge) for edge in gone}
        self.edges = [edge for edge in self.edges if id(edge) not in ids]

    def set_poses(self, poses: Mapping[int, Transform]) -> None:
        """Move nodes.

        Raises:
            KeyError: one is not in the graph; nothing has moved.
        """
        for segment in poses:
            self._poses[segment]
        self._poses.update(poses)

    def end(self, segment: int, T_map_camera: Transform, stamp_ns: int | None = None) -> End:
        """A camera that stands in the map as the node's segment does now."""
        return End(segment, inverse(self._poses[segment]) @ T_map_camera, stamp_ns)

    def copy(self) -> PoseGraph:
        """Return a graph that can be solved while this one grows."""
        other = PoseGraph()
        other.edges = list(self.edges)
        other.held = self.held
        other._poses = dict(self._poses)
        other._merged = dict(self._merged)
        return other

    def renumbered(self, numbers: Mapping[int, int]) -> PoseGraph:
        """Return a graph that may move, with another number for each node."""
        other = PoseGraph()
        for segment, T_map_segment in self._poses.items():
            other.add_segment(numbers[segment], T_map_segment, self._merged[segment])
        for edge in self.edges:
            first, second = (
                replace(end, segment=numbers[end.segment]) for end in (edge.first, edge.second)
            )
            other.add_edge(replace(edge, first=first, second=second))
        return other

    def merge(self, most_nodes: int) -> dict[int, int]:
        """Make neighbours into one node each until there are at most so many.

        Of the older half those go first that stand for the fewest segments: nodes of an old path
        grow evenly, and the newer half stays as it was. Nodes of two pieces (see `pieces`), or one
        that is held and one that is not, become one only where there are no others. Edges inside a
        node go; of many loops between the same two nodes the surest stay.

        Returns:
            For each node that is gone, the one that stands for it.

        Raises:
            ValueError: `most_nodes` is below 2.
        """
        if most_nodes < 2:
            raise ValueError(f"most_nodes: must be at least 2, got {most_nodes}")
        gone: dict[int, int] = {}
        piece = self.pieces()
        while len(self) > most_nodes:
            every = list(pairwise(self._poses))
            alike = [
                (one, other)
                for one, other in every
                if piece[one] == piece[other] and (one in self.held) is (other in self.held)
            ]
            old = set(every[: max(1, len(self) // 2)])
            pairs = [pair for pair in alike if pair in old] or alike or every
            kept, lost = min(pairs, key=lambda pair: self._merged[pair[0]] + self._merged[pair[1]])
            self._merge_pair(kept, lost)
            gone = {old: kept if new == lost else new for old, new in gone.items()}
            gone[lost] = kept
        if gone:
            self.thin_loops()
        return gone

    def _merge_pair(self, kept: int, lost: int) -> None:
        T_kept_lost = inverse(self._poses[kept]) @ self._poses.pop(lost)
        self._merged[kept] += self._merged.pop(lost)
        if lost in self.held:
            self.held = self.held - {lost} | {kept}

        def moved(end: End) -> End:
            if end.segment != lost:
                return end
            T_kept_camera = T_kept_lost @ end.T_segment_camera
            return replace(end, segment=kept, T_segment_camera=T_kept_camera)

        edges = (
            replace(edge, first=moved(edge.first), second=moved(edge.second))
            if lost in (edge.first.segment, edge.second.segment)
            else edge
            for edge in self.edges
        )
        self.edges = [edge for edge in edges if edge.first.segment != edge.second.segment]

    def thin_loops(self) -> None:
        """Keep a few loops, and poses that were told, between the same two nodes.

        Of those that are believed the surest stay.
        """

        def doubt(edge: Edge) -> tuple[bool, float]:
            return not edge.is_believed, float(np.trace(edge.covariance))

        measured = (edge for edge in self.edges if edge.kind is not EdgeKind.BOUNDARY)
        surest = sorted(measured, key=doubt)
        counts: Counter[tuple[EdgeKind, frozenset[int]]] = Counter()
        gone = []
        for edge in surest:
            pair = edge.kind, frozenset((edge.first.segment, edge.second.segment))
            counts[pair] += 1
            if counts[pair] > _LOOPS_PER_PAIR:
                gone.append(edge)
        self.remove_edges(gone)
