# SPDX-License-Identifier: Apache-2.0
"""Who listens for `ttt3r view`: the newest of what the node says, and the path so far."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseWithCovarianceStamped
from nav_msgs.msg import Path
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from ttt3r_ros.clients.listening import full_node_name
from ttt3r_ros.clients.live_client import Joint
from ttt3r_ros.clients.reading import transform_of
from ttt3r_ros.geometry import Transform
from ttt3r_ros.io.trajectory import BoundedTrajectory
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.ros.diagnostics import base_frame_of
from ttt3r_ros.ros.transforms import FrameListener
from ttt3r_ros.types import ViewError

_NEWEST = QoSProfile(depth=1)
_EVERYTHING = QoSProfile(depth=1000)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TOPICS: Mapping[str, tuple[type, QoSProfile]] = {
    "status": (TrackingStatus, _EVERYTHING),
    "pose": (PoseWithCovarianceStamped, _EVERYTHING),
    "path": (Path, _NEWEST),
    "cloud_map": (PointCloud2, _LATCHED),
    "image_rect": (Image, _NEWEST),
    "depth/image_rect": (Image, _NEWEST),
    "depth/camera_info": (CameraInfo, _NEWEST),
}
_MAX_POSES = 4_000  # of the own path
_RATE_S = 3.0  # rates are means of so long


class Counted(NamedTuple):
    """What a status said of the images, and when on the monotonic clock."""

    time_s: float
    received: int
    processed: int


class ViewClient(Node):
    """Keeps what has come since it was last asked.

    Attributes:
        status: the last one.
        is_new_origin: whether the node has been reset or started anew since `taken`.
        published: topics of `TOPICS` that somebody publishes.
    """

    def __init__(self, node: str, **kwargs: Any) -> None:
        """Listen.

        Args:
            node: its name.
            kwargs: of `rclpy.node.Node`, but for the name.

        Raises:
            ViewError: no node can have that name.
        """
        try:
            self.name = full_node_name(node)
        except ValueError as error:
            raise ViewError(str(error)) from error
        super().__init__(f"ttt3r_view_{os.getpid()}", **kwargs)  # there may be several
        self.status: TrackingStatus | None = None
        self._recent: deque[Counted] = deque()
        self.is_new_origin = False
        self.published: set[str] = set()
        self._frames = FrameListener(self)
        self._base = Joint()
        self._new: dict[str, Any] = {}
        self._is_path_new = False
        self._forget_path()
        handlers = {"status": self._on_status, "pose": self._on_pose, "path": self._on_path}
        for topic, (kind, qos) in TOPICS.items():
            handler = handlers.get(topic, partial(self._new.__setitem__, topic))
            self.create_subscription(kind, f"{self.name}/{topic}", handler, qos)
        self.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, qos_profile_sensor_data
        )

    def look(self) -> None:
        """Look who publishes what."""
        self.published = {
            topic for topic in TOPICS if self.count_publishers(f"{self.name}/{topic}")
        }

    def taken(self, topic: str) -> Any:
        """Return the newest message of a topic, None if none has come since the last call."""
        return self._new.pop(topic, None)

    def taken_camera(self) -> Transform | None:
        """Return the camera's newest pose in the map.

        None: none has come, or where the camera is on the base is not known.
        """
        if self.status is None or "pose" not in self._new or not self._base.parent:
            return None
        if self._base.T is None:
            self._base.child = self.status.header.frame_id
            self._base.look(self._frames)
        if self._base.T is None:
            return None
        T_map_base = transform_of(self.taken("pose").pose.pose)
        return T_map_base @ self._base.T if np.isfinite(T_map_base).all() else None

    def rates_hz(self) -> tuple[float, float]:
        """Return how many images a second were received and processed lately."""
        if len(self._recent) < 2:
            return 0.0, 0.0
        first, last = self._recent[0], self._recent[-1]
        seconds = last.time_s - first.time_s
        received, processed = last.received - first.received, last.processed - first.processed
        return received / seconds, processed / seconds

    def silent_s(self) -> float:
        """Return for how long no status has come, after the first one."""
        return time.monotonic() - self._recent[-1].time_s

    def taken_path(self) -> npt.NDArray[np.float64] | None:
        """Return where the base was, [N, 3]: by `~/path`, and by `~/pose` where that ends.

        None: nothing has come since the last call.
        """
        if not self._is_path_new:
            return None
        self._is_path_new = False
        later = [T[:3, 3] for stamp, T in self._poses.poses() if stamp > self._path_ends_ns]
        return np.concatenate([self._path, np.reshape(later, (-1, 3))])

    def _forget_path(self) -> None:
        self._poses = BoundedTrajectory(_MAX_POSES)
        self._path, self._path_ends_ns = np.empty((0, 3)), -1

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        base_frame = base_frame_of(self.name, message)
        if base_frame not in ("", self._base.parent):
            self._base = Joint(parent=base_frame)

    def _on_status(self, status: TrackingStatus) -> None:
        last, self.status = self.status, status
        now_s = time.monotonic()
        if last is not None and _begins_anew(last, status):
            self._begin_anew(stamp_ns(status.header.stamp))
        self._recent.append(Counted(now_s, status.received, status.processed))
        while now_s - self._recent[0].time_s > _RATE_S:
            self._recent.popleft()

    def _begin_anew(self, first_ns: int) -> None:
        """Forget all but what is of the first image at the new origin, whose status comes last."""
        self.is_new_origin = True
        self._is_path_new = False
        self._recent.clear()
        kept = [(stamp, T) for stamp, T in self._poses.poses() if stamp == first_ns]
        self._forget_path()
        for stamp, T in kept:
            self._poses.append(stamp, T)
            self._is_path_new = True
        for topic in [*self._new]:
            if stamp_ns(self._new[topic].header.stamp) != first_ns:
                del self._new[topic]

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        self._new["pose"] = message
        T_map_base = transform_of(message.pose.pose)
        if np.isfinite(T_map_base).all():
            self._poses.append(stamp_ns(message.header.stamp), T_map_base)
            self._is_path_new = True

    def _on_path(self, message: Path) -> None:
        positions = [pose.pose.position for pose in message.poses]
        self._path = np.reshape([(p.x, p.y, p.z) for p in positions], (-1, 3))
        self._path_ends_ns = stamp_ns(message.poses[-1].header.stamp) if positions else -1
        self._is_path_new = True


def _begins_anew(last: TrackingStatus, status: TrackingStatus) -> bool:
    return bool(
        status.received < last.received or status.images_since_reset < last.images_since_reset
    )
