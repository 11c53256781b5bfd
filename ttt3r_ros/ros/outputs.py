# SPDX-License-Identifier: Apache-2.0
"""What the node publishes; images and clouds are built only for those who subscribe."""

from __future__ import annotations

from collections.abc import Sequence, Set
from copy import copy
from typing import Any

from geometry_msgs.msg import PoseWithCovarianceStamped, TransformStamped
from nav_msgs.msg import Odometry, Path
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from ttt3r_ros.config import Config, NodeConfig
from ttt3r_ros.geometry import Transform
from ttt3r_ros.mapping.voxel_map import MapCloud
from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.pose_graph.exchange import LoopCounts
from ttt3r_ros.pose_graph.graph import PoseGraph
from ttt3r_ros.ros.conversions import (
    camera_info_message,
    confidence_message,
    depth_message,
    map_message,
    map_pose_message,
    odometry_message,
    points_message,
    rgb_message,
    stamp_message,
)
from ttt3r_ros.ros.graph import graph_message
from ttt3r_ros.ros.parameters import OVERRIDABLE
from ttt3r_ros.ros.path import PathMessages
from ttt3r_ros.ros.stream import StreamCounts
from ttt3r_ros.ros.transforms import Extrinsics, FramePublisher
from ttt3r_ros.types import NS_PER_S, FrameResult, TrackingState


class Outputs:
    """The topics of the node, silent while it is not active.

    Attributes:
        last_rejection: why the last image that was rejected was; empty if none was.
    """

    def __init__(self, node: LifecycleNode, map_frame: str) -> None:
        """Create them."""
        self._node = node
        self._map_frame = map_frame
        self._frames = FramePublisher(node)
        self._odometry = self._create(Odometry, "~/odom")
        self._map_pose = self._create(PoseWithCovarianceStamped, "~/pose")
        self._path = self._create(Path, "~/path", _latched())
        self._path_messages = PathMessages(map_frame)
        self._graph = self._create(MarkerArray, "~/graph", _latched())
        self._depth = self._create(Image, "~/depth/image_rect")
        self._depth_info = self._create(CameraInfo, "~/depth/camera_info")
        self._confidence = self._create(Image, "~/confidence/image_rect")
        self._rgb = self._create(Image, "~/image_rect")
        self._points = self._create(PointCloud2, "~/points")
        self._map = self._create(PointCloud2, "~/cloud_map", _latched())
        self._status = self._create(TrackingStatus, "~/status")
        self._previous: tuple[int, Transform] | None = None  # stamp in ns, pose of the base
        self.forget()

    @property
    def own_edges(self) -> Set[tuple[str, str]]:
        """The (parent, child) frames of what was published on /tf and /tf_static."""
        return self._frames.own_edges

    @property
    def last_status(self) -> TrackingStatus:
        """What `~/status` has said last, be it to nobody; any thread may ask."""
        return self._last_status

    def is_rival(self, edge: TransformStamped, node_config: NodeConfig) -> bool:
        """Return whether a transform heard is somebody else's and says what is ours to say."""
        return self._frames.is_rival(edge, node_config)

    def forget(self) -> None:
        """Let the next result be a first one."""
        self._last_status = TrackingStatus()
        self.last_rejection = ""
        self._previous = None
        self._sent_graph: PoseGraph | None = None

    def forget_frames(self) -> None:
        """Let the next extrinsics be a first one: nothing is ours on TF before it."""
        self._frames.forget()

    def extrinsics(self, extrinsics: Extrinsics, camera_frame: str, stamp_ns: int) -> None:
        """Publish where the camera is on the robot, if nobody else does."""
        self._frames.publish_extrinsics(extrinsics, camera_frame, stamp_message(stamp_ns))

    def pose(self, result: FrameResult, extrinsics: Extrinsics, node_config: NodeConfig) -> None:
        """Publish where an image was taken, TF first; of a LOST one only if wanted."""
        if _is_withheld(result, node_config):
            self._previous = None
            return
        T_odom_base = extrinsics.odom_to_base(result.T_odom_camera)
        stamp = stamp_message(result.stamp_ns)
        is_odometry = node_config.odom_source == "camera"
        if is_odometry:
            self._frames.publish_pose(
                result.T_map_odom, T_odom_base, extrinsics.base_frame, stamp, node_config
            )
        # After a reset the pose before has another origin, after a segment boundary it is this
        # one's by construction: neither says anything about the velocity.
        follows = self._previous and result.images_since_reset > 1 and not result.boundary_reason
        previous = self._previous if follows else None
        self._previous = (result.stamp_ns, T_odom_base)
        if is_odometry and self._odometry.get_subscription_count():
            frame = node_config.odom_frame
            self._odometry.publish(odometry_message(result, extrinsics, previous, frame))
        if self._map_pose.get_subscription_count():
            self._map_pose.publish(map_pose_message(result, extrinsics, self._map_frame))

    def correction(self, T_map_odom: Transform, stamp_ns: int, node_config: NodeConfig) -> None:
        """Publish map -> odom of a foreign odometry, at an image's stamp; see `MapCorrection`."""
        ahead_ns = round(node_config.transform_tolerance_s * NS_PER_S)
        stamp = stamp_message(stamp_ns + ahead_ns)
        self._frames.publish_map_to_odom(T_map_odom, stamp, node_config)

    def points(self, result: FrameResult, config: Config, node_config: NodeConfig) -> None:
        """Publish images and points of an image; of a LOST one only if wanted."""
        if _is_withheld(result, node_config):
            return
        limits = (config.confidence.min, config.depth.max_m)
        if self._points.get_subscription_count():  # first, for the depth is in the points
            self._points.publish(points_message(result, *limits))
        if self._depth.get_subscription_count():
            self._depth.publish(depth_message(result, *limits))
        if result.intrinsics and self._depth_info.get_subscription_count():
            self._depth_info.publish(camera_info_message(result, result.intrinsics))
        if self._confidence.get_subscription_count():
            self._confidence.publish(confidence_message(result))
        if self._rgb.get_subscription_count():
            self._rgb.publish(rgb_message(result))

    def status(
        self,
        result: FrameResult,
        counts: StreamCounts,
        loops: LoopCounts,
        *,
        latency_ms: float,
        map_points: int,
        last_reset_reason: str,
    ) -> None:
        """Publish the status after an image that was processed."""
        status = TrackingStatus()
        status.header.stamp = stamp_message(result.stamp_ns)
        status.header.frame_id = result.frame_id
        status.state = int(result.state)
        status.segment = result.segment
        status.images_since_reset = result.images_since_reset
        status.mean_gain = result.mean_gain
        status.median_confidence = result.median_confidence
        status.scale = result.scale
        status.scale_log_spread = result.scale_log_spread
        status.loops_closed = loops.accepted - loops.gated
        status.last_correction_m = loops.last_correction_m
        status.step_ms = 1e3 * result.step_s
        status.latency_ms = latency_ms
        status.map_points = map_points
        status.last_reset_reason = last_reset_reason
        remarks = [f"new segment: {result.boundary_reason}"] if result.boundary_reason else []
        if result.reason:
            remarks.append(result.reason)
        self._send_status(status, counts, "; ".join(remarks))

    def rejected(self, header: Header, reason: str, counts: StreamCounts, *, lost: bool) -> None:
        """Publish the status after a rejected image; all but the counts is the last one's."""
        self.last_rejection = reason
        status = copy(self._last_status)
        status.header = header
        if lost:
            status.state = TrackingStatus.LOST
        self._send_status(status, counts, reason)

    def _send_status(self, status: TrackingStatus, counts: StreamCounts, message: str) -> None:
        """Publish a status that nobody changes from now on: other threads read the last one."""
        status.received, status.processed = counts.received, counts.processed
        status.replaced, status.rejected = counts.replaced, counts.rejected
        status.lost_estimated = counts.lost_estimated
        status.message = message
        self._last_status = status
        self._status.publish(status)

    def map_is_wanted(self) -> bool:
        """Whether somebody subscribes to the map."""
        return bool(self._map.get_subscription_count())

    def map(self, cloud: MapCloud, stamp_ns: int) -> None:
        """Publish the map."""
        self._map.publish(map_message(cloud, stamp_ns, self._map_frame))

    def path_is_wanted(self) -> bool:
        """Whether somebody subscribes to the path."""
        return bool(self._path.get_subscription_count())

    def path(
        self, poses: Sequence[tuple[int, Transform]], extrinsics: Extrinsics | None, stamp_ns: int
    ) -> None:
        """Publish the base's path, see `PathMessages.path`."""
        self._path.publish(self._path_messages.path(poses, extrinsics, stamp_ns))

    def graph_is_wanted(self) -> bool:
        """Whether somebody subscribes to the pose graph."""
        return bool(self._graph.get_subscription_count())

    def graph(self, graph: PoseGraph) -> None:
        """Publish the pose graph, unless it is the one published last."""
        if graph is not self._sent_graph:
            self._sent_graph = graph
            header = Header(stamp=self._last_status.header.stamp, frame_id=self._map_frame)
            self._graph.publish(graph_message(graph, header))

    def _create(self, kind: type, topic: str, qos: QoSProfile | int = 10) -> Any:
        return self._node.create_lifecycle_publisher(
            kind, topic, qos, qos_overriding_options=OVERRIDABLE
        )


def _latched() -> QoSProfile:
    """A profile for one topic: overrides are written into it."""
    return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def _is_withheld(result: FrameResult, config: NodeConfig) -> bool:
    return result.state is TrackingState.LOST and not config.publish_when_lost
