# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch
from tracked_frames import CONFIG, frames, raw_poses

from ttt3r_ros.config import ConfigError, with_values
from ttt3r_ros.geometry import Intrinsics, optical_extrinsics
from ttt3r_ros.loading import find_device, load_model
from ttt3r_ros.tracking.tracker import Tracker
from ttt3r_ros.types import Frame


def tracker(**values):
    config = with_values(CONFIG, values)
    return Tracker(load_model(config), config)


def test_poses_are_the_networks_from_a_level_first_camera():
    images = frames(4)
    subject = tracker()
    for frame, pose in zip(images, raw_poses(images), strict=True):
        result = subject.step(frame)
        np.testing.assert_allclose(result.T_odom_camera, optical_extrinsics() @ pose, atol=1e-6)
        assert (result.stamp_ns, result.segment, result.boundary_reason) == (frame.stamp_ns, 0, "")
        np.testing.assert_array_equal(result.rgb, frame.rgb)
    assert result.images_since_reset == 4 and 0 < result.mean_gain < 1


def test_a_segments_last_image_is_the_first_of_the_next_whose_poses_go_on_from_it():
    images = frames(7)
    subject = tracker(**{"segment.reset_interval": 3})
    results = [subject.step(frame) for frame in images]
    assert [result.segment for result in results] == [0, 0, 0, 1, 1, 1, 2]
    first = raw_poses(images[:3])
    base = optical_extrinsics() @ first[2]
    # The shared image was fed to the new state, whose pose of it is taken off the later ones.
    second = raw_poses(images[2:6])
    base = base @ np.linalg.inv(second[0])
    np.testing.assert_allclose(results[2].T_odom_camera, optical_extrinsics() @ first[2], atol=1e-6)
    for result, pose in zip(results[3:6], second[1:], strict=True):
        np.testing.assert_allclose(result.T_odom_camera, base @ pose, atol=1e-5)
    assert not any(result.boundary_reason for result in results)


def test_scale_multiplies_lengths_and_leaves_rotations():
    images = frames(3)
    one, two = tracker(), tracker(scale=2.0)
    for frame in images:
        plain, scaled = one.step(frame), two.step(frame)
        np.testing.assert_allclose(
            scaled.T_odom_camera[:3, 3], 2 * plain.T_odom_camera[:3, 3], atol=1e-6
        )
        np.testing.assert_allclose(
            scaled.T_odom_camera[:3, :3], plain.T_odom_camera[:3, :3], atol=1e-6
        )
        torch.testing.assert_close(scaled.points, 2 * plain.points)
    assert scaled.scale == 2.0


def test_after_a_reset_everything_is_as_at_first():
    images = frames(3)
    subject = tracker()
    first = [subject.step(frame).T_odom_camera for frame in images]
    subject.reset()
    again = [subject.step(frame).T_odom_camera for frame in images]
    np.testing.assert_array_equal(first, again)


def test_a_segment_without_shared_image_says_why_once():
    images = frames(3)
    subject = tracker()
    before = subject.step(images[0])
    subject.start_segment("a gap")
    after = subject.step(images[1])
    assert (after.segment, after.boundary_reason, subject.step(images[2]).boundary_reason) == (
        1,
        "a gap",
        "",
    )
    expected = before.T_odom_camera @ raw_poses(images[1:2])[0]
    np.testing.assert_allclose(after.T_odom_camera, expected, atol=1e-6)


def test_known_intrinsics_follow_the_image_and_unknown_ones_are_estimated():
    rgb = np.zeros((480, 640, 3), np.uint8)
    known = Intrinsics(500.0, 510.0, 319.5, 239.5, 640, 480)
    result = tracker().step(Frame(0, rgb, known))
    assert result.intrinsics == Intrinsics(100.0, 102.0, 63.5, 47.5, 128, 96)


def test_lower_precision_stays_near_and_gives_float32():
    frame = frames(1)[0]
    exact, lower = tracker().step(frame), tracker(dtype="bfloat16").step(frame)
    assert lower.points.dtype == torch.float32
    # Not the maximum: where z is near 0 the linear head's sign may flip.
    assert 0 < (lower.points - exact.points).abs().median() < 0.01
    np.testing.assert_allclose(lower.T_odom_camera, exact.T_odom_camera, atol=0.05)


def test_exact_preprocessing_is_for_process_all_images_and_fast_for_live():
    rgb = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    pictures = {
        name: tracker(process_all_images=process_all_images, preprocessing=method)
        .step(Frame(0, rgb))
        .rgb
        for name, process_all_images, method in (
            ("every", True, "auto"),
            ("exact", False, "exact"),
            ("live", False, "auto"),
            ("fast", True, "fast"),
        )
    }
    np.testing.assert_array_equal(pictures["every"], pictures["exact"])
    np.testing.assert_array_equal(pictures["live"], pictures["fast"])
    assert (pictures["exact"] != pictures["fast"]).any()


def test_an_image_size_below_a_patch_is_an_error():
    with pytest.raises(ConfigError, match="image_size: must be 0 or at least the patch size, 16"):
        tracker(image_size=8)


@pytest.mark.parametrize("name", ["cuda:99", "mps", "nonsense"])
def test_a_device_that_is_not_there_is_an_error_that_names_it(name):
    with pytest.raises(ConfigError, match=f"device: .*'{name}'"):
        find_device(name)


def test_damping_slows_the_state_down_and_is_of_ttt3r_alone():
    images = frames(2)
    gains = [
        [one.step(frame).mean_gain for frame in images] for one in (tracker(), tracker(damping=0.5))
    ]
    assert gains[1][1] == pytest.approx(0.5 * gains[0][1], rel=1e-5)
    with pytest.raises(ConfigError, match=r"damping: only .* ttt3r has one, got 0\.5 with brake"):
        tracker(update_rule="brake", damping=0.5)
