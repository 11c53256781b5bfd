# SPDX-License-Identifier: Apache-2.0
"""What the worker does with an image after its pose has gone out."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
from robot import PATIENCE_S, image_message, stamp
from sensor_msgs.msg import Image, PointCloud2
from tf2_msgs.msg import TFMessage

from ttt3r_ros.mapping.voxel_map import VoxelMap


@pytest.fixture
def held_map(monkeypatch):
    """Images that come into the map when they are released."""
    insert, entered, released = VoxelMap.insert, threading.Event(), threading.Event()

    def held(self, *args):
        entered.set()
        assert released.wait(PATIENCE_S)
        insert(self, *args)

    monkeypatch.setattr(VoxelMap, "insert", held)
    yield SimpleNamespace(entered=entered, released=released)
    released.set()


def stamped(at_s):
    return lambda message: message.transforms[0].header.stamp == stamp(at_s)


def test_a_pose_waits_neither_for_its_image_in_the_map_nor_for_the_one_before(robot, held_map):
    poses = robot.listen(TFMessage, "/tf")
    robot.start()
    robot.wait_until(lambda: robot.node.count_subscribers("/tf") > 0)
    robot.images.publish(image_message(1.0))
    poses.wait(stamped(1.0))
    assert held_map.entered.wait(PATIENCE_S)
    robot.images.publish(image_message(1.1))
    poses.wait(stamped(1.1))
    assert robot.statuses.messages == []
    held_map.released.set()
    first, second = robot.status_at(stamp(1.0)), robot.status_at(stamp(1.1))
    assert (first.processed, second.processed) == (1, 2)
    assert 0 < first.map_points < second.map_points
    assert [status.received for status in robot.statuses.messages] == [1, 2]


def test_a_reset_leaves_nothing_of_an_image_that_was_still_on_its_way_into_the_map(robot, held_map):
    poses = robot.listen(TFMessage, "/tf")
    robot.start()
    robot.wait_until(lambda: robot.node.count_subscribers("/tf") > 0)
    robot.images.publish(image_message(1.0))
    poses.wait(stamped(1.0))
    assert held_map.entered.wait(PATIENCE_S)
    assert robot.call("reset").success
    held_map.released.set()
    after = robot.send(at_s=1.1)
    assert after.images_since_reset == 1
    alone = robot.send(at_s=0.1)  # older: all begins once more, with the same picture
    assert (alone.images_since_reset, alone.map_points) == (1, after.map_points)


def test_statuses_come_in_the_order_of_the_images_the_rejected_too(robot, held_map):
    robot.start()
    robot.images.publish(image_message(1.0))
    assert held_map.entered.wait(PATIENCE_S)
    robot.images.publish(image_message(1.1, encoding="none"))
    robot.wait_until(lambda: robot.node._worker._activation.counter.counts().rejected == 1)
    held_map.released.set()
    robot.status_at(stamp(1.1))
    stamps = [status.header.stamp for status in robot.statuses.messages]
    assert stamps == [stamp(1.0), stamp(1.1)]


def test_an_error_after_the_pose_costs_the_rest_of_that_image_alone(robot, monkeypatch):
    robot.start()
    depth = robot.listen_to_node(Image, "depth/image_rect")
    poses = robot.listen(TFMessage, "/tf")
    robot.wait_until(lambda: robot.node.count_subscribers("/tf") > 0)
    monkeypatch.setattr(VoxelMap, "insert", lambda *_: 1 / 0)
    robot.images.publish(image_message(1.0))
    poses.wait(stamped(1.0))
    robot.wait_until(lambda: robot.node._worker._output._last is not None)
    robot.wait_until(robot.node._worker._output._last.done)
    monkeypatch.undo()
    assert robot.send(at_s=1.1).processed == 2
    assert depth.wait().header.stamp == stamp(1.1)


def test_nothing_is_made_that_nobody_listens_to(robot, monkeypatch):
    robot.start()
    images = ("depth", "confidence", "rgb", "camera_info")
    for name in ("odometry", "map_pose", *images, "points", "map", "graph"):
        monkeypatch.setattr(f"ttt3r_ros.ros.outputs.{name}_message", lambda *_: 1 / 0)
    assert robot.send(at_s=1.0).processed == 1
    monkeypatch.undo()
    points = robot.listen_to_node(PointCloud2, "points")
    robot.send(at_s=1.1)
    assert points.wait().header.stamp == stamp(1.1)
