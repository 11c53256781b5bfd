# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for the few calls of ROS packages that PyPI does not have.

Each class or function has the name, arguments and results of the real one, in so far as the node
uses it. Where a ROS install is sourced, the importing modules take the real ones instead.
"""

from __future__ import annotations

import array
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, PointCloud2, PointField
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from ttt3r_ros.geometry import (
    Transform,
    inverse,
    transform_from_message,
    transform_from_quaternion,
)
from ttt3r_ros.geometry import quaternion as quaternion_wxyz

_TF_QOS = QoSProfile(depth=100)
_TF_STATIC_QOS = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class CvBridge:
    """cv_bridge.CvBridge, to messages of these encodings only."""

    _PIXELS: Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]] = MappingProxyType(
        {"32FC1": (np.float32, ()), "rgb8": (np.uint8, (3,))}
    )

    def cv2_to_imgmsg(
        self, pixels: npt.NDArray[Any], encoding: str, header: Header | None = None
    ) -> Image:
        """Return an image message of float32 [H, W] as 32FC1 or uint8 [H, W, 3] as rgb8."""
        kind, channels = self._PIXELS.get(encoding, (None, ()))
        if kind is None or pixels.dtype != kind or pixels.shape[2:] != channels:
            raise ValueError(
                f"encoding: only 32FC1 and rgb8 of such pixels without a ROS install, got "
                f"{encoding!r} for {pixels.dtype} {list(pixels.shape)}"
            )
        pixels = np.ascontiguousarray(pixels)
        message = Image(header=header or Header(), encoding=encoding)
        message.height, message.width = pixels.shape[:2]
        message.step = pixels.strides[0]
        message.is_bigendian = int(sys.byteorder == "big")
        message.data = _bytes(pixels)
        return message


def create_cloud(
    header: Header, fields: Iterable[PointField], points: npt.NDArray[np.void]
) -> PointCloud2:
    """sensor_msgs_py.point_cloud2.create_cloud, for structured arrays [N] only."""
    cloud = PointCloud2(header=header, fields=fields, height=1, width=len(points))
    cloud.is_bigendian = sys.byteorder == "big"
    cloud.point_step = points.dtype.itemsize
    cloud.row_step = points.dtype.itemsize * len(points)
    cloud.data = _bytes(points)
    return cloud


def quaternion_from_matrix(matrix: Transform) -> npt.NDArray[np.float64]:
    """tf_transformations.quaternion_from_matrix: (x, y, z, w) of a transform [4, 4]."""
    return np.roll(quaternion_wxyz(matrix), -1)


def quaternion_matrix(quaternion: Sequence[float]) -> Transform:
    """tf_transformations.quaternion_matrix: the transform [4, 4] of a rotation (x, y, z, w)."""
    x, y, z, w = quaternion
    return transform_from_quaternion((0.0, 0.0, 0.0), (w, x, y, z))


class TransformException(Exception):
    """tf2_ros.TransformException: no transform between two frames."""


class Buffer:
    """tf2_ros.Buffer: the latest transform to each frame from its parent, without history."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parents: dict[str, tuple[str, Transform]] = {}

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Remember one edge of the tree."""
        matrix = transform_from_message(
            transform.transform.translation, transform.transform.rotation
        )
        if not np.isfinite(matrix).all():  # tf2 refuses such transforms too
            return
        with self._lock:
            self._parents[transform.child_frame_id] = (transform.header.frame_id, matrix)

    set_transform_static = set_transform

    def lookup_transform(self, target_frame: str, source_frame: str, time: Any) -> TransformStamped:
        """Return the latest transform from `source_frame` to `target_frame`.

        Raises:
            TransformException: nothing connects the two.
        """
        with self._lock:
            target, source = self._to_root(target_frame), self._to_root(source_frame)
        if target[0] != source[0]:
            raise TransformException(
                f'"{target_frame}" and "{source_frame}" are not connected in TF'
            )
        T_target_source = inverse(target[1]) @ source[1]
        message = TransformStamped(child_frame_id=source_frame)
        message.header.frame_id = target_frame
        t, q = message.transform.translation, message.transform.rotation
        t.x, t.y, t.z = map(float, T_target_source[:3, 3])
        q.x, q.y, q.z, q.w = map(float, quaternion_from_matrix(T_target_source))
        return message

    def _to_root(self, frame: str) -> tuple[str, Transform]:
        T_root_frame = np.eye(4)
        for _ in range(len(self._parents)):
            if frame not in self._parents:
                break
            frame, T_parent_frame = self._parents[frame]
            T_root_frame = T_parent_frame @ T_root_frame
        return frame, T_root_frame


class TransformListener:
    """tf2_ros.TransformListener: fills a buffer from /tf and /tf_static."""

    def __init__(self, buffer: Buffer, node: Node) -> None:
        self._buffer = buffer
        self._node = node
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._receive, _TF_QOS),
            node.create_subscription(TFMessage, "/tf_static", self._receive_static, _TF_STATIC_QOS),
        ]

    def unregister(self) -> None:
        """Listen no more."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _receive(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self._buffer.set_transform(transform, "default_authority")

    def _receive_static(self, message: TFMessage) -> None:
        for transform in message.transforms:
            self._buffer.set_transform_static(transform, "default_authority")


class TransformBroadcaster:
    """tf2_ros.TransformBroadcaster."""

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(TFMessage, "/tf", _TF_QOS)

    def sendTransform(self, transform: Sequence[TransformStamped]) -> None:
        """Publish transforms."""
        self._publisher.publish(TFMessage(transforms=transform))


class StaticTransformBroadcaster:
    """tf2_ros.StaticTransformBroadcaster, for transforms sent all at once."""

    def __init__(self, node: Node) -> None:
        qos = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = node.create_publisher(TFMessage, "/tf_static", qos)

    def sendTransform(self, transform: Sequence[TransformStamped]) -> None:
        """Publish transforms that never change, also for those who listen later."""
        self._publisher.publish(TFMessage(transforms=transform))


def _bytes(values: npt.NDArray[Any]) -> array.array[int]:
    # The one type that message setters take without looking at every byte.
    result = array.array("B")
    result.frombytes(values.data.cast("B"))
    return result
