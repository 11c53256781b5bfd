# SPDX-License-Identifier: Apache-2.0
"""Closing loops beside tracking: when to ask, whom, what to believe, and what moves.

For each tracked image `offer` grows the graph and says whether the place is worth asking about.
`answer` does the work, on a copy of the graph, in whatever thread; `apply` takes what came of it
between two images. One question is under way at a time. Nothing here moves maps or paths: that is
whose they are, by the `Correction`. odom never moves.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ttt3r_ros.config import LoopConfig
from ttt3r_ros.geometry import Transform, inverse, orthonormal, rotation_vector
from ttt3r_ros.network.model import Network
from ttt3r_ros.pose_graph.acceptance import Acceptance
from ttt3r_ros.pose_graph.agreement import believable
from ttt3r_ros.pose_graph.candidates import Choice, choose
from ttt3r_ros.pose_graph.confirmation import confirm
from ttt3r_ros.pose_graph.edges import (
    about_map_axes,
    boundary_edge,
    loop_edge,
    relocalized_edge,
    told_edge,
    unknown_edge,
)
from ttt3r_ros.pose_graph.exchange import Answer, Correction, LoopCounts, Query
from ttt3r_ros.pose_graph.graph import Edge, PoseGraph
from ttt3r_ros.pose_graph.memory import LONG_AGO, LoopMemory
from ttt3r_ros.pose_graph.robust import (
    Solved,
    camera_covariance,
    expected_errors,
    passing,
    solve_again,
    solve_robustly,
    squared_distance,
)
from ttt3r_ros.relocalization.keyframes import Keyframe, describe
from ttt3r_ros.relocalization.relocalize import Relocalization, attempts_with
from ttt3r_ros.types import Covariance, TrackedView

_SMOOTHING = 0.2  # of the seconds that an answer takes
_ENOUGH_SAMPLES = 8  # of known truth of each kind; until then every question takes some
_CALIBRATED_EVERY = 4  # questions, after that
_SETTLED_M, _SETTLED_RAD = 0.005, 0.002  # smaller corrections wait until they are larger
_MERGED_AT_ONCE = 8  # that part of all segments
_MOST_PENDING = 8  # loops that wait for a second one
_MOST_DOUBTED = 50  # loops that are kept though they are not believed
# Answers of known truth, as shares of the depth and in radians.
_RIGHT = (0.1, 0.1)
_WRONG = (0.3, 0.35)


@dataclass(slots=True)
class _Stream:
    """All that a reset forgets."""

    graph: PoseGraph = field(default_factory=PoseGraph)
    acceptance: Acceptance = field(default_factory=Acceptance)
    pending: tuple[Edge, ...] = ()
    waiting: tuple[Edge, ...] = ()
    last: TrackedView | None = None
    depth_m: float = 1.0  # the last one known
    way: float = 0.0  # that the camera has gone: shares of the depth seen, and radians
    way_at: dict[int, float] = field(default_factory=dict)  # where segments began
    images: int = 0
    asked_at: int = 0  # image
    asked_way: float = 0.0
    asked_ns: int | None = None
    seconds: float = 0.0  # that an answer takes, smoothed
    asking: Query | None = None  # that has no answer yet
    counts: LoopCounts = field(default_factory=LoopCounts)
    is_held: bool = False  # what was there when this was set stands still


class LoopCloser:
    """The loops of one stream."""

    def __init__(self, network: Network, config: LoopConfig, every_image: bool) -> None:
        """Start with an empty graph.

        Args:
            network: that tracks.
            config: the settings.
            every_image: count in images alone, so that the same images give the same map; else
                questions are as far apart in time as the budget asks for.
        """
        self._network = network
        self._config = config
        self._every_image = every_image
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._stream = _Stream()

    def resume(self, memory: LoopMemory) -> None:
        """Go on from an earlier stream, whose map is there already."""
        self._stream = _Stream(
            graph=memory.graph.copy(),
            acceptance=Acceptance(known=memory.known),
            way_at={s: -(memory.way_since[s] + LONG_AGO) for s in memory.graph.segments},
        )

    def memory(self) -> LoopMemory:
        """Copy what it takes for another stream to go on from this one."""
        stream = self._stream
        return LoopMemory(stream.graph.copy(), self._way_since(), stream.acceptance.known)

    def hold(self, is_held: bool) -> None:
        """Let all segments that there are now stand still, or let all move; between two images.

        Those that begin later move.
        """
        stream = self._stream
        if is_held is not stream.is_held:
            stream.is_held = is_held
            stream.graph.held = frozenset(stream.graph.segments if is_held else ())
            stream.asking, stream.pending, stream.waiting = None, (), ()  # of what shall not move

    @property
    def graph(self) -> PoseGraph:
        """To be read: segments where they stand in the map."""
        return self._stream.graph

    @property
    def counts(self) -> LoopCounts:
        """What has happened since the last reset."""
        return self._stream.counts

    def offer(self, view: TrackedView, keyframes: Sequence[Keyframe]) -> Query | None:
        """Take the next image that has a place in the map.

        Args:
            view: of the image; the poses in the map are those after the last correction.
            keyframes: what is remembered of places.

        Returns:
            A question for `answer`, if loops are wanted and the place is worth one; there is no
            other before `apply` is called with its answer, or `withdraw`.
        """
        stream = self._stream
        self._go_on(view)
        stream.images += 1
        if not self._is_worth_asking(view, keyframes):
            return None
        stream.asked_at, stream.asked_way = stream.images, stream.way
        stream.asked_ns = view.stamp_ns
        stream.counts = replace(stream.counts, asked=stream.counts.asked + 1)
        graph = stream.graph.copy()
        waits = stream.pending, stream.waiting
        stream.asking = Query(view, tuple(keyframes), self._way_since(), graph, *waits)
        return stream.asking

    def withdraw(self, query: Query) -> None:
        """Forget a question that will have no answer."""
        if self._stream.asking is query:
            self._stream.asking = None

    def anchor(self, view: TrackedView, covariance: Covariance) -> None:
        """Tie the segment of the last image offered to the map by a pose that somebody has set.

        Args:
            view: of the image.
            covariance: [6, 6] of its pose in the map, about the map's axes.
        """
        graph = self._stream.graph
        if view.segment != graph.segments[0]:
            graph.add_edge(told_edge(graph, view, covariance))

    def merge(self) -> dict[int, int]:
        """Make rigid pieces of old segments when there are too many; between two images.

        Returns:
            For segments that from now on are known by another one's number, that number.
        """
        stream, most = self._stream, self._config.max_segments
        if stream.asking or len(stream.graph) <= most:
            return {}
        merged = stream.graph.merge(max(2, most - most // _MERGED_AT_ONCE))
        for gone in merged:
            del stream.way_at[gone]
        stream.pending = stream.waiting = ()  # they may be of segments that are gone
        return merged

    def answer(self, query: Query) -> Answer:
        """Find out; may be called in another thread.

        Waits for the device twice, and not at all if there is nobody to ask.
        """
        began_s = time.perf_counter()
        choice, view = self._choose(query), query.view
        tried = [*choice.old, *choice.known, *choice.far]
        answers = attempts_with(self._network, view.features, view.rgb, view.intrinsics, tried)
        old = {id(keyframe) for keyframe in choice.old}
        asked = [answer for answer in answers if id(answer.keyframe) in old]
        self._calibrate(query, [answer for answer in answers if id(answer.keyframe) not in old])
        graph, doubt = query.graph, self._stream.acceptance.doubt()
        believed = believable(asked, self._stream.acceptance.limits(), query.way_since)
        possible = passing(graph, [loop_edge(graph, view, answer, doubt) for answer in believed])
        loops, waiting = confirm(graph, possible, query.waiting, view.depth_m)
        solved, covariance = None, np.zeros((6, 6))
        if loops:
            for edge in (*query.pending, *loops):
                graph.add_edge(edge)
            solved = solve_again(graph) or solve_robustly(graph)
            graph.believe(solved.weights)
            covariance = camera_covariance(graph, loops[0].second)
        seconds = time.perf_counter() - began_s
        gated = len(believed) - len(possible)
        found = tuple(loops), tuple(waiting)
        return Answer(query, *found, len(believed), gated, solved, covariance, seconds)

    def apply(self, answer: Answer) -> Correction | None:
        """Take an answer between two images.

        Returns:
            What moves, if anything; the caller moves it before the next image.
        """
        stream, counts = self._stream, self._stream.counts
        if stream.asking is not answer.query:
            return None  # of before a reset
        stream.asking = None
        stream.seconds += (1.0 if not stream.seconds else _SMOOTHING) * (
            answer.seconds - stream.seconds
        )
        stream.counts = replace(
            counts,
            accepted=counts.accepted + answer.accepted,
            gated=counts.gated + answer.gated,
        )
        stream.waiting = answer.waiting
        return self._correct(answer, answer.solved) if answer.solved else None

    def finish(self) -> Correction | None:
        """Decide all loops anew and solve fully, after the last answer.

        Returns:
            What moves, if anything; the caller moves it.
        """
        stream, graph = self._stream, self._stream.graph
        if stream.last is None or not graph.loops or not self._config.enabled:
            return None
        solved = solve_robustly(graph)
        graph.believe(solved.weights)
        newest, T_map_camera = graph.segments[-1], stream.last.T_map_camera
        T_newest = solved.poses[newest] @ inverse(graph.pose(newest))
        end = graph.end(newest, T_map_camera)
        return self._move(solved, T_newest, camera_covariance(graph, end), T_map_camera, ())

    def _choose(self, query: Query) -> Choice:
        width = self._network.config.enc_embed_dim
        descriptor = describe(query.view.features, width).cpu().numpy()
        few = min(self._stream.acceptance.samples) < _ENOUGH_SAMPLES
        return choose(
            query.view,
            query.keyframes,
            descriptor,
            query.way_since,
            self._config,
            calibrate=few or self._stream.counts.asked % _CALIBRATED_EVERY == 0,
        )

    def _way_since(self) -> dict[int, float]:
        return {segment: self._stream.way - at for segment, at in self._stream.way_at.items()}

    def _go_on(self, view: TrackedView) -> None:
        """Let the graph have the segment of an image."""
        stream, last = self._stream, self._stream.last
        if last is not None:
            moved = inverse(last.T_odom_camera) @ view.T_odom_camera
            turned = float(np.linalg.norm(rotation_vector(moved)))
            stream.way += float(np.linalg.norm(moved[:3, 3])) / self._depth_m(view) + turned
        graph = stream.graph
        if view.segment not in graph:
            before = graph.segments[-1:]
            graph.add_segment(view.segment, view.T_map_odom @ view.T_odom_segment)
            stream.way_at[view.segment] = stream.way
            if last is not None:
                graph.add_edge(boundary_edge(last, view))
            elif before:  # of an earlier stream
                graph.add_edge(unknown_edge(graph, before[0], view.segment))
            if view.relocalized_in is not None and view.relocalized_in in graph:
                graph.add_edge(relocalized_edge(graph, view, view.relocalized_in))
        stream.last = view

    def _depth_m(self, view: TrackedView) -> float:
        """A typical depth, of an earlier image if this one's is not known."""
        if math.isfinite(view.depth_m) and view.depth_m > 0:
            self._stream.depth_m = view.depth_m
        return self._stream.depth_m

    def _is_worth_asking(self, view: TrackedView, keyframes: Sequence[Keyframe]) -> bool:
        stream, config = self._stream, self._config
        known_depth = math.isfinite(view.depth_m) and view.depth_m > 0
        if not config.enabled or stream.asking or not view.is_sure:
            return False
        if not known_depth or not keyframes:
            return False
        if stream.images - stream.asked_at < config.every_images:
            return False
        if stream.way - stream.asked_way < config.min_step:
            return False
        if self._every_image or stream.asked_ns is None:
            return True
        return (view.stamp_ns - stream.asked_ns) * 1e-9 >= stream.seconds / config.budget

    def _calibrate(self, query: Query, answers: Sequence[Relocalization]) -> None:
        """Learn from answers whose truth odometry knows."""
        view, acceptance = query.view, self._stream.acceptance
        for found in answers:
            off = inverse(view.T_map_camera) @ found.T_map_camera
            error = np.hstack((off[:3, 3], rotation_vector(off)))
            metres = float(np.linalg.norm(error[:3])) / self._depth_m(view)
            turned = float(np.linalg.norm(error[3:]))
            if metres < _RIGHT[0] and turned < _RIGHT[1]:
                edge = loop_edge(query.graph, view, found)
                (expected,) = expected_errors(query.graph, [edge])
                acceptance.add_right(found.evidence, squared_distance(*expected))
            elif metres > _WRONG[0] or turned > _WRONG[1]:
                acceptance.add_wrong(found.evidence)

    def _correct(self, answer: Answer, solved: Solved) -> Correction | None:
        stream, graph, query = self._stream, self._stream.graph, answer.query
        assert stream.last is not None  # for there was an image to ask about
        newest = query.graph.segments[-1]
        T_newest = solved.poses[newest] @ inverse(graph.pose(newest))
        moved_m = _moved(T_newest, stream.last.T_map_camera)[0]
        new = query.graph.edges[-len(query.pending) - len(answer.loops) :]
        images = {edge.second.stamp_ns for edge in new if edge.is_believed}
        agreed = query.view.stamp_ns in images and len(images) > 1
        if moved_m > self._config.max_correction_m and not agreed:
            stream.pending = (*query.pending, *answer.loops)[-_MOST_PENDING:]
            return None
        stream.pending = ()
        graph.believe(solved.weights[: len(query.graph.edges) - len(new)])
        for edge in new:
            graph.add_edge(edge)
        doubted = [edge for edge in graph.loops if not edge.is_believed]
        graph.remove_edges(doubted[:-_MOST_DOUBTED])
        at = query.view.T_map_camera
        return self._move(solved, T_newest, answer.camera_covariance, at, answer.loops)

    def _move(
        self,
        solved: Solved,
        T_newest: Transform,
        camera_covariance: Covariance,
        T_map_camera: Transform,
        loops: tuple[Edge, ...],
    ) -> Correction | None:
        """Put the nodes where they shall be; those that are newer go with the newest one.

        The covariance is about the axes of a camera that stood at `T_map_camera` before.
        """
        stream, graph = self._stream, self._stream.graph
        assert stream.last is not None
        T_by_segment = {
            segment: solved.poses[segment] @ inverse(graph.pose(segment))
            if segment in solved.poses
            else T_newest
            for segment in graph.segments
        }
        most = np.max([_moved(T, graph.pose(s)) for s, T in T_by_segment.items()], axis=0)
        if most[0] < _SETTLED_M and most[1] < _SETTLED_RAD:
            return None
        graph.set_poses({s: orthonormal(T @ graph.pose(s)) for s, T in T_by_segment.items()})
        moved_m = _moved(T_newest, stream.last.T_map_camera)[0]
        stream.counts = replace(
            stream.counts,
            corrections=stream.counts.corrections + 1,
            last_correction_m=moved_m,
        )
        return Correction(
            T_by_segment=T_by_segment,
            T_newest=T_newest,
            camera_covariance=about_map_axes(camera_covariance, T_newest @ T_map_camera),
            moved_m=moved_m,
            loops=loops,
        )


def _moved(T_new_old: Transform, T: Transform) -> tuple[float, float]:
    """By how many metres and radians a pose moves."""
    metres = float(np.linalg.norm((T_new_old @ T - T)[:3, 3]))
    return metres, float(np.linalg.norm(rotation_vector(T_new_old)))
