# SPDX-License-Identifier: Apache-2.0
"""What the node listens to while it is active, and what it has heard of its camera before."""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from ttt3r_ros.camera.camera_info import CameraModel
from ttt3r_ros.config import Config, NodeConfig
from ttt3r_ros.ros.masks import Masks
from ttt3r_ros.ros.parameters import OVERRIDABLE

_WARNING_PERIOD_S = 5.0
_AWAITED = 10  # messages heard once that may still come a second time
_IMAGE_TYPES = {
    "sensor_msgs/msg/Image": "set image_transport to raw",
    "sensor_msgs/msg/CompressedImage": "set image_transport to compressed",
}
Callback = Callable[[Any], None]


class Guard:
    """Lets nothing that a message makes a callback raise end the executor.

    Attributes:
        failures: how many messages of each topic could not be taken.
        last: what the last one of them has raised.
    """

    def __init__(self, node: Node) -> None:
        """Begin without failures."""
        self._node = node
        self.failures: Counter[str] = Counter()
        self.last = ""

    def around(self, topic: str, callback: Callback) -> Callback:
        """Return a callback that names and counts what another one raises."""

        def guarded(message: Any) -> None:
            try:
                callback(message)
            except Exception as error:  # whatever it is, the next message may be a good one
                if not self._node.context.ok():  # the process is ending
                    return
                self.failures[topic] += 1
                self.last = f"{topic}: a message could not be taken: {type(error).__name__}"
                self._node.get_logger().error(
                    f"{self.last}\n{traceback.format_exc()}",
                    throttle_duration_sec=_WARNING_PERIOD_S,
                )

        return guarded


class Inputs:
    """The subscriptions of an activation, and what outlives it: the camera and its masks."""

    def __init__(self, node: Node, guard: Guard, node_config: NodeConfig) -> None:
        """Know nothing of the camera yet.

        Args:
            node: that listens.
            guard: of its callbacks.
            node_config: says by which transport images come.
        """
        self._node, self._guard = node, guard
        self._subscriptions: list[Subscription[Any]] = []
        is_compressed = node_config.image_transport == "compressed"
        self._kind: type = CompressedImage if is_compressed else Image
        topic = node.resolve_topic_name("image")
        # Remapped along with `image`, or by itself.
        self.image_topic = (
            node.resolve_topic_name(f"{topic}/compressed") if is_compressed else topic
        )
        self.camera = CameraModel(self.image_topic)
        self.masks = Masks()

    def listen_to_camera(self, on_image: Callback, config: Config, node_config: NodeConfig) -> None:
        """Subscribe to images, camera info and masks."""
        self.camera.begin_wait()
        self.listen(self._kind, self.image_topic, on_image, _image_qos(config, node_config))
        for kind, topic, update in (
            (CameraInfo, "camera_info", self.camera.update),
            (Image, "mask", self.masks.update),
        ):
            once = _Once(update)
            qos = _image_qos(config, node_config)
            self.listen(kind, topic, partial(once.take, "live"), qos)
            self._listen_latched(kind, topic, partial(once.take, "latched"))
        self._node.get_logger().info(f"waiting for images on {self.image_topic}")

    def listen(self, kind: type, topic: str, callback: Callback, qos: QoSProfile) -> None:
        """Subscribe; overrides are written into `qos`."""
        guarded = self._guard.around(self._node.resolve_topic_name(topic), callback)
        self._subscriptions.append(
            self._node.create_subscription(
                kind, topic, guarded, qos, qos_overriding_options=OVERRIDABLE
            )
        )

    def close(self) -> None:
        """Listen no more."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    def wrong_type(self) -> str:
        """Return what to set where images come by another transport, empty if nobody sends such."""
        own = f"sensor_msgs/msg/{self._kind.__name__}"
        types = {i.topic_type for i in self._node.get_publishers_info_by_topic(self.image_topic)}
        for other in types & (_IMAGE_TYPES.keys() - {own}):
            if own not in types:
                name = other.rpartition("/")[2]
                return f"{self.image_topic} publishes {name}: {_IMAGE_TYPES[other]}"
        return ""

    def _listen_latched(self, kind: type, topic: str, callback: Callback) -> None:
        """Hear, too, what was sent before the subscription, by those who keep it for that."""
        guarded = self._guard.around(self._node.resolve_topic_name(topic), callback)
        qos = QoSProfile(
            depth=1,
            reliability=ReliabilityPolicy.RELIABLE,
            durability=DurabilityPolicy.TRANSIENT_LOCAL,
        )
        # Others who publish are no mistake: they are heard by the other subscription.
        events = SubscriptionEventCallbacks(use_default_callbacks=False)
        self._subscriptions.append(
            self._node.create_subscription(kind, topic, guarded, qos, event_callbacks=events)
        )


class _Once:
    """Passes on once what comes by two subscriptions, in the order in which it is heard first."""

    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        self._awaited: dict[str, deque[Any]] = {
            "live": deque(maxlen=_AWAITED),
            "latched": deque(maxlen=_AWAITED),
        }

    def take(self, way: str, message: Any) -> None:
        """Take a message that came by one of the ways, `live` or `latched`."""
        heard = self._awaited["latched" if way == "live" else "live"]
        if message in heard:
            heard.remove(message)
        else:
            self._awaited[way].append(message)
            self._callback(message)


def _image_qos(config: Config, node_config: NodeConfig) -> QoSProfile:
    reliable = config.process_all_images or node_config.image_reliability == "reliable"
    return QoSProfile(
        depth=node_config.queue_size if config.process_all_images else 1,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
    )
