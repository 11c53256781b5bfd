# SPDX-License-Identifier: Apache-2.0
"""Where the camera is on the robot, and the frames this node publishes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time as TimeMsg
from geometry_msgs.msg import Pose, TransformStamped
from rclpy.node import Node
from rclpy.time import Time

try:
    from tf2_ros import (
        Buffer,
        StaticTransformBroadcaster,
        TransformBroadcaster,
        TransformException,
        TransformListener,
    )
    from tf_transformations import quaternion_from_matrix, quaternion_matrix
except ImportError:
    from ttt3r_ros.ros.wheels import (
        Buffer,
        StaticTransformBroadcaster,
        TransformBroadcaster,
        TransformException,
        TransformListener,
        quaternion_from_matrix,
        quaternion_matrix,
    )

from ttt3r_ros.config import NodeConfig
from ttt3r_ros.geometry import Transform, inverse, optical_extrinsics, transform
from ttt3r_ros.ros.frame_tree import Edge, WatchedBuffer, content, frame_name
from ttt3r_ros.types import FrameRejected

_log = logging.getLogger(__name__)

_SENT = 2000  # transforms remembered, more than ever wait to be heard


class FrameConflict(RuntimeError):
    """Somebody else publishes a transform that is ours to publish."""


@dataclass(frozen=True, slots=True)
class Extrinsics:
    """How the camera sits on the robot."""

    base_frame: str
    T_base_camera: Transform  # camera: optical frame
    T_odom_first_camera: Transform  # where the first camera stands in the odometry frame
    is_published: bool  # TF connects the two frames already

    def odom_to_base(self, T_odom_camera: Transform) -> Transform:
        """Return the base's pose of a camera's pose."""
        return T_odom_camera @ inverse(self.T_base_camera)


def find_extrinsics(
    buffer: WatchedBuffer, camera_frame: str, config: NodeConfig, own_edges: Set[Edge]
) -> Extrinsics:
    """Find the base frame of a camera and its place there, by TF or `camera_pose`.

    Args:
        buffer: what is known of TF.
        camera_frame: the optical frame of the images.
        config: the settings in force.
        own_edges: what this node has published itself.

    Raises:
        FrameConflict: the base frame has a parent already, and `publish_odom_tf` is true.
        FrameRejected: TF does not connect base and camera, or with `odom_source: tf` the odometry
            and the camera; it may later.
    """
    own_frames = (config.map_frame, config.odom_frame)
    if camera_frame in map(frame_name, own_frames):
        raise FrameRejected(
            f"header.frame_id: {camera_frame!r} is a frame that this node publishes, no camera's"
        )
    parents = {c: p for c, p in buffer.parents.copy().items() if (p, c) not in own_edges}
    if config.publish_map_tf and config.odom_frame in parents:
        raise FrameConflict(
            f"TF has {parents[config.odom_frame]} -> {config.odom_frame} already, a second parent "
            f"would break the tree: end that, or set publish_map_tf to false or odom_frame to "
            f"another one"
        )
    upwards = _upwards(parents, camera_frame)
    base_frame = config.base_frame or _base_frame(upwards, buffer.static_edges, config)
    if config.owns_odom and base_frame in parents:
        raise FrameConflict(
            f"TF has {parents[base_frame]} -> {base_frame} already, a second parent would break "
            f"the tree: set base_frame to the top of the robot's tree, odom_source to tf or "
            f"publish_odom_tf to false"
        )
    if config.camera_pose:
        T_base_camera = optical_extrinsics(config.camera_pose)
        if base_frame == camera_frame:  # nothing between them: it says how the camera starts
            return Extrinsics(base_frame, np.eye(4), T_base_camera, is_published=True)
        return Extrinsics(base_frame, T_base_camera, T_base_camera, camera_frame in parents)
    if base_frame == camera_frame:
        return Extrinsics(base_frame, np.eye(4), optical_extrinsics(), is_published=True)
    try:
        T_base_camera = find_transform(buffer, base_frame, camera_frame)
    except TransformException as error:
        raise FrameRejected(
            f"TF: no transform from base_frame {base_frame} to the camera frame {camera_frame} "
            f"after {config.tf_wait_s:g} s: publish it or set camera_pose ({error})"
        ) from error
    _warn_of_joints(upwards, base_frame, buffer.static_edges)
    return Extrinsics(base_frame, T_base_camera, T_base_camera, is_published=True)


def find_transform(buffer: Buffer, parent: str, child: str) -> Transform:
    """Return the newest pose [4, 4] of a frame in another one.

    Raises:
        TransformException: TF does not connect them.
    """
    return matrix_from_transform(buffer.lookup_transform(parent, child, Time()))


class FrameListener:
    """What TF says while the node is active."""

    def __init__(
        self, node: Node, watch: Callable[[TransformStamped], None] = lambda _: None
    ) -> None:
        """Listen to /tf and /tf_static; each transform heard is shown to `watch`."""
        self._buffer = WatchedBuffer(watch)
        self._listener = TransformListener(self._buffer, node)

    def find_extrinsics(
        self, camera_frame: str, config: NodeConfig, own_edges: Set[Edge]
    ) -> Extrinsics:
        """Call `find_extrinsics` with what has been heard."""
        return find_extrinsics(self._buffer, camera_frame, config, own_edges)

    def find_transform(self, parent: str, child: str) -> Transform | None:
        """Return the newest pose [4, 4] of a frame in another one, None if TF has none."""
        try:
            return find_transform(self._buffer, parent, child)
        except TransformException:
            return None

    def stop(self) -> None:
        """Listen no more."""
        self._listener.unregister()


class FramePublisher:
    """Publishes map -> odom -> base for each image, and base -> camera where nobody else does."""

    def __init__(self, node: Node) -> None:
        """Create the publishers of /tf and /tf_static."""
        self._static_edges: set[Edge] = set()  # published once and heard ever since
        self._edges: set[Edge] = set()  # published since `forget`
        self._base_frame = ""  # of the extrinsics, whose parent is ours; empty: not known
        self._sent: dict[tuple[Any, ...], None] = {}  # the last transforms to it, oldest first
        self._broadcaster = TransformBroadcaster(node)
        self._static_broadcaster = StaticTransformBroadcaster(node)

    @property
    def own_edges(self) -> Set[Edge]:
        """What TF may have from here."""
        return self._static_edges | self._edges

    def forget(self) -> None:
        """Begin an activation: base and parents may be others now."""
        self._base_frame = ""
        self._edges = set()

    def publish_extrinsics(self, extrinsics: Extrinsics, camera_frame: str, stamp: TimeMsg) -> None:
        """Publish base -> camera, if TF does not have it; mind the base's parent from now on."""
        self._base_frame = extrinsics.base_frame
        if not extrinsics.is_published:
            self._static_edges.add((extrinsics.base_frame, camera_frame))
            self._static_broadcaster.sendTransform(
                [
                    transform_message(
                        extrinsics.T_base_camera, extrinsics.base_frame, camera_frame, stamp
                    )
                ]
            )

    def publish_pose(
        self,
        T_map_odom: Transform,
        T_odom_base: Transform,
        base_frame: str,
        stamp: TimeMsg,
        config: NodeConfig,
    ) -> None:
        """Publish the edges that the settings leave to this node."""
        odom, map_ = config.odom_frame, config.map_frame
        transforms = []
        if config.publish_map_tf:
            transforms.append(transform_message(T_map_odom, map_, odom, stamp))
        if config.owns_odom:
            transforms.append(transform_message(T_odom_base, odom, base_frame, stamp))
        self._send(transforms)

    def publish_map_to_odom(
        self, T_map_odom: Transform, stamp: TimeMsg, config: NodeConfig
    ) -> None:
        """Publish where the odometry that is somebody else's is in the map."""
        if config.publish_map_tf:
            frames = config.map_frame, config.odom_frame
            self._send([transform_message(T_map_odom, *frames, stamp)])

    def is_rival(self, edge: TransformStamped, config: NodeConfig) -> bool:
        """Return whether a transform heard says what is ours to say and was not sent from here.

        Names do not tell: somebody else's odometry has the same. Another thread may publish.
        """
        ours = {self._base_frame} if config.owns_odom else set()
        if config.publish_map_tf:
            ours.add(config.odom_frame)
        return edge.child_frame_id in ours and content(edge) not in self._sent

    def _send(self, transforms: list[TransformStamped]) -> None:
        for edge in transforms:
            self._edges.add((edge.header.frame_id, edge.child_frame_id))
            self._sent[content(edge)] = None
            if len(self._sent) > _SENT:
                del self._sent[next(iter(self._sent))]
        if transforms:
            self._broadcaster.sendTransform(transforms)


def transform_message(T: Transform, parent: str, child: str, stamp: TimeMsg) -> TransformStamped:
    """Return the pose [4, 4] of `child` in `parent` as a message."""
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = stamp
    pose = pose_message(T)
    t = message.transform.translation
    t.x, t.y, t.z = pose.position.x, pose.position.y, pose.position.z
    message.transform.rotation = pose.orientation
    return message


def pose_message(T: Transform) -> Pose:
    """Return a pose [4, 4] as a message."""
    message = Pose()
    p, q = message.position, message.orientation
    p.x, p.y, p.z = (float(value) for value in T[:3, 3])
    q.x, q.y, q.z, q.w = (float(value) for value in quaternion_from_matrix(T))
    return message


def matrix_from_transform(message: TransformStamped) -> Transform:
    """Return the pose [4, 4] of a message's child frame in its parent."""
    t, q = message.transform.translation, message.transform.rotation
    rotation = quaternion_matrix((q.x, q.y, q.z, q.w))[:3, :3]
    return transform(rotation, (t.x, t.y, t.z))


def _upwards(parents: Mapping[str, str], frame: str) -> list[str]:
    """Return a frame and all above it."""
    frames = [frame]
    while (parent := parents.get(frames[-1])) is not None and parent not in frames:
        frames.append(parent)
    return frames


def _base_frame(upwards: Sequence[str], static_edges: Set[Edge], config: NodeConfig) -> str:
    """Return the frame that the camera, the first of the frames, is fixed to."""
    if config.odom_source == "tf":
        if config.odom_frame not in upwards[1:]:
            raise FrameRejected(
                f"TF: odom_frame {config.odom_frame} is not above the camera frame {upwards[0]}: "
                "with odom_source tf it has to be, or base_frame be set"
            )
        return upwards[upwards.index(config.odom_frame) - 1]
    base_frame = upwards[0]
    for parent in upwards[1:]:
        # What moves is a joint, or an odometry under whatever names.
        is_fixed = (parent, base_frame) in static_edges
        if not is_fixed or parent in (config.odom_frame, config.map_frame):
            break
        base_frame = parent
    return base_frame


def _warn_of_joints(upwards: Sequence[str], base_frame: str, static_edges: Set[Edge]) -> None:
    if base_frame not in upwards:
        return
    for parent, child in zip(upwards[1:], upwards[: upwards.index(base_frame)], strict=False):
        if (parent, child) not in static_edges:
            _log.warning(
                "TF: %s -> %s, between base and camera, is not static: it is taken as it is now, "
                "and must not move",
                *(parent, child),
            )
