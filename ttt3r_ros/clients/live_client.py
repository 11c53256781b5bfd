# SPDX-License-Identifier: Apache-2.0
"""Who listens in `ttt3r evaluate --live`: to the node, to the truth and to TF."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry, Path
from rclpy.node import Node
from rclpy.qos import (
    DurabilityPolicy,
    QoSProfile,
    ReliabilityPolicy,
    qos_profile_sensor_data,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from ttt3r_ros.camera.camera_info import CameraModel, is_rectified
from ttt3r_ros.clients.listening import full_node_name
from ttt3r_ros.clients.live_depth import LiveDepth
from ttt3r_ros.clients.live_topics import TopicSearch, listed
from ttt3r_ros.clients.reading import transform_of
from ttt3r_ros.evaluation.report.data import Floats
from ttt3r_ros.geometry import Transform
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.ros.conversions import stamp_ns
from ttt3r_ros.ros.diagnostics import base_frame_of
from ttt3r_ros.ros.transforms import FrameListener
from ttt3r_ros.types import EvaluationError

POSE_TYPES: Mapping[str, type] = {
    "geometry_msgs/msg/PoseStamped": PoseStamped,
    "nav_msgs/msg/Odometry": Odometry,
    "geometry_msgs/msg/TransformStamped": TransformStamped,
}
_IMAGE_TYPES: Mapping[str, type] = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
}
_STATUS_TYPE = "ttt3r_ros/msg/TrackingStatus"
COUNTS = ("processed", "replaced", "rejected", "lost_estimated")

_STILL = 1e-3  # transforms that differ by less, in metres and entries of the rotation, do not move
_EVERYTHING = QoSProfile(depth=1000)
_DEPTH_QUEUE = 30
_INFO = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Joint:
    """Where one frame is in another one, by TF: the first that was said of it, as for the node."""

    parent: str = ""
    child: str = ""
    T: Transform | None = None
    moves: bool = False

    def look(self, frames: FrameListener) -> None:
        """Look at what TF says now."""
        if self.parent == self.child:
            self.T = np.eye(4)
            return
        found = frames.find_transform(self.parent, self.child)
        if self.T is None:
            self.T = found
        elif found is not None and not np.allclose(found, self.T, atol=_STILL):
            self.moves = True


class LiveClient(Node):
    """Hears what the node and the truth say.

    Attributes:
        statuses: of processed images, in order.
        counts: of images since the first one heard of, by the names of the status.
        last: status.
        first_heard_s, last_heard_s: when statuses came, on the monotonic clock.
        poses: of the base in the map, by stamp, as the robot had them.
        path: of the base in the map, as it is after all loops so far.
        true_poses: by stamp.
        base: where the camera is on the node's base frame.
        true_base: where it is on the frame that true poses are of.
        cloud: the map.
        camera: that the images are of, by the `camera_info` beside them.
    """

    def __init__(
        self,
        node: str,
        image: str,
        true_pose: str,
        true_depth: str,
        depth: LiveDepth,
        **kwargs: Any,
    ) -> None:
        """Listen to the node.

        Args:
            node: its name.
            image: topic of the camera's images.
            true_pose: topic; empty: the only one there.
            true_depth: topic; empty: the only one there whose name has "depth" in it.
            depth: gets all depth images.
            kwargs: of `rclpy.node.Node`, but for the name.

        Raises:
            EvaluationError: no node can have that name.
        """
        try:
            self._own = full_node_name(node)
        except ValueError as error:
            raise EvaluationError(str(error)) from error
        super().__init__("ttt3r_evaluation", **kwargs)
        self.statuses: list[TrackingStatus] = []
        self.counts = dict.fromkeys(COUNTS, 0)
        self.last: TrackingStatus | None = None
        self.first_heard_s = self.last_heard_s = 0.0
        self.poses: dict[int, Transform] = {}
        self.true_poses: dict[int, Transform] = {}
        self.base, self.true_base = Joint(), Joint()
        self.path: Path | None = None
        self.cloud: PointCloud2 | None = None
        self._depth = depth
        depth.expects_truth = bool(true_depth)
        self._frames = FrameListener(self)
        subscribe = self.create_subscription
        subscribe(TrackingStatus, f"{node}/status", self._on_status, _EVERYTHING)
        subscribe(PoseWithCovarianceStamped, f"{node}/pose", self._on_pose, _EVERYTHING)
        subscribe(PointCloud2, f"{node}/cloud_map", self._on_map, _LATCHED)
        subscribe(Path, f"{node}/path", self._on_path, _LATCHED)
        subscribe(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos_profile_sensor_data)
        subscribe(Image, f"{node}/depth/image_rect", depth.add_estimated, _DEPTH_QUEUE)
        image = self.resolve_topic_name(image)
        self.camera = CameraModel(image)
        info = f"{image.removesuffix('/compressed').rpartition('/')[0]}/camera_info"
        subscribe(CameraInfo, info, self.camera.update, _INFO)
        depth.rectified = self._rectified
        self._search_image = TopicSearch(
            self, _IMAGE_TYPES, depth.add_image, queue_size=_DEPTH_QUEUE, wanted=image
        )
        self.search_pose = TopicSearch(
            self,
            POSE_TYPES,
            self._on_true_pose,
            queue_size=_EVERYTHING.depth,
            flag="--ground-truth-topic",
            wanted=true_pose,
            is_candidate=lambda t: self._is_not_own(t) and t != self.search_depth.wanted,
        )
        self.search_depth = TopicSearch(
            self,
            _IMAGE_TYPES,
            depth.add_true,
            queue_size=_DEPTH_QUEUE,
            flag="--depth-topic",
            wanted=true_depth,
            is_candidate=lambda t: self._is_not_own(t) and "depth" in t and t != image,
        )

    def look(self) -> None:
        """Look for topics and transforms that may have appeared.

        Raises:
            EvaluationError: it is not clear which topics are meant, or the camera moves on its
                base.
        """
        for search in (self.search_pose, self.search_depth, self._search_image):
            before = search.topic
            search.look()
            if search.topic != before:
                _log.info("listening to %s", search.topic)
        self._depth.expects_truth = bool(self.search_depth.wanted or self.search_depth.topic)
        for joint in (self.base, self.true_base):
            if joint.parent and self.last:
                joint.child = self.last.header.frame_id
                joint.look(self._frames)
        if self.base.moves:
            raise EvaluationError(
                f"TF moves the camera's frame {self.base.child!r} in {self.base.parent!r}, which "
                "the node takes for the base that it is fixed to; where /tf of a bag holds the "
                "truth, play it without (`ttt3r play BAG --topics ...`)"
            )

    def check_node(self) -> None:
        """Make sure that the node is there.

        Raises:
            EvaluationError: it is not; the message names those that are.
        """
        if not self.count_publishers(f"{self._own}/status"):
            names = [
                name.rpartition("/")[0]
                for name, types in self.get_topic_names_and_types()
                if _STATUS_TYPE in types and self.count_publishers(name)
            ]
            raise EvaluationError(f"no node {self._own}, name it with --node: {listed(names)}")

    def check_truth(self) -> None:
        """Make sure that the truth has been found.

        Raises:
            EvaluationError: it has not; the message names the topics that could be it.
        """
        searches = (self.search_pose, self.search_depth)
        missing = [text for search in searches if (text := search.missing())]
        if missing:
            raise EvaluationError("; ".join(missing))
        if not any(search.topic for search in searches):
            images = [
                name
                for name, types in self.get_topic_names_and_types()
                if not _IMAGE_TYPES.keys().isdisjoint(types)
                and self._is_not_own(name)
                and self.count_publishers(name)
            ]
            raise EvaluationError(
                f"no ground truth is published: neither poses ({listed(POSE_TYPES)}) nor an image "
                f"with 'depth' in its name; images to name with --depth-topic: {listed(images)}"
            )

    def check_extrinsics(self) -> None:
        """Make sure that the poses of the node can be moved to its camera.

        Raises:
            EvaluationError: it is not known which frame they are of, or TF does not say where the
                camera is in it.
        """
        if self.poses and not self.base.parent:
            raise EvaluationError(
                f"/diagnostics has not told the base frame of {self._own}, which its poses are of"
            )
        if self.base.parent and self.base.T is None:
            raise EvaluationError(
                f"TF does not join {self.base.parent!r}, the node's base frame, and the camera's "
                f"{self.base.child!r}"
            )

    def _rectified(self, true_m: Floats) -> Floats:
        """Take the distortion out of true depth, as the node does with images."""
        if is_rectified(self.search_depth.topic):
            return true_m
        return self.camera.apply_to_depth(true_m)

    def _is_not_own(self, topic: str) -> bool:
        return not topic.startswith(self._own + "/")

    def _on_status(self, status: TrackingStatus) -> None:
        now_s = time.monotonic()
        last, self.last, self.last_heard_s = self.last, status, now_s
        if last is None:
            self.first_heard_s = now_s
            last = _before_first(status)
        elif status.received < last.received:  # the node was activated anew
            last = TrackingStatus()
        for name in COUNTS:
            self.counts[name] += getattr(status, name) - getattr(last, name)
        if status.processed > last.processed:  # else it was rejected
            self.statuses.append(status)

    def _on_pose(self, message: PoseWithCovarianceStamped) -> None:
        self.poses[stamp_ns(message.header.stamp)] = transform_of(message.pose.pose)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.base.parent = base_frame_of(self._own, message) or self.base.parent

    def _on_map(self, message: PointCloud2) -> None:
        self.cloud = message

    def _on_path(self, message: Path) -> None:
        self.path = message

    def _on_true_pose(self, message: PoseStamped | Odometry | TransformStamped) -> None:
        if isinstance(message, TransformStamped):
            T = transform_of(message.transform)
        else:
            T = transform_of(message.pose.pose if isinstance(message, Odometry) else message.pose)
        if not isinstance(message, PoseStamped):
            self.true_base.parent = message.child_frame_id.lstrip("/")
        self.true_poses[stamp_ns(message.header.stamp)] = T


def _before_first(status: TrackingStatus) -> TrackingStatus:
    """Return the counts before the first image that is heard of."""
    before = TrackingStatus()
    if status.processed + status.rejected > 1:  # the node has worked before
        for name in COUNTS:
            setattr(before, name, getattr(status, name))
        before.processed = max(status.processed - 1, 0)  # a guess: it may have been rejected
    return before
