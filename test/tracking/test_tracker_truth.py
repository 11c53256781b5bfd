# SPDX-License-Identifier: Apache-2.0
"""What the tracker makes of a network that says nothing but the truth, in a unit of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from honest_network import (
    CAMERA_HEIGHT_M,
    FOCAL,
    WIDTH,
    HonestNetwork,
    honest_tracker,
    level_pose,
)
from transforms3d.euler import euler2mat

from ttt3r_ros.geometry import inverse, rotation_vector, transform
from ttt3r_ros.types import TrackingState

PERIOD_NS = 100_000_000
METRIC = {"scale_source": "camera_height", "camera_height_m": CAMERA_HEIGHT_M}


def way(images):
    """Poses of a camera that goes ahead and turns a little."""
    return [level_pose(0.03 * i, 0.01 * i, 0.01 * i) for i in range(images)]


def test_focal_lengths_seen_in_images_of_another_size_do_not_count():
    network = HonestNetwork()
    subject = honest_tracker(network)
    poses = way(8)
    before = [subject.step(network.frame(i * PERIOD_NS, poses[i])) for i in range(5)]
    after = [
        subject.step(network.frame(i * PERIOD_NS, poses[i], height=64, focal=2 * FOCAL))
        for i in range(5, 8)
    ]
    assert [r.intrinsics.fx for r in before] == pytest.approx([FOCAL] * 5, rel=1e-3)
    assert [r.intrinsics.fx for r in after] == pytest.approx([2 * FOCAL] * 3, rel=1e-3)


@pytest.mark.parametrize("height", [96, 64])
def test_estimated_intrinsics_lead_the_points_back_to_their_pixels(height):
    network = HonestNetwork()
    result = honest_tracker(network).step(network.frame(0, level_pose(), height=height))
    lens = result.intrinsics
    assert (lens.width, lens.height) == (WIDTH, height)
    x, y, z = result.points.double().numpy().reshape(-1, 3).T
    row, column = np.mgrid[:height, :WIDTH].reshape(2, -1)
    np.testing.assert_allclose(lens.fx * x / z + lens.cx, column, atol=0.05)
    np.testing.assert_allclose(lens.fy * y / z + lens.cy, row, atol=0.05)


def test_a_scale_that_becomes_known_is_no_jump_of_the_camera():
    """The signals compare each image with the last one, which was in another unit."""
    network = HonestNetwork(unit_m=0.1)
    subject = honest_tracker(network, **METRIC)
    results = [subject.step(network.frame(i * PERIOD_NS, T)) for i, T in enumerate(way(30))]
    known = next(i for i, r in enumerate(results) if r.scale != 1.0)
    assert results[-1].scale == pytest.approx(0.1, rel=0.01) and 5 < known < 20
    assert [(r.state, r.reason) for r in results[known - 1 :]] == [(TrackingState.TRACKING, "")] * (
        31 - known
    )


def carried_back(network, **values):
    """A camera that looks up more and more, then is carried in the dark to where it began.

    Returns what is known of the images before the dark, and of those after the first in the light.
    """
    subject = honest_tracker(network, **values)
    raised = [pitched(T, 0.05 * i) for i, T in enumerate(way(12))]
    light = [*way(20), *raised]
    before = [subject.step(network.frame(i * PERIOD_NS, T)) for i, T in enumerate(light)]
    dark = network.frame(len(light) * PERIOD_NS, light[-1])
    assert subject.step(replace(dark, rgb=np.zeros_like(dark.rgb))).state is TrackingState.LOST
    later = (len(light) + 1) * PERIOD_NS
    after = [subject.step(network.frame(later + i * PERIOD_NS, T)) for i, T in enumerate(way(16))]
    assert after[0].state is TrackingState.LOST  # nothing like the dark
    assert after[1].boundary_reason.endswith("relocalized")
    assert degrees(after[1].T_map_odom) > 25  # odom goes on from the camera that looked up
    return before, after[1:]


def pitched(T, angle):
    return T @ transform(euler2mat(angle, 0, 0), (0.0, 0.0, 0.0))


def degrees(T):
    return float(np.degrees(np.linalg.norm(rotation_vector(T))))


def test_after_a_place_is_recognized_the_network_goes_on_from_the_keyframes_state():
    before, after = carried_back(HonestNetwork())
    T_map_world = before[0].T_map_camera @ inverse(way(1)[0])
    for result, T_world_camera in zip(after, way(16)[1:], strict=True):
        assert result.is_localized
        # In a new state the camera would stand where that begins.
        np.testing.assert_allclose(result.T_map_camera, T_map_world @ T_world_camera, atol=0.02)


def test_the_floor_is_level_in_the_map_whatever_odom_takes_to_be_level():
    before, after = carried_back(HonestNetwork(unit_m=0.5), **METRIC)
    assert before[-1].scale == pytest.approx(0.5, rel=0.02)
    assert np.isnan(after[0].scale_log_spread)  # samples are taken anew
    assert after[-1].scale_log_spread < 0.05  # and found
    assert after[-1].scale == pytest.approx(0.5, rel=0.02)
