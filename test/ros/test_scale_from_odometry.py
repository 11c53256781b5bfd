# SPDX-License-Identifier: Apache-2.0
"""The node takes its scale from an odometry topic."""

from __future__ import annotations

import math

import pytest
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from robot import picture, stamp
from tf2_msgs.msg import TFMessage
from tolerant import TOLERANT

from ttt3r_ros.config import ConfigError

ODOM = {
    "scale_source": "odom",
    "scale_max_log_spread": 10.0,  # random weights say little of the path
    "process_all_images": True,
    "base_frame": "base",
    "camera_pose": [0.2, 0.0, 1.0, 0.0, 0.0, 0.0],
}


def odometry(at_s, x, frame):
    message = Odometry(child_frame_id=frame)
    message.header.stamp = stamp(at_s)
    message.header.frame_id = "wheels"
    message.pose.pose.position.x = x
    return message


def edge(at_s, x, frame):
    message = TransformStamped(child_frame_id=frame)
    message.header.stamp = stamp(at_s)
    message.header.frame_id = "wheels"
    message.transform.translation.x = x
    return TFMessage(transforms=[message])


def drive(robot, frame, images=40, *, tf=False):
    """Send images along a straight path at 1 m/s and return the last status."""
    kind, topic, say = (TFMessage, "/tf", edge) if tf else (Odometry, "odometry", odometry)
    wheels = robot.client.create_publisher(kind, topic, 1000)
    robot.wait_until(lambda: wheels.get_subscription_count() > 0)
    statuses = []
    for i in range(images):
        at_s = 1 + 0.1 * i
        wheels.publish(say(at_s, 0.1 * i, frame))
        statuses.append(robot.send(at_s=at_s, rgb=picture(i)))
    assert statuses[0].scale == 1.0 and math.isnan(statuses[0].scale_log_spread)
    return statuses[-1]


def test_a_robots_odometry_gives_the_scale(robot):
    robot.start(**ODOM, **TOLERANT)
    status = drive(robot, "base")
    assert status.processed == 40
    assert math.isfinite(status.scale_log_spread)
    assert status.scale > 0 and status.scale != 1.0


def test_so_does_tf(robot):
    # The base has a parent already, so the node must not be one.
    robot.start(robot_odom_frame="wheels", publish_odom_tf=False, **ODOM, **TOLERANT)
    status = drive(robot, "base", tf=True)
    assert math.isfinite(status.scale_log_spread)
    assert status.scale > 0 and status.scale != 1.0


def test_the_nodes_own_frame_is_no_odometry(robot, capfd):
    with pytest.raises(
        ConfigError, match="robot_odom_frame: 'odom' is the frame this node publishes"
    ):
        robot.start(robot_odom_frame="odom", **ODOM)


def test_an_odometry_of_another_frame_is_not_used(robot):
    robot.start(**ODOM, **TOLERANT)
    status = drive(robot, "wheel_left")
    assert (status.processed, status.scale) == (40, 1.0)
    assert math.isnan(status.scale_log_spread)
