# SPDX-License-Identifier: Apache-2.0
"""True depth beside the node: of a raw camera it loses the distortion, as the images do."""

from __future__ import annotations

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo
from test_node_camera import HEIGHT, LENSES, WIDTH, lens_info

from ttt3r_ros.camera_info import CameraModel
from ttt3r_ros.evaluation.metrics.depth import DepthComparison
from ttt3r_ros.ros.live_client import LiveClient
from ttt3r_ros.ros.live_depth import LiveDepth


@pytest.mark.parametrize(("depth_topic", "is_raw"), [("depth/image", 1), ("depth/image_rect", 0)])
def test_true_depth_is_rectified_unless_it_is_called_so(robot, tmp_path, depth_topic, is_raw):
    with DepthComparison(tmp_path) as comparison:
        depth = LiveDepth(comparison)
        names = ("ttt3r_node", "front/image/compressed", "", depth_topic)
        client = LiveClient(*names, depth, context=robot.client.context)
        client.search_depth.topic = client.search_depth.wanted  # as once it is published
        robot.spin(client)
        infos = robot.client.create_publisher(CameraInfo, "front/camera_info", 1)
        robot.wait_until(lambda: infos.get_subscription_count() > 0)
        message = lens_info(*LENSES["plumb_bob"])
        infos.publish(message)
        robot.wait_until(lambda: client.camera.wait(0.0))
        raw = np.random.default_rng(0).uniform(1, 5, (HEIGHT, WIDTH)).astype(np.float32)
        camera = CameraModel("image")
        camera.update(message)
        expected = camera.apply_to_depth(raw) if is_raw else raw
        np.testing.assert_array_equal(depth.rectified(raw), expected)
        assert np.array_equal(expected, raw) is not bool(is_raw)
