# SPDX-License-Identifier: Apache-2.0
"""Cameras that stop, change or jump in time, and several of them on one machine."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from clouds import colours
from nav_msgs.msg import Odometry
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from robot import camera_info_message, image_message, picture, stamp
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from small_network import small_checkpoint
from tf2_msgs.msg import TFMessage
from tolerant import TOLERANT

from ttt3r_ros.msg import TrackingStatus
from ttt3r_ros.ros.node import TTT3RNode

RELIABLE = QoSProfile(depth=100)


def restart_camera(robot):
    robot.client.destroy_publisher(robot.images)
    robot.wait_until(lambda: robot.node.count_publishers("/image") == 0)
    robot.images = robot.client.create_publisher(Image, "image", RELIABLE)
    robot.meet()


@pytest.mark.parametrize(("pause_s", "segment"), [(1.0, 0), (60.0, 1)])
def test_a_camera_driver_may_end_and_come_back(robot, pause_s, segment):
    robot.start(**TOLERANT)
    odometry = robot.listen_to_node(Odometry, "odom")
    before = robot.send(at_s=1.0)
    restart_camera(robot)
    after = robot.send(at_s=1.0 + pause_s)
    assert (after.processed, after.images_since_reset, after.segment) == (2, 2, segment)
    assert after.map_points >= before.map_points  # the map stays
    assert after.message == ("" if segment == 0 else "new segment: no image for 60.000 s")
    odometry.wait(lambda message: message.header.stamp == stamp(1.0 + pause_s))
    assert robot.send(at_s=1.1 + pause_s).segment == segment


def test_the_encoding_may_change_from_image_to_image(robot):
    robot.start(confidence__min=1.0, **TOLERANT)
    points = robot.listen_to_node(PointCloud2, "points")
    rgb = picture()
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    images = [
        ("rgb8", rgb, rgb),
        ("bgr8", np.ascontiguousarray(rgb[..., ::-1]), rgb),
        ("mono8", grey, np.repeat(grey[..., None], 3, axis=2)),
        ("bgra8", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA), rgb),
        ("rgb8", rgb, rgb),
    ]
    seen = []
    for i, (encoding, pixels, _) in enumerate(images):
        at_s = 1 + i / 10
        step = pixels.nbytes // 48
        status = robot.send(at_s=at_s, encoding=encoding, step=step, data=pixels.tobytes())
        assert (status.processed, status.rejected, status.segment) == (i + 1, 0, 0)
        cloud = points.wait(lambda message, at_s=at_s: message.header.stamp == stamp(at_s))
        seen.append(colours(cloud))
    for i in (1, 3, 4):
        np.testing.assert_array_equal(seen[i], seen[0])
    np.testing.assert_array_equal(seen[2][:, 0], seen[2][:, 2])


def test_stamps_that_jump_far_ahead_are_one_gap(robot):
    robot.start(**TOLERANT)
    robot.send(at_s=1.0)
    assert robot.send(at_s=999_999.9).rejected == 1  # it is believed with the second one
    jumped = robot.send(at_s=1_000_000.0)
    assert (jumped.segment, jumped.images_since_reset) == (1, 2)
    assert jumped.message == "new segment: no image for 999999.000 s"
    after = robot.send(at_s=1_000_000.1)
    assert (after.segment, after.images_since_reset, after.message) == (1, 3, "")
    assert after.lost_estimated == 0 and after.last_reset_reason == ""


class Camera:
    """A camera and its node, both in a namespace of their own."""

    def __init__(self, robot, name: str, **settings) -> None:
        self.robot, self.name = robot, name
        parameters = {
            "image_reliability": "reliable",
            "tf_wait_s": 0.0,
            "device": "cpu",
            "checkpoint": small_checkpoint(),
            "map.edge_filter": 0.0,
            "odom_frame": f"{name}/odom",
            "map_frame": f"{name}/map",
            **TOLERANT,
            **settings,
        }
        self.node = TTT3RNode(
            context=robot.client.context,
            namespace=name,
            parameter_overrides=[
                Parameter(name.replace("__", "."), value=value)
                for name, value in parameters.items()
            ],
        )
        robot.spin(self.node)
        assert self.node.start()
        client = robot.client
        self.images = client.create_publisher(Image, f"/{name}/image", RELIABLE)
        self.infos = client.create_publisher(CameraInfo, f"/{name}/camera_info", RELIABLE)
        self.statuses = robot.listen(TrackingStatus, f"/{name}/ttt3r_node/status")
        self.odometry = robot.listen(Odometry, f"/{name}/ttt3r_node/odom")
        for publisher in (self.images, self.infos):
            robot.wait_until(lambda publisher=publisher: publisher.get_subscription_count() == 1)
        for topic in ("status", "odom"):
            topic = f"/{name}/ttt3r_node/{topic}"
            robot.wait_until(lambda topic=topic: self.node.count_subscribers(topic) > 0)

    def send(self, at_s: float, seed: int) -> TrackingStatus:
        message = image_message(at_s, picture(seed), frame_id=f"{self.name}/optical")
        self.images.publish(message)
        return self.statuses.wait(lambda status: status.header.stamp == stamp(at_s))


def test_two_cameras_in_namespaces_do_not_hear_each_other(robot):
    tf = robot.listen(TFMessage, "/tf")
    one, two = Camera(robot, "cam1"), Camera(robot, "cam2")
    one.infos.publish(camera_info_message())
    robot.wait_until(lambda: one.node._inputs.camera._view is not None)
    for i in range(3):
        first, second = one.send(1 + i / 10, i), two.send(100 + i / 10, 10 + i)
        assert first.processed == second.processed == i + 1
        assert first.rejected == second.rejected == 0
    assert two.node._inputs.camera._view is None
    for camera, at_s in ((one, 1.2), (two, 100.2)):
        last = camera.odometry.wait(lambda m, at_s=at_s: m.header.stamp == stamp(at_s))
        name = camera.name
        assert (last.header.frame_id, last.child_frame_id) == (f"{name}/odom", f"{name}/optical")
        assert len(camera.statuses.messages) == len(camera.odometry.messages) == 3

    def edges():
        return {(e.header.frame_id, e.child_frame_id) for m in tf.messages for e in m.transforms}

    expected = {(f"{c}/map", f"{c}/odom") for c in ("cam1", "cam2")} | {
        (f"{c}/odom", f"{c}/optical") for c in ("cam1", "cam2")
    }
    robot.wait_until(lambda: edges() == expected)


OWN_FRAMES = {("cam2/map", "cam2/odom"), ("map", "odom"), ("odom", "base_link")}
ONE_TREE = {("map", "odom"), ("odom", "base_link")}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {"publish_odom_tf": False}, OWN_FRAMES),
        (
            {"publish_map_tf": False},
            {"odom_source": "tf", "odom_frame": "odom", "map_frame": "map"},
            ONE_TREE,
        ),
    ],
    ids=["publish_odom_tf", "odom_source"],
)
def test_of_two_cameras_on_one_robot_one_moves_the_base(robot, first, second, expected):
    tf = robot.listen(TFMessage, "/tf")
    robot.publish_tf(
        ("base_link", "cam1/optical", (0.1, 0.1, 0.5)),
        ("base_link", "cam2/optical", (0.1, -0.1, 0.5)),
    )
    common = {"base_frame": "base_link", "tf_wait_s": 1.0}
    one = Camera(robot, "cam1", odom_frame="odom", map_frame="map", **common, **first)
    two = Camera(robot, "cam2", **common, **second)
    for i in range(5):
        first_status, second_status = one.send(1 + i / 10, i), two.send(1 + i / 10, 10 + i)
        assert first_status.processed == second_status.processed == i + 1

    def edges():
        return {(e.header.frame_id, e.child_frame_id) for m in tf.messages for e in m.transforms}

    robot.wait_until(lambda: edges() == expected)
    assert one.images.get_subscription_count() == two.images.get_subscription_count() == 1


def test_topics_follow_remapping_and_namespace(robot):
    """With compressed images: their topic goes with `image`."""
    remaps = ["image:=/front/image_raw", "camera_info:=/front/info", "mask:=/arm", "__ns:=/robot1"]
    robot.images = robot.client.create_publisher(CompressedImage, "/front/image_raw/compressed", 10)
    robot.statuses = robot.listen(TrackingStatus, "/robot1/ttt3r_node/status")
    robot.start(
        cli_args=[x for remap in remaps for x in ("-r", remap)],
        autostart=False,
        image_transport="compressed",
    )
    # `autostart` only to have the meeting here, where the topic of the status is known.
    for transition in (robot.node.trigger_configure, robot.node.trigger_activate):
        robot.in_node(transition)
    robot.wait_until(lambda: robot.images.get_subscription_count() == 1)
    robot.wait_until(lambda: robot.node.count_subscribers("/robot1/ttt3r_node/status") == 1)
    assert {s.topic_name for s in robot.node.subscriptions} >= {
        "/front/image_raw/compressed",
        "/front/info",
        "/arm",
    }
    assert robot.client.count_subscribers("/front/image_raw") == 0
    message = CompressedImage(format="png", data=cv2.imencode(".png", picture())[1].tobytes())
    message.header.stamp, message.header.frame_id = stamp(1.0), "camera"
    assert robot.send(message).processed == 1
