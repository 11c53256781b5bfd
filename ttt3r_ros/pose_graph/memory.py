# SPDX-License-Identifier: Apache-2.0
"""What a stream knows of loops and a session keeps, so that its graph goes on in another stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ttt3r_ros.pose_graph.acceptance import KnownAnswers
from ttt3r_ros.pose_graph.graph import PoseGraph

LONG_AGO = 1e6
"""What the way since a segment of an earlier stream is longer by: nobody knows how the camera came
from there to here, so such a segment is neither recent nor has odometry anything to say of it."""


@dataclass(frozen=True, slots=True, eq=False)
class LoopMemory:
    """A copy that does not change any more.

    Attributes:
        graph: segments where they stand in the map, and what was measured between them.
        way_since: for each of its nodes how far the camera has gone since it began: translations
            as shares of the depth seen, and radians.
        known: what limits for the answers were learnt from.
    """

    graph: PoseGraph = field(default_factory=PoseGraph)
    way_since: Mapping[int, float] = field(default_factory=dict)
    known: KnownAnswers = field(default_factory=KnownAnswers)

    def renumbered(self, numbers: Mapping[int, int]) -> LoopMemory:
        """The same with another number for each node."""
        way_since = {numbers[segment]: way for segment, way in self.way_since.items()}
        return LoopMemory(self.graph.renumbered(numbers), way_since, self.known)
