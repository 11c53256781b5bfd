# SPDX-License-Identifier: Apache-2.0
"""Listeners that come and go, and such as never take what they are sent, disturb nobody."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from robot import LATCHED, image_message, stamp
from sensor_msgs.msg import Image, PointCloud2
from tolerant import TOLERANT

FAST_MAP = {"map.publish_hz": 50.0, "process_all_images": True, **TOLERANT}
DEEP = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)  # and reliable
LISTENER = """
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2

rclpy.init()
node = rclpy.create_node("listener")
deep = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
node.create_subscription(PointCloud2, "ttt3r_node/cloud_map", lambda _: None, deep)
rclpy.spin(node)
"""
TOPICS = (
    (Image, "ttt3r_node/depth/image_rect", 10),
    (PointCloud2, "ttt3r_node/points", 10),
    (PointCloud2, "ttt3r_node/cloud_map", LATCHED),
)


@pytest.fixture
def idle(robot) -> Iterator[Node]:
    """A node that is never spun: its subscriptions take nothing."""
    node = Node("idle", context=robot.client.context)
    yield node
    node.destroy_node()


def test_a_storm_of_subscriptions_costs_no_image_and_leaves_the_node_alive(robot, idle):
    robot.start(**FAST_MAP)
    for i in range(100):
        kind, topic, qos = TOPICS[i % len(TOPICS)]
        subscription = idle.create_subscription(kind, topic, lambda _: None, qos)
        robot.images.publish(image_message(1 + i / 20))
        if i % 2:  # the others go while the image is in work
            robot.status_at(stamp(1 + i / 20))
        idle.destroy_subscription(subscription)
    last = robot.send(at_s=6.0)
    assert (last.received, last.processed, last.images_since_reset) == (101, 101, 101)
    assert (last.replaced, last.rejected) == (0, 0)
    stamps = [status.header.stamp for status in robot.statuses.messages]
    assert stamps == [stamp(1 + i / 20) for i in range(101)]
    for kind, topic, qos in TOPICS:  # who stays gets all
        robot.listen(kind, topic, qos)
        robot.wait_until(lambda topic=topic: robot.node.count_subscribers(topic) == 1)
    depth = robot.listen_to_node(Image, "depth/image_rect")
    assert robot.send(at_s=6.05).processed == 102
    assert depth.wait().header.stamp == stamp(6.05)


@pytest.fixture
def stopped() -> Iterator[subprocess.Popen]:
    """A process that subscribes to the map, to be stopped by its user."""
    with subprocess.Popen([sys.executable, "-c", LISTENER]) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("how", ["takes nothing", "stands still"])
def test_who_never_takes_the_map_keeps_neither_images_nor_the_maps_of_others_waiting(
    robot, idle, how, request
):
    robot.start(**FAST_MAP)
    maps = robot.listen_to_node(PointCloud2, "cloud_map", LATCHED)
    if how == "takes nothing":
        idle.create_subscription(PointCloud2, "ttt3r_node/cloud_map", lambda _: None, DEEP)
    else:
        process = request.getfixturevalue("stopped")
    robot.wait_until(lambda: robot.node.count_subscribers("ttt3r_node/cloud_map") == 2)
    if how == "stands still":
        process.send_signal(signal.SIGSTOP)
    for i in range(40):
        status = robot.send(at_s=1 + i / 20)
        # What is sent after this image has reached who takes it before the next image comes.
        maps.wait(lambda message, points=status.map_points: message.width == points)
    assert (status.processed, status.replaced, status.rejected) == (40, 0, 0)
