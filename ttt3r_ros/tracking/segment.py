# SPDX-License-Identifier: Apache-2.0
"""A segment: the images that share one recurrent state, tied to odom by a Sim(3)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ttt3r_ros.geometry import Transform
from ttt3r_ros.network.state import RecurrentState
from ttt3r_ros.types import Covariance


@dataclass(slots=True, eq=False)
class Segment:
    """One recurrent state, and where the camera stood when it began.

    The network's poses are relative to the segment's first camera, in a unit of its own:
    `T_odom_segment` and `scale` tie them to odom.
    """

    number: int
    T_odom_segment: Transform
    scale: float  # metres per unit of the network
    state: RecurrentState
    boundary_reason: str = ""  # why it shares no image with the segment before; empty: it does
    images: int = 0  # tracked, the shared one included
    written: int = 0  # images written into the state, the shared one not counted
    begin_covariance: Covariance | None = None  # see `TrackedView`

    @property
    def is_alone(self) -> bool:
        """Whether it shares no image with the segment before, so that places are to be compared."""
        return self.boundary_reason != ""

    def parted(self, begin_covariance: Covariance) -> Segment:
        """What goes on with the same state, and may move apart from this one in the map."""
        return replace(
            self,
            number=self.number + 1,
            boundary_reason="",
            begin_covariance=begin_covariance,
        )

    def relocalized(self) -> None:
        """Note that it goes on from the state of a keyframe."""
        reasons = (self.boundary_reason, "relocalized")
        self.boundary_reason = "; ".join(reason for reason in reasons if reason)
