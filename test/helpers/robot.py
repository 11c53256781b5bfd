# SPDX-License-Identifier: Apache-2.0
"""A robot for the node: its camera, its TF and whoever listens, all over real DDS."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TransformStamped
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.qos import ReliabilityPolicy as Reliability
from sensor_msgs.msg import CameraInfo, Image
from small_network import small_checkpoint
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.ros.node import TTT3RNode

PATIENCE_S = 30.0  # ten times what anything here takes
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Inbox:
    """Messages of one topic, waited for without polling."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self._arrived = threading.Condition()

    def put(self, message: Any) -> None:
        with self._arrived:
            self.messages.append(message)
            self._arrived.notify_all()

    def wait(self, predicate: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the first message that fulfils the predicate, or fail."""

        def found() -> list[Any]:
            return [message for message in self.messages if predicate(message)]

        with self._arrived:
            assert self._arrived.wait_for(found, PATIENCE_S), (
                f"not among {len(self.messages)} messages: {self.messages[-1:]}"
            )
            return found()[0]


class Robot:
    """One process with the node under test and a client, each in its own thread."""

    def __init__(self, domain: int) -> None:
        self._context = Context()
        self._context.init(domain_id=domain)
        self._threads: list[threading.Thread] = []
        self._nodes: list[Node] = []
        self._tf_edges: list[tuple[str, str]] = []
        self.client = Node("robot", context=self._context)
        self.spin(self.client)
        self.images = self.client.create_publisher(
            Image, "image", QoSProfile(depth=100, reliability=Reliability.RELIABLE)
        )
        self.statuses = self.listen(TrackingStatus, "ttt3r_node/status")

    def start(self, *, cli_args: Sequence[str] = (), **parameters: Any) -> TTT3RNode:
        """Start the node and, if it becomes active, wait until it hears and is heard.

        It need not wait for transforms, for it has heard those of `publish_tf`.
        """
        values = {
            "image_reliability": "reliable",
            "tf_wait_s": 0.0,
            "device": "cpu",
            "checkpoint": small_checkpoint(),
            "map.edge_filter": 0.0,  # the depth of random weights is nothing but edges
            **parameters,
        }
        self.node = TTT3RNode(
            context=self._context,
            cli_args=["--ros-args", *cli_args],
            parameter_overrides=[
                Parameter(name.replace("__", "."), value=value) for name, value in values.items()
            ],
        )
        self.spin(self.node)
        self.started = self.node.start()
        if self.started and values.get("autostart", True):
            self.meet()
            self.hear_tf(*self._tf_edges)
        return self.node

    def meet(self) -> None:
        """Wait until the node hears our images and we hear its status."""
        self.wait_until(lambda: self.images.get_subscription_count() > 0)
        self.wait_until(lambda: self.client.count_publishers("ttt3r_node/status") > 0)

    def hear_process(self) -> None:
        """Wait until a node of another process is heard by all listeners there are so far.

        DDS tells it of listeners in their order, so that it knows all if the newest one hears it.
        """
        self.listen(DiagnosticArray, "/diagnostics").wait()

    def hear_tf(self, *edges: tuple[str, str]) -> None:
        """Wait until the active node knows TF from parents to children."""
        find = self.node._listener.find_transform
        self.wait_until(lambda: all(find(*edge) is not None for edge in edges))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        done = threading.Event()
        timer = self.client.create_timer(0.02, lambda: done.set() if condition() else None)
        assert done.wait(PATIENCE_S), "waited in vain"
        self.client.destroy_timer(timer)

    def listen(self, kind: type, topic: str, qos: QoSProfile | int = 100) -> Inbox:
        inbox = Inbox()
        self.client.create_subscription(kind, topic, inbox.put, qos)
        return inbox

    def listen_to_node(self, kind: type, name: str, qos: QoSProfile | int = 100) -> Inbox:
        """Listen to a topic of the running node, from now on for certain."""
        topic = f"ttt3r_node/{name}"
        inbox = self.listen(kind, topic, qos)
        self.wait_until(lambda: self.node.count_subscribers(topic) > 0)
        return inbox

    def send(self, message: Image | None = None, *, at_s: float = 1.0, **fields: Any) -> Any:
        """Publish one image and return the status that says what became of it."""
        message = message or image_message(at_s, **fields)
        self.images.publish(message)
        return self.status_at(message.header.stamp)

    def status_at(self, stamp: Time) -> TrackingStatus:
        return self.statuses.wait(lambda status: status.header.stamp == stamp)

    def call(self, name: str) -> Trigger.Response:
        client = self.client.create_client(Trigger, f"ttt3r_node/{name}")
        assert client.wait_for_service(PATIENCE_S)
        return self.result_of(client.call_async(Trigger.Request()))

    def result_of(self, future: Any) -> Any:
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        assert done.wait(PATIENCE_S)
        return future.result()

    def set_parameter(self, name: str, value: Any) -> SetParametersResult:
        client = self.client.create_client(SetParameters, "ttt3r_node/set_parameters")
        assert client.wait_for_service(PATIENCE_S)
        parameter = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        return self.result_of(client.call_async(request)).results[0]

    def in_node(self, callback: Callable[[], Any]) -> Any:
        """Return what a callback returns in the thread of the node's executor."""
        return self.result_of(self.node.executor.create_task(callback))

    def publish_tf(self, *edges: tuple[str, str, tuple[float, float, float]]) -> None:
        """Publish static transforms (parent, child, translation) without rotation."""
        self._tf = self.client.create_publisher(TFMessage, "/tf_static", LATCHED)
        message = TFMessage()
        for parent, child, (x, y, z) in edges:
            edge = TransformStamped(child_frame_id=child)
            edge.header.frame_id = parent
            t = edge.transform.translation
            t.x, t.y, t.z = x, y, z
            message.transforms.append(edge)
            self._tf_edges.append((parent, child))
        self._tf.publish(message)

    def spin(self, node: Node) -> None:
        executor = SingleThreadedExecutor(context=self._context)
        executor.add_node(node)

        def run() -> None:
            with suppress(ExternalShutdownException):
                executor.spin()

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)
        self._nodes.append(node)

    def shutdown(self) -> None:
        self._context.try_shutdown()
        for thread in self._threads:
            thread.join()
        for node in self._nodes:
            node.destroy_node()


def stamp(seconds: float) -> Time:
    ns = round(seconds * 1e9)
    return Time(sec=ns // 10**9, nanosec=ns % 10**9)


def picture(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[0:height, 0:width] / 64
    waves = [np.sin(6 * (a * row + b * column) + c) for a, b, c in rng.uniform(-2, 2, (3, 3))]
    return (127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def image_message(at_s: float = 1.0, rgb: np.ndarray | None = None, **fields: Any) -> Image:
    """An rgb8 image; `fields` overwrite what is right about it."""
    rgb = picture() if rgb is None else rgb
    message = Image(height=rgb.shape[0], width=rgb.shape[1], step=3 * rgb.shape[1])
    message.encoding = "rgb8"
    message.data = rgb.tobytes()
    message.header.stamp = stamp(at_s)
    message.header.frame_id = fields.pop("frame_id", "camera")
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def camera_info_message(width: int = 64, height: int = 48) -> CameraInfo:
    message = CameraInfo(width=width, height=height)
    message.header.frame_id = "camera"
    message.k = [60.0, 0.0, 31.5, 0.0, 60.0, 23.5, 0.0, 0.0, 1.0]
    message.p = [60.0, 0.0, 31.5, 0.0, 0.0, 60.0, 23.5, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message
