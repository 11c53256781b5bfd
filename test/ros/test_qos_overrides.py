# SPDX-License-Identifier: Apache-2.0
"""Quality of service from parameters, as other nodes see it over DDS."""

from __future__ import annotations

import pytest
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy
from robot import LATCHED, Robot
from sensor_msgs.msg import Image, PointCloud2

from ttt3r_ros.config import ConfigError

WITHOUT_OVERRIDES = {"/tf", "/tf_static", "/parameter_events"}  # tf2's and rclpy's own


def subscriptions(robot, topic):
    return [
        info.qos_profile
        for info in robot.client.get_subscriptions_info_by_topic(topic)
        if info.node_name == "ttt3r_node"
    ]


def subscription(robot, topic):
    (found,) = subscriptions(robot, topic)
    return found


def publisher(robot, topic):
    robot.wait_until(lambda: robot.client.count_publishers(topic) > 0)
    (found,) = robot.client.get_publishers_info_by_topic(topic)
    return found.qos_profile


def test_an_override_of_the_images_beats_image_reliability_and_is_theirs_alone(robot):
    overrides = {
        "qos_overrides./image.subscription.reliability": "best_effort",
        "qos_overrides./camera_info.subscription.durability": "transient_local",
    }
    robot.start(image_reliability="reliable", **overrides)
    assert subscription(robot, "/image").reliability is ReliabilityPolicy.BEST_EFFORT
    both = {DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL}  # each by its own
    masks, infos = subscriptions(robot, "/mask"), subscriptions(robot, "/camera_info")
    assert {mask.durability for mask in masks} == both
    assert [info.durability for info in infos] == [DurabilityPolicy.TRANSIENT_LOCAL] * 2
    assert {qos.reliability for qos in masks + infos} == {ReliabilityPolicy.RELIABLE}
    assert subscription(robot, "/image").durability is DurabilityPolicy.VOLATILE


def test_overrides_outlive_a_pause(robot):
    topic = "qos_overrides./image.subscription"
    robot.start(**{f"{topic}.depth": 7, f"{topic}.reliability": "best_effort"})
    for _ in range(2):
        (images, *_) = [
            subscription
            for subscription in robot.node.subscriptions
            if subscription.topic_name == "/image"
        ]
        assert images.qos_profile.depth == 7
        assert images.qos_profile.history is HistoryPolicy.KEEP_LAST
        assert subscription(robot, "/image").reliability is ReliabilityPolicy.BEST_EFFORT
        robot.in_node(robot.node.trigger_deactivate)
        robot.wait_until(lambda: robot.images.get_subscription_count() == 0)
        robot.in_node(robot.node.trigger_activate)
        robot.meet()
    assert robot.send(at_s=1.0).processed == 1


def test_publishers_have_overrides_too(robot):
    prefix = "qos_overrides./ttt3r_node"
    robot.start(
        **{
            f"{prefix}/cloud_map.publisher.durability": "volatile",
            f"{prefix}/points.publisher.reliability": "best_effort",
        }
    )
    assert publisher(robot, "/ttt3r_node/cloud_map").durability is DurabilityPolicy.VOLATILE
    points = publisher(robot, "/ttt3r_node/points")
    assert points.reliability is ReliabilityPolicy.BEST_EFFORT
    assert publisher(robot, "/ttt3r_node/odom").reliability is ReliabilityPolicy.RELIABLE


def test_an_override_of_one_node_is_not_the_next_ones_in_the_same_process(domain):
    topic = "/ttt3r_node/cloud_map"
    for overrides, durability in (
        ({f"qos_overrides.{topic}.publisher.durability": "volatile"}, DurabilityPolicy.VOLATILE),
        ({}, DurabilityPolicy.TRANSIENT_LOCAL),
    ):
        robot = Robot(domain)
        try:
            robot.start(map__publish_hz=20.0, **overrides)
            assert publisher(robot, topic).durability is durability
            if not overrides:
                robot.send(at_s=1.0)
                maps = robot.listen_to_node(PointCloud2, "cloud_map", LATCHED)
                assert maps.wait(lambda message: message.width > 0)
        finally:
            robot.shutdown()


def test_every_topic_of_the_node_can_be_overridden(robot):
    robot.start(scale_source="odom")
    names = robot.node.get_parameters_by_prefix("qos_overrides")
    topics = {name.split(".")[0] for name in names}
    assert topics >= {"/image", "/camera_info", "/mask", "/odometry", "/ttt3r_node/status"}
    published = {publisher.topic_name for publisher in robot.node.publishers}
    assert published - topics == WITHOUT_OVERRIDES
    assert published >= {"/diagnostics", "/ttt3r_node/odom", "/ttt3r_node/cloud_map"}


def test_the_diagnostics_can_be_overridden(robot):
    robot.start(**{"qos_overrides./diagnostics.publisher.reliability": "best_effort"})
    assert publisher(robot, "/diagnostics").reliability is ReliabilityPolicy.BEST_EFFORT


@pytest.mark.parametrize("topic", ["/ttt3r_node/odom", "/diagnostics"])
def test_a_wrong_override_of_a_publisher_is_an_error_at_the_start(robot, topic):
    with pytest.raises(ConfigError, match=r"qos_overrides: Unexpected QoS override .*`perhaps`"):
        robot.start(**{f"qos_overrides.{topic}.publisher.reliability": "perhaps"})


def test_a_parameter_file_names_topics_as_they_are_after_remapping(robot, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text(
        """
/**:
  ros__parameters:
    qos_overrides:
      /front/image_raw:
        subscription:
          reliability: best_effort
      /ttt3r_node/cloud_map:
        publisher:
          durability: volatile
"""
    )
    robot.images = robot.client.create_publisher(Image, "/front/image_raw", 10)
    robot.start(cli_args=["-r", "image:=/front/image_raw", "--params-file", str(file)])
    images = subscription(robot, "/front/image_raw")
    assert images.reliability is ReliabilityPolicy.BEST_EFFORT
    assert publisher(robot, "/ttt3r_node/cloud_map").durability is DurabilityPolicy.VOLATILE


def test_a_wrong_override_is_one_error_and_the_node_does_not_become_active(robot, capfd):
    robot.start(**{"qos_overrides./image.subscription.reliability": "perhaps"})
    assert not robot.started
    assert robot.images.get_subscription_count() == 0
    assert capfd.readouterr().err.count("cannot activate: Unexpected QoS override") == 1
