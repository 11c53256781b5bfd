# SPDX-License-Identifier: Apache-2.0
"""Two maps of one place become one: keyframes of the second are recognized among the first's.

Keyframes are chosen and answers believed as those about a stream's images are. Nothing is known at
first of where the second map lies in the first, so answers are tried as what says it: that one wins
by which the answers about most other images are possible, as the gate has it. Then the graph of
both is solved, loops that disagree lose their weight, and keyframes that lie near each other by now
are asked about, too. Nothing here moves maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TypeAlias, TypeVar

import numpy as np
import torch

from ttt3r_ros.camera.preprocessing import to_network_input
from ttt3r_ros.config import LoopConfig
from ttt3r_ros.geometry import Transform, inverse, orthonormal
from ttt3r_ros.network.model import Network
from ttt3r_ros.pose_graph.acceptance import Acceptance, KnownAnswers
from ttt3r_ros.pose_graph.agreement import believable
from ttt3r_ros.pose_graph.candidates import choose
from ttt3r_ros.pose_graph.edges import loop_edge, unknown_edge
from ttt3r_ros.pose_graph.graph import Edge, PoseGraph
from ttt3r_ros.pose_graph.memory import LONG_AGO, LoopMemory
from ttt3r_ros.pose_graph.robust import passing, solve_robustly
from ttt3r_ros.relocalization.keyframes import Keyframe
from ttt3r_ros.relocalization.relocalize import Relocalization, attempts_with
from ttt3r_ros.types import TrackedView

_MOST_TRIED = 32  # answers that are tried as what says where the second map lies
# Images that have to agree, and their share of those that show a place by their own account: wrong
# answers would spoil both maps, and where most are wrong some agree by chance.
_LEAST_IMAGES, _LEAST_SHARE = 2, 0.5
_T = TypeVar("_T")
_Name: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One of two maps."""

    loops: LoopMemory
    keyframes: Sequence[Keyframe]  # their segments are nodes of its graph


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """Both maps in the frame of the first.

    Attributes:
        loops: what is known of both, the first one's nodes first.
        T_by_segment: [4, 4] for each node, from where its things are in their own map to where
            they shall be.
        between: the loops between the two that are believed.
    """

    loops: LoopMemory
    T_by_segment: Mapping[int, Transform]
    between: Sequence[Edge]


@dataclass(frozen=True, slots=True, eq=False)
class _Recognized:
    """An image of the second map shows a place of the first."""

    image: Keyframe
    answer: Relocalization
    edge: Edge


class Joiner:
    """Finds out how two maps belong together."""

    def __init__(self, network: Network, first: Part, second: Part, config: LoopConfig) -> None:
        """Take two maps.

        Args:
            network: that made the keyframes of both.
            first: whose frame stays.
            second: with segments of other numbers.
            config: the settings of loops.
        """
        self._network, self._config = network, config
        self._first, self._second = first, second
        one, other = first.loops.known, second.loops.known
        known = KnownAnswers(
            right=tuple(_by_turns(one.right, other.right)),
            wrong=tuple(_by_turns(one.wrong, other.wrong)),
        )
        self._acceptance = Acceptance(known=known)  # the last of both are kept
        self._way_since = dict(second.loops.way_since)
        before = LONG_AGO + max(self._way_since.values(), default=0.0)
        ways = first.loops.way_since.items()
        self._way_since = {segment: before + way for segment, way in ways} | self._way_since
        self._graph = first.loops.graph.copy()
        self._graph.add(second.loops.graph)
        self._asked: set[tuple[_Name, _Name]] = set()  # images and keyframes

    def join(self) -> Joined | None:
        """Find out; None: too few places of the first map are recognized in the second."""
        found = self._recognized()
        graph = self._placed(found)
        if graph is None:
            return None
        self._graph = graph
        self._solve()
        near = self._recognized()
        for edge in passing(graph, [one.edge for one in near]):
            graph.add_edge(edge)
        self._solve()
        between = self._between()
        if images_of(between) < _enough([*found, *near]):
            return None
        graph.thin_loops()  # several keyframes of a segment say the same
        self._solve()
        if not self._between():  # what is left contradicts itself
            return None
        loops = LoopMemory(graph, self._way_since, self._acceptance.known)
        moves = {segment: self._move(segment) for segment in graph.segments}
        return Joined(loops, moves, between)

    def _recognized(self) -> list[_Recognized]:
        """Ask about each image of the second map, with keyframes that were not asked yet."""
        keyframes = [self._where_it_is(keyframe) for keyframe in self._first.keyframes]
        limits, doubt = self._acceptance.limits(), self._acceptance.doubt()
        result = []
        for image in map(self._where_it_is, self._second.keyframes):
            new = [k for k in keyframes if (_name(image), _name(k)) not in self._asked]
            view = self._view(image)
            ways = self._way_since
            chosen = choose(view, new, image.descriptor, ways, self._config, calibrate=False).old
            self._asked |= {(_name(image), _name(keyframe)) for keyframe in chosen}
            answers = attempts_with(self._network, view.features, view.rgb, view.intrinsics, chosen)
            for answer in believable(answers, limits, ways):
                edge = loop_edge(self._graph, view, answer, doubt)
                result.append(_Recognized(image, answer, edge))
        return result

    def _placed(self, found: Sequence[_Recognized]) -> PoseGraph | None:
        """The graph of both where the second map lies where most answers say, with these."""
        best, images = None, _enough(found) - 1
        surest = sorted(found, key=lambda one: -one.answer.evidence.photometric_correlation)
        for one in surest[:_MOST_TRIED]:
            graph = self._graph.copy()
            T_first_second = one.answer.T_map_camera @ inverse(one.image.T_map_camera)
            second = self._second.loops.graph
            graph.set_poses(
                {s: orthonormal(T_first_second @ second.pose(s)) for s in second.segments}
            )
            between = self._first.loops.graph.segments[-1], second.segments[0]
            graph.add_edge(unknown_edge(graph, *between))
            graph.add_edge(one.edge)
            agreeing = passing(graph, [other.edge for other in found if other is not one])
            if images_of([one.edge, *agreeing]) > images:
                images = images_of([one.edge, *agreeing])
                for edge in agreeing:
                    graph.add_edge(edge)
                best = graph
        return best

    def _between(self) -> list[Edge]:
        """Loops between the two maps that are believed."""
        mine = self._first.loops.graph
        return [
            edge
            for edge in self._graph.loops
            if edge.is_believed and edge.first.segment in mine and edge.second.segment not in mine
        ]

    def _solve(self) -> None:
        solved = solve_robustly(self._graph)
        self._graph.believe(solved.weights)
        self._graph.set_poses({s: orthonormal(T) for s, T in solved.poses.items()})

    def _move(self, segment: int) -> Transform:
        """From where a segment is in its own map to where it shall be."""
        parts = self._first.loops.graph, self._second.loops.graph
        own = next(graph for graph in parts if segment in graph)
        return self._graph.pose(segment) @ inverse(own.pose(segment))

    def _where_it_is(self, keyframe: Keyframe) -> Keyframe:
        return keyframe.moved(self._move(keyframe.segment))

    def _view(self, image: Keyframe) -> TrackedView:
        """What an image that was remembered is like when it is tracked."""
        device = image.points.device
        with torch.inference_mode():
            features = self._network.encode(to_network_input(image.picture, device))
        return TrackedView(
            stamp_ns=image.stamp_ns,
            segment=image.segment,
            T_odom_segment=image.T_map_segment,
            T_odom_camera=image.T_map_camera,
            T_map_odom=np.eye(4),
            begin_covariance=None,
            is_sure=True,
            relocalized_in=None,
            features=features,
            rgb=image.picture,
            intrinsics=image.picture_intrinsics,
            depth_m=image.depth_m,
        )


def images_of(loops: Sequence[Edge]) -> int:
    """How many images of the second map loops between two are about."""
    return len({(edge.second.segment, edge.second.stamp_ns) for edge in loops})


def _enough(found: Sequence[_Recognized]) -> int:
    """How many images have to agree."""
    everyone = images_of([one.edge for one in found])
    return max(_LEAST_IMAGES, math.ceil(_LEAST_SHARE * everyone))


def _name(keyframe: Keyframe) -> _Name:
    """What no other one has, if the map is one of several streams whose stamps begin alike."""
    return keyframe.segment, keyframe.stamp_ns


def _by_turns(one: Sequence[_T], other: Sequence[_T]) -> Iterator[_T]:
    """The newest of both are the last."""
    pairs = zip_longest(reversed(one), reversed(other))
    newest_first = [item for item in chain.from_iterable(pairs) if item is not None]
    return reversed(newest_first)
