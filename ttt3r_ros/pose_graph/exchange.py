# SPDX-License-Identifier: Apache-2.0
"""What passes between the loop closer and whoever asks it: questions, answers, corrections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ttt3r_ros.geometry import Transform
from ttt3r_ros.pose_graph.graph import Edge, PoseGraph
from ttt3r_ros.pose_graph.robust import Solved
from ttt3r_ros.relocalization.keyframes import Keyframe
from ttt3r_ros.types import Covariance, MapMoves, TrackedView

_STILL = 1e-9  # m and rad


@dataclass(frozen=True, slots=True)
class LoopCounts:
    """What has happened since the last reset."""

    asked: int = 0  # questions
    accepted: int = 0  # answers that their evidence made credible
    gated: int = 0  # of these, thrown out for being impossible by the graph
    corrections: int = 0
    last_correction_m: float = 0.0  # of the camera


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A question: where else has this image's place been seen?"""

    view: TrackedView
    keyframes: tuple[Keyframe, ...]
    way_since: Mapping[int, float]  # by segment, shares of the depth seen, and radians
    graph: PoseGraph  # a copy
    pending: tuple[Edge, ...]  # loops that would move the camera far, and wait for a second one
    waiting: tuple[Edge, ...]  # loops that would tie pieces of the graph, see `confirmation`


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What came of a question."""

    query: Query
    # That passed the gate, those of this question first; others have waited for them.
    loops: tuple[Edge, ...]
    waiting: tuple[Edge, ...]  # from now on
    accepted: int
    gated: int  # of these
    solved: Solved | None  # of the graph with the query's pending loops and these; None: no loops
    camera_covariance: Covariance  # [6, 6] of the image's pose then, in its own axes
    seconds: float  # that it took


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """How the map moves between two images.

    Attributes:
        T_by_segment: [4, 4] for each node of the graph, from where its things are in the map to
            where they shall be.
        T_newest: that of the newest segment, and so of `map` → `odom`.
        camera_covariance: [6, 6] of the newest camera's pose in the map, about the map's axes.
        moved_m: of the newest camera.
        loops: new ones behind it.
    """

    T_by_segment: dict[int, Transform]
    T_newest: Transform
    camera_covariance: Covariance
    moved_m: float
    loops: tuple[Edge, ...]


def what_moves(T_by_segment: Mapping[int, Transform], numbers: Mapping[int, int]) -> MapMoves:
    """How the map moves; segments that stay, but for rounding, as the first one does, are left out.

    Args:
        T_by_segment: [4, 4] from where things are to where they shall be.
        numbers: other ones by which segments are known from then on.
    """
    moving = {s: T for s, T in T_by_segment.items() if np.abs(T - np.eye(4)).max() >= _STILL}
    return MapMoves(moving, numbers)
