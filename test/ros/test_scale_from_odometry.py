# SPDX-License-Identifier: Apache-2.0
"""The node takes its scale from an odometry topic."""

from __future__ import annotations

import math

from nav_msgs.msg import Odometry
from robot import picture, stamp
from tolerant import TOLERANT

ODOM = {
    "scale_source": "odom",
    "max_scale_spread": 10.0,  # random weights say little of the path
    "every_frame": True,
    "base_frame": "base",
    "camera_pose": [0.2, 0.0, 1.0, 0.0, 0.0, 0.0],
}


def odometry(at_s, x, frame):
    message = Odometry(child_frame_id=frame)
    message.header.stamp = stamp(at_s)
    message.header.frame_id = "wheels"
    message.pose.pose.position.x = x
    return message


def drive(robot, frame, images=40):
    """Send images along a straight path at 1 m/s and return the last status."""
    wheels = robot.client.create_publisher(Odometry, "odometry", 1000)
    robot.wait_until(lambda: wheels.get_subscription_count() > 0)
    statuses = []
    for i in range(images):
        at_s = 1 + 0.1 * i
        wheels.publish(odometry(at_s, 0.1 * i, frame))
        statuses.append(robot.send(at_s=at_s, rgb=picture(i)))
    assert statuses[0].scale == 1.0 and math.isnan(statuses[0].scale_spread)
    return statuses[-1]


def test_a_robots_odometry_gives_the_scale(robot):
    robot.start(**ODOM, **TOLERANT)
    status = drive(robot, "base")
    assert status.processed == 40
    assert math.isfinite(status.scale_spread)
    assert status.scale > 0 and status.scale != 1.0


def test_an_odometry_of_another_frame_is_not_used(robot):
    robot.start(**ODOM, **TOLERANT)
    status = drive(robot, "wheel_left")
    assert (status.processed, status.scale) == (40, 1.0)
    assert math.isnan(status.scale_spread)
