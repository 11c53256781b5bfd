# SPDX-License-Identifier: Apache-2.0
"""The shipped model in the running node, over DDS, in a room that it has never seen.

The node gets images and intrinsics alone. What it publishes is compared with the truth, which
only this test knows.
"""

from __future__ import annotations

import numpy as np
import pytest
from nav_msgs.msg import Odometry
from robot import camera_info_message, image_message
from sensor_msgs.msg import CameraInfo, Image
from unseen_room import (
    LEAST_KNOWN,
    MOST_ABS_REL,
    MOST_ABS_REL_OF_A_CONSTANT,
    MOST_ATE_OF_A_RESTING_CAMERA,
    PERIOD_NS,
    abs_rel,
    ate_of_a_resting_camera,
    film,
)

from ttt3r_ros.geometry import Intrinsics, transform_from_quaternion

IMAGES = 32


def test_depth_and_poses_that_are_published_are_near_the_truth(robot):
    filmed = film(IMAGES)
    robot.start(checkpoint="", process_all_images=True)
    depths = robot.listen_to_node(Image, "depth/image_rect")
    infos = robot.listen_to_node(CameraInfo, "depth/camera_info")
    odometry = robot.listen_to_node(Odometry, "odom")
    publisher = robot.client.create_publisher(CameraInfo, "camera_info", 1)
    robot.wait_until(lambda: publisher.get_subscription_count() > 0)
    publisher.publish(info_message(filmed.camera))

    for i, rgb in enumerate(filmed.rgb):
        status = robot.send(image_message(1 + i * PERIOD_NS / 1e9, rgb))
    robot.wait_until(lambda: len(depths.messages) == len(odometry.messages) == IMAGES)
    assert (status.received, status.processed) == (IMAGES, IMAGES)

    info = infos.messages[-1]
    seen = Intrinsics(info.k[0], info.k[4], info.k[2], info.k[5], info.width, info.height)
    assert seen.fx / seen.width == pytest.approx(filmed.camera.fx / filmed.camera.width)
    depth_m = np.stack([pixels(message) for message in depths.messages])
    true_m = filmed.depth_seen(seen)
    constant = np.full_like(true_m, np.median(true_m))
    assert np.isfinite(depth_m).mean() > LEAST_KNOWN
    error = abs_rel(depth_m, true_m)
    assert error < MOST_ABS_REL
    share = error / abs_rel(constant, true_m)
    assert share < MOST_ABS_REL_OF_A_CONSTANT

    # The camera's frame is not connected to any robot, so it is the base itself.
    poses = np.stack([pose(message) for message in odometry.messages])
    share = ate_of_a_resting_camera(poses, filmed.poses)
    assert share < MOST_ATE_OF_A_RESTING_CAMERA


def info_message(camera: Intrinsics) -> CameraInfo:
    message = camera_info_message(camera.width, camera.height)
    message.k = camera.matrix().flatten()
    message.p = np.pad(camera.matrix(), ((0, 0), (0, 1))).flatten()
    return message


def pixels(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.float32).reshape(message.height, message.width)


def pose(message: Odometry) -> np.ndarray:
    p, q = message.pose.pose.position, message.pose.pose.orientation
    return transform_from_quaternion((p.x, p.y, p.z), (q.w, q.x, q.y, q.z))
