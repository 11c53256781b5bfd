# SPDX-License-Identifier: Apache-2.0
"""The transforms of /tf and /tf_static in a bag, as a trajectory of one frame in another."""

from __future__ import annotations

import logging
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Transform, between, inverse, transform_from_quaternion
from ttt3r_ros.recordings.bag_reader import read_whole
from ttt3r_ros.recordings.recorded_span import EVERYTHING, RecordedSpan
from ttt3r_ros.recordings.rosbag2 import Reader
from ttt3r_ros.types import NS_PER_S, SourceError

TF_TYPE = "tf2_msgs/msg/TFMessage"
_MAX_GAP_NS = 250_000_000  # across a longer one nothing is interpolated
_SAME = 1e-6  # poses that differ by less, in metres and entries of the rotation, do not move

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Edge:
    """The pose of one frame in its parent, at one or several times."""

    parent: str
    static: bool
    recorded_ns: list[int] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    poses: list[Transform] = field(default_factory=list)

    def during(self, span: RecordedSpan) -> _Edge:
        """Return what holds for images of a time, by stamp."""
        if self.static:
            return self
        there = range(len(self.stamps_ns))[span.within(self.recorded_ns, self.stamps_ns)]
        order = sorted(there, key=lambda i: self.stamps_ns[i])
        stamps_ns, poses = [self.stamps_ns[i] for i in order], [self.poses[i] for i in order]
        return _Edge(self.parent, False, self.recorded_ns, stamps_ns, poses)

    def is_fixed(self) -> bool:
        """Return whether one frame never moves in the other, whatever topic says so."""
        return self.static or np.ptp(np.array(self.poses), axis=0).max() < _SAME

    def at(self, stamp_ns: int) -> Transform | None:
        """Return the pose at a time, interpolated between neighbours; None where there is none.

        The stamps are in order.
        """
        if self.static:
            return self.poses[-1]
        after = bisect_left(self.stamps_ns, stamp_ns)
        if after < len(self.stamps_ns) and self.stamps_ns[after] == stamp_ns:
            return self.poses[after]
        if after in (0, len(self.stamps_ns)):
            return None
        begin_ns, end_ns = self.stamps_ns[after - 1], self.stamps_ns[after]
        if end_ns - begin_ns > _MAX_GAP_NS:
            return None
        share = (stamp_ns - begin_ns) / (end_ns - begin_ns)
        return between(self.poses[after - 1], self.poses[after], share)


class TfTree:
    """All transforms of a bag."""

    def __init__(self, reader: Reader) -> None:
        """Read them; where the bag is damaged, those before, with a warning.

        Those that are not finite are left out, with one warning.

        Raises:
            SourceError: a frame has two parents.
        """
        self._path = reader.path
        self._edges: dict[str, _Edge] = {}  # by child
        self._left_out = 0
        connections = [c for c in reader.connections if c.msgtype == TF_TYPE]
        if not connections:
            return
        for connection, recorded_ns, message in read_whole(reader, connections):
            for stamped in message.transforms:
                self._add(stamped, connection.topic.endswith("tf_static"), recorded_ns)
        if self._left_out:
            _log.warning("%s: %d transforms are not finite, left out", self._path, self._left_out)

    @property
    def frames(self) -> list[str]:
        """All frames by name."""
        return sorted({*self._edges, *(edge.parent for edge in self._edges.values())})

    def stamps_ns(self) -> npt.NDArray[np.int64]:
        """Return the stamps [N] of all transforms that change."""
        moving = [edge for edge in self._edges.values() if not edge.static]
        return np.array([stamp for edge in moving for stamp in edge.stamps_ns], np.int64)

    def check(self, parent: str, child: str) -> None:
        """Make sure that a chain of transforms joins two frames.

        Raises:
            SourceError: none does; the message lists the frames.
        """
        if self._root(parent) != self._root(child) or child not in self.frames:
            raise SourceError(
                f"{self._path}: /tf and /tf_static do not join {parent!r} and {child!r}; "
                f"frames: {', '.join(self.frames) or 'none'}"
            )

    def fixed(self, parent: str, child: str) -> Transform | None:
        """Return the pose of `child` in `parent` if nothing between them moves, else None."""
        up, down = self._fixed_ancestors(parent), self._fixed_ancestors(child)
        for frame, T_frame_child in down.items():  # the nearest one first
            if frame in up:
                return inverse(up[frame]) @ T_frame_child
        return None

    def _fixed_ancestors(self, frame: str) -> dict[str, Transform]:
        """Return all frames above that `frame` never moves in, with its pose there."""
        poses = {frame: np.eye(4)}
        self._root(frame)  # raises where there is a ring
        T_above = np.eye(4)
        while (edge := self._edges.get(frame)) and edge.is_fixed():
            T_above = edge.poses[-1] @ T_above
            frame = edge.parent
            poses[frame] = T_above
        return poses

    def poses(
        self,
        parent: str,
        child: str,
        stamps_ns: npt.NDArray[np.int64],
        span: RecordedSpan = EVERYTHING,
    ) -> tuple[list[int], list[Transform]]:
        """Return the pose [4, 4] of `child` in `parent` at these times, as recorded in a span.

        Returns:
            The places in `stamps_ns` where the pose is known, and the poses. Between two
            transforms a pose is interpolated if they are at most 0.25 s apart.
        """
        places, poses = [], []
        chains = [self._chain(frame, span) for frame in (parent, child)]
        for place, stamp_ns in enumerate(stamps_ns.tolist()):
            T_root_parent, T_root_child = (_through(chain, stamp_ns) for chain in chains)
            if T_root_parent is not None and T_root_child is not None:
                places.append(place)
                poses.append(inverse(T_root_parent) @ T_root_child)
        return places, poses

    def _add(self, stamped: Any, static: bool, recorded_ns: int) -> None:
        header, t, q = stamped.header, stamped.transform.translation, stamped.transform.rotation
        parent, child = header.frame_id.lstrip("/"), stamped.child_frame_id.lstrip("/")
        wxyz = (q.w, q.x, q.y, q.z)
        if not (any(wxyz) and np.isfinite((t.x, t.y, t.z, *wxyz)).all()):
            self._left_out += 1
            return
        edge = self._edges.setdefault(child, _Edge(parent, static))
        if edge.parent != parent:
            raise SourceError(
                f"{self._path}: frame {child!r} has two parents, {edge.parent!r} and {parent!r}"
            )
        edge.recorded_ns.append(recorded_ns)
        edge.stamps_ns.append(header.stamp.sec * NS_PER_S + header.stamp.nanosec)
        edge.poses.append(transform_from_quaternion((t.x, t.y, t.z), wxyz))

    def _root(self, frame: str) -> str:
        passed = set()
        while frame in self._edges:
            if frame in passed:
                raise SourceError(f"{self._path}: the transforms of {frame!r} form a ring")
            passed.add(frame)
            frame = self._edges[frame].parent
        return frame

    def _chain(self, frame: str, span: RecordedSpan) -> list[_Edge]:
        """Return all transforms from a frame up to its root."""
        chain = []
        while frame in self._edges:
            chain.append(self._edges[frame].during(span))
            frame = chain[-1].parent
        return chain


def _through(chain: list[_Edge], stamp_ns: int) -> Transform | None:
    """Return the pose in the root; None if one of the transforms is not known."""
    T_root_frame = np.eye(4)
    for edge in chain:
        pose = edge.at(stamp_ns)
        if pose is None:
            return None
        T_root_frame = pose @ T_root_frame
    return T_root_frame
