# SPDX-License-Identifier: Apache-2.0
"""The displays of an RViz configuration, and a node that subscribes as RViz does for them.

RViz makes each subscription of a display with the topic as it stands in the file, on one node that
is given the arguments of the process.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rclpy
import yaml
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMsg
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSDurabilityPolicy, QoSLivelinessPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

# What the plugins say of themselves.
TYPES = {
    "Image": Image,
    "MarkerArray": MarkerArray,
    "Odometry": Odometry,
    "Path": PathMsg,
    "PointCloud2": PointCloud2,
}
WITHOUT_TOPIC = {"Grid", "TF"}  # TF is always /tf and /tf_static


@dataclass(frozen=True)
class Display:
    """One display that subscribes to a topic."""

    name: str
    kind: type
    topic: str
    qos: QoSProfile
    enabled: bool


def displays(path: Path) -> Iterator[Display]:
    """Yield all displays but those without a topic of their own."""
    for display in read(path)["Displays"]:
        kind = display["Class"].removeprefix("rviz_default_plugins/")
        if kind in WITHOUT_TOPIC:
            continue
        topic = display["Topic"]
        qos = QoSProfile(
            depth=topic["Depth"],
            reliability=QoSReliabilityPolicy[_policy(topic["Reliability Policy"])],
            durability=QoSDurabilityPolicy[_policy(topic["Durability Policy"])],
            liveliness=QoSLivelinessPolicy.AUTOMATIC,  # what the system's default comes to
        )
        yield Display(display["Name"], TYPES[kind], topic["Value"], qos, display["Enabled"])


def read(path: Path) -> dict[str, Any]:
    """Return what the file says about the picture."""
    return yaml.safe_load(path.read_text("utf-8"))["Visualization Manager"]


def _policy(name: str) -> str:
    return name.upper().replace(" ", "_")


def main() -> None:
    """Subscribe to everything that is enabled, until told to end; `-d FILE` as with RViz."""
    rclpy.init()
    node = Node("rviz")
    for display in displays(Path(sys.argv[sys.argv.index("-d") + 1])):
        if display.enabled:
            node.create_subscription(display.kind, display.topic, lambda message: None, display.qos)
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        rclpy.spin(node)


if __name__ == "__main__":
    main()
