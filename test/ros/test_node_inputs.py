# SPDX-License-Identifier: Apache-2.0
"""Over real DDS: messages that fail, and those that were sent before anybody listened."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lenses import LENSES, lens_info
from rclpy.context import Context
from rclpy.node import Node
from robot import LATCHED, camera_info_message, image_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tolerant import TOLERANT

from ttt3r_ros.camera.camera_info import CameraModel


def diagnosis(robot, predicate):
    return (
        robot.listen(DiagnosticArray, "/diagnostics")
        .wait(lambda message: predicate(message.status[0]))
        .status[0]
    )


def values_of(status):
    return {item.key: item.value for item in status.values}


def mask_message(at_s=0.0):
    return image_message(at_s, encoding="mono8", step=64, data=b"\xff" * 64 * 48)


def test_a_message_that_raises_is_named_and_counted_and_the_node_goes_on(robot, monkeypatch):
    def update(self, info):
        raise MemoryError

    monkeypatch.setattr(CameraModel, "update", update)
    robot.start(**TOLERANT)
    infos = robot.client.create_publisher(CameraInfo, "camera_info", 10)
    robot.wait_until(lambda: infos.get_subscription_count() > 0)
    infos.publish(camera_info_message())
    status = diagnosis(robot, lambda s: "MemoryError" in s.message)
    assert "/camera_info: a message could not be taken: MemoryError (1 in all)" in status.message
    assert values_of(status)["messages that failed"] == "1"
    assert robot.send(at_s=1.0).processed == 1


def test_a_camera_info_of_an_impossible_size_leaves_images_as_they_are(robot):
    robot.start(**TOLERANT)
    infos = robot.client.create_publisher(CameraInfo, "camera_info", 10)
    robot.wait_until(lambda: infos.get_subscription_count() > 0)
    huge = lens_info(*LENSES["plumb_bob"])
    huge.width = huge.height = 2**31
    huge.k = [2.0**31, 0.0, 2.0**30, 0.0, 2.0**31, 2.0**30, 0.0, 0.0, 1.0]
    huge.p = [0.0] * 12
    infos.publish(huge)
    robot.wait_until(lambda: robot.node._inputs.camera._values != ())
    for i in range(2):
        assert robot.send(at_s=1 + i / 10).processed == i + 1


@pytest.mark.parametrize("transition", ["activate", "configure"])
def test_what_was_sent_once_is_heard_and_kept(robot, transition):
    infos = robot.client.create_publisher(CameraInfo, "camera_info", LATCHED)
    masks = robot.client.create_publisher(Image, "mask", LATCHED)
    infos.publish(camera_info_message())
    masks.publish(mask_message())
    robot.start(confidence__min=1.0, **TOLERANT)
    robot.wait_until(lambda: robot.node._inputs.camera.in_use and robot.node._inputs.masks.in_use)
    for publisher in (infos, masks):
        robot.client.destroy_publisher(publisher)
    node = robot.node
    down, up = [node.trigger_deactivate], [node.trigger_activate]
    if transition == "configure":
        down, up = [*down, node.trigger_cleanup], [node.trigger_configure, *up]
    for change in down + up:
        robot.in_node(change)
    robot.meet()
    cameras = robot.listen_to_node(CameraInfo, "depth/camera_info")
    status = robot.send(at_s=1.0)
    assert (status.processed, status.map_points) == (1, 0)
    assert cameras.wait().k[0] == pytest.approx(120.0)  # twice as large
    values = values_of(diagnosis(robot, lambda s: True))
    assert values["camera_info"] == "64x48, f 60 60, c 31.5 23.5, no lens undone"
    assert values["mask"] == "64x48, 100.0% of it"


def test_a_mask_that_comes_by_both_ways_is_one(robot):
    robot.start(**TOLERANT)
    masks = robot.client.create_publisher(Image, "mask", LATCHED)
    robot.wait_until(lambda: masks.get_subscription_count() == 2)
    for i in range(3):
        masks.publish(mask_message(1 + i / 10))
        robot.wait_until(lambda i=i: len(robot.node._inputs.masks._masks) == i + 1)
    robot.send(at_s=2.0)
    assert len(robot.node._inputs.masks._masks) == 3


def test_images_that_come_by_another_transport_are_told(robot):
    context = Context()  # one participant of DDS cannot have both types
    context.init(domain_id=robot.client.context.get_domain_id())
    camera = Node("camera", context=context)
    camera.create_publisher(CompressedImage, "/cam/compressed", 10)
    robot.start(cli_args=["-r", "image:=/cam/compressed"], autostart=False)
    for transition in (robot.node.trigger_configure, robot.node.trigger_activate):
        robot.in_node(transition)
    status = diagnosis(robot, lambda s: "publishes" in s.message)
    camera.destroy_node()
    context.shutdown()
    assert (
        "/cam/compressed publishes CompressedImage: set image_transport to compressed"
        in status.message
    )


def test_a_rectified_topic_is_one_by_whatever_rule_it_was_remapped(robot):
    topic = "/c/image_rect/compressed"
    robot.start(
        cli_args=["-r", f"image/compressed:={topic}"],
        autostart=False,
        image_transport="compressed",
    )
    camera = robot.node._inputs.camera
    camera.update(lens_info(*LENSES["plumb_bob"]))
    assert robot.node._inputs.image_topic == topic and "no lens undone" in camera.in_use
