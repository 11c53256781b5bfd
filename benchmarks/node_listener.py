# SPDX-License-Identifier: Apache-2.0
"""Who listens to the node in `bench_node.py`, as processes of their own that start fast.

python benchmarks/node_listener.py listen
python benchmarks/node_listener.py take
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.client import Client
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from ttt3r_ros.msg import TrackingStatus

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_PATIENCE_S = 60.0
_PAUSE_S = 0.3  # between requests


def _stamp_ns(stamp: Time) -> int:
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


class Listener(Node):
    """Notes when poses and what statuses come, and calls the node's services."""

    def __init__(self) -> None:
        super().__init__("listener")
        self.poses: list[tuple[int, int]] = []  # stamp, heard; nanoseconds
        self.statuses: list[dict[str, Any]] = []
        self.requests: defaultdict[str, list[float]] = defaultdict(list)  # round trips in ms
        self.maps: list[tuple[int, int]] = []  # heard in nanoseconds, points
        self._map: Any = None
        self.create_subscription(TFMessage, "/tf", self._on_pose, 1000)
        self.create_subscription(TrackingStatus, "ttt3r_node/status", self._on_status, 1000)
        self._reset: Client[Any, Any] = self.create_client(Trigger, "ttt3r_node/reset")
        self._change: Client[Any, Any] = self.create_client(ChangeState, "ttt3r_node/change_state")

    def _on_pose(self, message: TFMessage) -> None:
        self.poses.append((_stamp_ns(message.transforms[0].header.stamp), time.time_ns()))

    def _on_status(self, status: TrackingStatus) -> None:
        counts = ("received", "processed", "replaced", "rejected", "lost_estimated")
        names = (*counts, "step_ms", "latency_ms")
        noted = {name: getattr(status, name) for name in names}
        self.statuses.append(
            {"heard": time.time_ns(), "lost": status.state == TrackingStatus.LOST, **noted}
        )

    def _on_map(self, message: PointCloud2) -> None:
        self.maps.append((time.time_ns(), message.width))

    def take_map(self, wanted: bool) -> None:
        """Listen to the map from now on, or no longer."""
        if self._map is not None:
            self.destroy_subscription(self._map)
            self._map = None
        if wanted:
            topic = "ttt3r_node/cloud_map"
            self._map = self.create_subscription(PointCloud2, topic, self._on_map, _LATCHED)

    async def ask(self, what: str, answered: threading.Event) -> None:
        """Call a service and note how long the answer takes."""
        if what == "reset":
            client, request = self._reset, Trigger.Request()
        else:
            label = getattr(Transition, f"TRANSITION_{what.upper()}")
            client, request = self._change, ChangeState.Request(transition=Transition(id=label))
        began_s = time.perf_counter()
        answer = await client.call_async(request)
        self.requests[what].append(1e3 * (time.perf_counter() - began_s))
        if not (answer and answer.success):
            raise RuntimeError(f"{what}: refused")
        answered.set()


def listen() -> None:
    """Be the listener, and obey lines on stdin: `map`, `silent`, at the end `requests NUMBER`.

    After the requests all notes go to stdout.
    """
    rclpy.init()
    node = Listener()
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def obey() -> None:
        requests = 0
        for line in sys.stdin:
            command, _, number = line.strip().partition(" ")
            if command == "requests":
                requests = int(number)
                break
            executor.create_task(node.take_map, command == "map")
        for _ in range(requests):
            for what in ("reset", "deactivate", "activate"):
                answered = threading.Event()
                executor.create_task(node.ask, what, answered)
                answered.wait(_PATIENCE_S)
                time.sleep(_PAUSE_S)
        executor.create_task(rclpy.shutdown)

    threading.Thread(target=obey, daemon=True).start()
    with suppress(ExternalShutdownException):
        executor.spin()
    names = ("poses", "statuses", "maps", "requests")
    json.dump({name: getattr(node, name) for name in names}, sys.stdout)


def take_all() -> None:
    """Subscribe to what is heavy until the process is told to end; nothing is looked at."""
    rclpy.init()
    node = Node("taker")
    for kind, topic, qos in (
        (Image, "depth/image_rect", QoSProfile(depth=1)),
        (PointCloud2, "points", QoSProfile(depth=1)),
        (PointCloud2, "cloud_map", _LATCHED),
    ):
        node.create_subscription(kind, f"ttt3r_node/{topic}", lambda _: None, qos, raw=True)
    with suppress(ExternalShutdownException, KeyboardInterrupt):
        rclpy.spin(node)


if __name__ == "__main__":
    if sys.argv[1] == "listen":
        listen()
    else:
        take_all()
