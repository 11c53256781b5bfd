# SPDX-License-Identifier: Apache-2.0
"""True depth beside the node: of a raw camera it loses the distortion, as the images do."""

from __future__ import annotations

import numpy as np
import pytest
from lenses import LENSES, RAYS, K, P, lens_info, picture_of
from sensor_msgs.msg import CameraInfo

from ttt3r_ros.clients.live_client import LiveClient
from ttt3r_ros.clients.live_depth import LiveDepth
from ttt3r_ros.evaluation.metrics.depth import DepthComparison


@pytest.mark.parametrize(("depth_topic", "is_raw"), [("depth/image", 1), ("depth/image_rect", 0)])
def test_true_depth_is_rectified_unless_it_is_called_so(robot, tmp_path, depth_topic, is_raw):
    with DepthComparison(tmp_path) as comparison:
        depth = LiveDepth(comparison, examples=0, step=1)
        names = ("ttt3r_node", "front/image/compressed", "", depth_topic)
        client = LiveClient(*names, depth, context=robot.client.context)
        client.search_depth.topic = client.search_depth.wanted  # as once it is published
        robot.spin(client)
        infos = robot.client.create_publisher(CameraInfo, "front/camera_info", 1)
        robot.wait_until(lambda: infos.get_subscription_count() > 0)
        infos.publish(lens_info(*LENSES["plumb_bob"]))
        robot.wait_until(lambda: client.camera.wait(0.0))
        # Something near where each ray falls through the lens, or through the pinhole camera.
        lens, matrix = (LENSES["plumb_bob"], K) if is_raw else (LENSES["none"], P)
        bright = picture_of(RAYS, *lens, matrix)[..., 0] > 120
        rectified_m = depth.rectified(np.where(bright, 2, 5).astype(np.float32))
        for ray in RAYS:
            expected = (P @ ray)[:2]
            row, column = np.argwhere(rectified_m == 2).T
            near = np.hypot(column - expected[0], row - expected[1]) < 7
            found = column[near].mean(), row[near].mean()
            np.testing.assert_allclose(found, expected, atol=0.5)
        assert is_raw or np.array_equal(rectified_m == 2, bright)
