# SPDX-License-Identifier: Apache-2.0
"""A node that is well, as its diagnostics know it."""

from __future__ import annotations

from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.pose_graph.exchange import LoopCounts
from ttt3r_ros.ros.diagnostics import Health
from ttt3r_ros.ros.stream import StreamCounts

WELL = Health(
    lifecycle="active",
    problem="",
    device="cpu",
    counts=StreamCounts(received=100, processed=100),
    status=TrackingStatus(state=TrackingStatus.TRACKING, message="so and so", map_points=7),
    loops=LoopCounts(asked=9, accepted=3, gated=1, corrections=2, last_correction_m=0.25),
    rejection="header.frame_id: empty",
    max_points=1000,
    base_frame="base_link",
    process_all_images=False,
)
