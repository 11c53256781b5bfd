# SPDX-License-Identifier: Apache-2.0
"""Who listens in the demonstration: to the node as any of its users would, and to the truth.

What is kept of it is in `evaluation.demo.recording`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from ttt3r_ros.clients.demo_recording import Recording, View, along_rays
from ttt3r_ros.clients.reading import intrinsics_of, pixels_of, points_of, transform_of
from ttt3r_ros.io.trajectory import TumWriter
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.ros.conversions import stamp_ns

NODE = "ttt3r_node"
COUNTS = ("received", "processed", "replaced", "rejected", "lost_estimated")
_IMAGES = QoSProfile(depth=10)
_EVERYTHING = QoSProfile(depth=1000)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_VIEW = {  # messages that belong together, by their stamp
    "image": (Image, "image"),
    "camera": (CameraInfo, "camera_info"),
    "true_depth": (Image, "ground_truth/depth/image_rect"),
    "depth": (Image, f"{NODE}/depth/image_rect"),
    "depth_camera": (CameraInfo, f"{NODE}/depth/camera_info"),
}
_INCOMPLETE_VIEWS = 30  # kept at most


class DemoClient(Node):
    """Writes poses as they come and records the rest.

    Attributes:
        recording: what has been heard so far, but for the map.
        map_points: in the node's map.
    """

    def __init__(self, trajectory: TumWriter, **kwargs: Any) -> None:
        """Subscribe to everything but the images.

        Args:
            trajectory: gets every pose of the camera.
            kwargs: of `rclpy.node.Node`, but for the name.
        """
        super().__init__("ttt3r_demo", **kwargs)
        self.recording = Recording()
        self.map_points = 0
        self._trajectory = trajectory
        self._views: dict[int, dict[str, Any]] = {}
        self._map: PointCloud2 | None = None
        self._last_status_ns = 0
        subscribe = self.create_subscription
        subscribe(Odometry, f"{NODE}/odom", self._on_odometry, _EVERYTHING)
        subscribe(TrackingStatus, f"{NODE}/status", self._on_status, _EVERYTHING)
        subscribe(PointCloud2, f"{NODE}/cloud_map", self._on_map, _LATCHED)
        subscribe(PoseStamped, "ground_truth/pose", self._on_true_pose, _EVERYTHING)
        for part in _VIEW.keys() - {"image"}:
            self._subscribe_to_part(part)

    def begin(self) -> None:
        """Subscribe to the images, for which the camera waits; who hears what is settled by now."""
        self._subscribe_to_part("image")

    def node_is_active(self) -> bool:
        """Whether the node of the demonstration takes images."""
        topic = self.resolve_topic_name("image")
        return any(info.node_name == NODE for info in self.get_subscriptions_info_by_topic(topic))

    def has_everything(self) -> bool:
        """Whether the last image sent has been dealt with, and the map has what came of it."""
        poses, counts = self.recording.poses, self.recording.counts
        return (
            self._last_status_ns == max(self.recording.true_poses, default=-1)
            and len(poses) == counts["processed"]
            and self._map is not None
            and stamp_ns(self._map.header.stamp) == max(poses, default=-1)
        )

    def finish(self) -> Recording:
        """Return the recording, the map in it."""
        if self._map is not None:
            self.recording.points, self.recording.colours = points_of(self._map)
        return self.recording

    def _on_odometry(self, message: Odometry) -> None:
        # The camera's frame is not connected to any robot, so it is the base itself.
        stamp, T_odom_camera = stamp_ns(message.header.stamp), transform_of(message.pose.pose)
        self.recording.poses[stamp] = T_odom_camera
        self._trajectory.append(stamp, T_odom_camera)

    def _on_status(self, message: TrackingStatus) -> None:
        recording = self.recording
        if message.processed > recording.counts.get("processed", 0):  # else it was rejected
            recording.step_ms.append(message.step_ms)
            recording.latency_ms.append(message.latency_ms)
        recording.counts = {name: getattr(message, name) for name in COUNTS}
        self.map_points = message.map_points
        self._last_status_ns = stamp_ns(message.header.stamp)

    def _on_map(self, message: PointCloud2) -> None:
        self._map = message

    def _on_true_pose(self, message: PoseStamped) -> None:
        self.recording.true_poses[stamp_ns(message.header.stamp)] = transform_of(message.pose)

    def _subscribe_to_part(self, part: str) -> None:
        kind, topic = _VIEW[part]
        self.create_subscription(kind, topic, partial(self._on_part, part), _IMAGES)

    def _on_part(self, part: str, message: Image | CameraInfo) -> None:
        stamp = stamp_ns(message.header.stamp)
        view = self._views.setdefault(stamp, {})
        view[part] = message
        if len(view) == len(_VIEW):
            del self._views[stamp]
            self._on_view(stamp, view)
        elif len(self._views) > _INCOMPLETE_VIEWS:
            del self._views[min(self._views)]

    def _on_view(self, stamp: int, parts: dict[str, Any]) -> None:
        true_m = pixels_of(parts["true_depth"], np.dtype(np.float32))
        cameras = (intrinsics_of(parts[name]) for name in ("camera", "depth_camera"))
        view = View(
            rgb=pixels_of(parts["image"], np.dtype((np.uint8, 3))),
            depth_m=pixels_of(parts["depth"], np.dtype(np.float32)),
            true_depth_m=along_rays(true_m, *cameras),
        )
        self.recording.add_view(stamp, view)
