# SPDX-License-Identifier: Apache-2.0
"""Over real DDS: frames of odd names, and others who say where odom is."""

from __future__ import annotations

import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from robot import image_message, stamp
from tf2_msgs.msg import TFMessage
from tolerant import TOLERANT

from ttt3r_ros.config import ConfigError


def say(robot, parent, child, at_s=1.0):
    """Publish a transform on /tf as somebody else."""
    publisher = robot.client.create_publisher(TFMessage, "/tf", 100)
    robot.wait_until(lambda: publisher.get_subscription_count() > 0)
    edge = TransformStamped(child_frame_id=child)
    edge.header.frame_id, edge.header.stamp = parent, stamp(at_s)
    edge.transform.translation.x = 7.0
    publisher.publish(TFMessage(transforms=[edge]))


@pytest.mark.parametrize("parent", ["map", "world"])
def test_somebody_elses_parent_of_odom_is_an_error_and_the_node_deactivates(robot, parent, capfd):
    robot.start(**TOLERANT)
    diagnoses = robot.listen(DiagnosticArray, "/diagnostics")
    for i in range(3):  # its own are no offence
        assert robot.send(at_s=1 + i / 10).processed == i + 1
    say(robot, parent, "odom", 1.2)
    robot.wait_until(lambda: robot.images.get_subscription_count() == 0)
    told = f"deactivated: somebody else publishes {parent} -> odom too"
    assert capfd.readouterr().err.count(told) == 1
    diagnoses.wait(
        lambda m: m.status[0].level == DiagnosticStatus.ERROR and told in m.status[0].message
    )


def test_a_static_parent_of_odom_from_the_start_is_one_too(robot):
    robot.publish_tf(("world", "odom", (1.0, 0.0, 0.0)))
    robot.start(autostart=False, **TOLERANT)
    for transition in (robot.node.trigger_configure, robot.node.trigger_activate):
        robot.in_node(transition)
    diagnoses = robot.listen(DiagnosticArray, "/diagnostics")
    diagnoses.wait(lambda m: "world -> odom" in m.status[0].message)


def test_without_map_to_odom_of_its_own_the_node_minds_nobody(robot):
    robot.start(publish_map_tf=False, **TOLERANT)
    say(robot, "map", "odom")
    robot.hear_tf(("map", "odom"))
    for i in range(2):
        assert robot.send(at_s=1 + i / 10).processed == i + 1


def test_odd_frames_beside_the_camera_cost_no_image(robot):
    robot.publish_tf(
        ("base_link", "camera", (0.1, 0.0, 0.5)),
        ("world", "tag #3", (0.0, 0.0, 0.0)),
        ("Bob's", "wand", (0.0, 0.0, 0.0)),
        ("a: b", "c: d", (0.0, 0.0, 0.0)),
    )
    robot.start(**TOLERANT)
    status = robot.send(at_s=1.0, frame_id="/camera")
    assert (status.processed, status.rejected) == (1, 0)
    assert robot.node._worker.base_frame == "base_link"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (dict(frame_id="map"), "header.frame_id: 'map' is a frame that this node publishes"),
        (dict(frame_id="/odom"), "header.frame_id: 'odom' is a frame that this node publishes"),
        (dict(frame_id="x" * 300), "header.frame_id: must be printable and of at most 255"),
        (dict(frame_id="cam\n[ERROR] forged"), "header.frame_id: must be printable"),
    ],
)
def test_a_frame_that_can_be_no_cameras_is_rejected_by_name(robot, fields, reason):
    robot.start(**TOLERANT)
    assert reason in robot.send(at_s=1.0, **fields).message
    assert robot.send(at_s=1.1).processed == 1


@pytest.mark.parametrize("time", [Time(sec=1, nanosec=10**9), Time(sec=-5), Time(sec=2**31 - 1)])
def test_a_stamp_that_is_none_is_rejected_and_the_node_is_no_rival_of_its_own(robot, time):
    robot.start(**TOLERANT)
    message = image_message(1.0)
    message.header.stamp = time
    assert "header.stamp: sec must be" in robot.send(message).message
    assert robot.send(at_s=1.1).processed == 1


@pytest.mark.parametrize("frames", [("map", "map"), ("", "odom"), ("map", "")])
def test_map_and_odom_are_two_frames(robot, frames):
    with pytest.raises(ConfigError, match="map_frame, odom_frame: must be two frames"):
        robot.start(map_frame=frames[0], odom_frame=frames[1])
