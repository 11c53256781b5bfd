# SPDX-License-Identifier: Apache-2.0
"""Names of frames and edges between them as tf2 takes them, and the tree that they make."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import Quaternion, TransformStamped

try:
    from tf2_ros import Buffer
except ImportError:
    from ttt3r_ros.ros.wheels import Buffer

_UNIT = 0.01  # tf2's QUATERNION_NORMALIZATION_TOLERANCE, of the squared length

Edge = tuple[str, str]  # parent and child


def frame_name(name: str) -> str:
    """Return a frame's name without the slash that tf2 leaves out at its beginning."""
    return name.removeprefix("/")


def is_rotation(q: Quaternion) -> bool:
    """Return whether a quaternion is a unit one; tf2 ignores others, and what is not finite."""
    squared: float = q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w
    return abs(squared - 1) < _UNIT


def read_edge(edge: TransformStamped) -> Edge | None:
    """Return parent and child of a transform, None if tf2 ignores it."""
    parent, child = frame_name(edge.header.frame_id), frame_name(edge.child_frame_id)
    t = edge.transform.translation
    is_finite = all(map(math.isfinite, (t.x, t.y, t.z)))
    if not (parent and child and parent != child and is_finite):
        return None
    return (parent, child) if is_rotation(edge.transform.rotation) else None


class WatchedBuffer(Buffer):  # type: ignore[misc]  # one of two
    """Knows each frame's parent, shows transforms to somebody else, and takes what tf2 takes.

    Attributes:
        parents: of each frame that has one, as they came: names may be anything.
        static_edges: which never change.
    """

    def __init__(self, watch: Callable[[TransformStamped], None]) -> None:
        """Know nothing yet; each transform that is taken is shown to `watch`."""
        super().__init__()
        self._watch = watch
        self.parents: dict[str, str] = {}
        self.static_edges: set[Edge] = set()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Take a transform that may change."""
        if self._take(transform):
            super().set_transform(transform, authority)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Take a transform that never changes."""
        if edge := self._take(transform):
            self.static_edges.add(edge)
            super().set_transform_static(transform, authority)

    def _take(self, transform: TransformStamped) -> Edge | None:
        edge = read_edge(transform)
        if edge:
            transform.header.frame_id, transform.child_frame_id = edge
            parent, child = edge
            self.parents[child] = parent
            self._watch(transform)
        return edge


def content(edge: TransformStamped) -> tuple[Any, ...]:
    """Return what tells a transform from all others."""
    header, t, q = edge.header, edge.transform.translation, edge.transform.rotation
    frames = frame_name(header.frame_id), frame_name(edge.child_frame_id)
    stamp = (header.stamp.sec, header.stamp.nanosec)
    return (*frames, *stamp, t.x, t.y, t.z, q.x, q.y, q.z, q.w)
