# SPDX-License-Identifier: Apache-2.0
"""How near the demonstration came to the truth, and what is said and drawn of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ttt3r_ros.evaluation.demo_picture import colour_depth, draw_picture, farthest
from ttt3r_ros.evaluation.demo_report import Recording, accuracy, depth_error, report
from ttt3r_ros.evaluation.map_view import BACKGROUND
from ttt3r_ros.geometry import Intrinsics, optical_mount, transform

CAMERA = Intrinsics(240.0, 240.0, 159.5, 119.5, 320, 240)
PERIOD_NS = 100_000_000


def walk(steps: int = 5) -> list[np.ndarray]:
    """Poses in odom of a camera that goes 1 m along x in each step and looks ahead."""
    return [transform(np.eye(3), (step, 0.0, 0.0)) @ optical_mount() for step in range(steps)]


def recording(estimated, true, T_world_odom=None) -> Recording:
    T_world_odom = np.eye(4) if T_world_odom is None else T_world_odom
    result = Recording()
    result.poses = {PERIOD_NS * i: pose for i, pose in enumerate(estimated)}
    result.true_poses = {PERIOD_NS * i: T_world_odom @ pose for i, pose in enumerate(true)}
    result.step_ms, result.latency_ms = [1.0, 2.0, 9.0], [5.0]
    result.counts = {"received": 5, "lost_estimated": 0}
    return result


def value(of: Recording, what: str) -> float:
    return float(next(v for name, v in accuracy(of).items() if what in name).split()[0])


def test_the_same_path_in_another_world_has_no_error():
    angle = 0.7
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    same = recording(walk(), walk(), transform(turn, (3.0, -2.0, 1.2)))
    assert value(same, "position error") == 0
    assert value(same, "length of the true path") == pytest.approx(4.0)
    np.testing.assert_allclose(same.paths()[1], [(x, 0, 0) for x in range(5)], atol=1e-12)


def test_a_camera_that_never_moves_is_as_far_off_as_it_is_said_to_be():
    still = recording([optical_mount()] * 5, walk())
    assert value(still, "position error") == pytest.approx(np.sqrt(30 / 5), abs=1e-3)
    assert value(still, "never moves") == value(still, "position error")
    assert value(still, "ratio") == 1.0
    assert value(still, "length of the estimated path") == 0


def test_only_images_with_both_poses_are_compared():
    some = recording(walk(), walk(3))
    assert len(some.paths()[0]) == len(some.paths()[1]) == 3


def test_a_rate_is_that_of_the_stamps():
    assert recording(walk(), walk()).rate_hz() == pytest.approx(10.0)
    assert Recording().rate_hz() == 0


@pytest.mark.parametrize(
    "seen",
    [
        Intrinsics(96.0, 96.0, 63.5, 47.5, 128, 96),  # smaller
        Intrinsics(224.0, 224.0, 111.5, 111.5, 224, 224),  # and cut to a square
        CAMERA,
    ],
)
def test_depth_is_compared_along_the_same_rays(seen):
    def plane(camera):
        """Depth of a plane that is 2 m away in the middle and farther to the right."""
        u = (np.arange(camera.width) - camera.cx) / camera.fx
        return np.tile(2 / (1 - 0.5 * u), (camera.height, 1)).astype(np.float32)

    assert depth_error(plane(seen), seen, plane(CAMERA), CAMERA) < 2e-3
    assert depth_error(1.1 * plane(seen), seen, plane(CAMERA), CAMERA) == pytest.approx(
        0.1, abs=2e-3
    )
    half = plane(seen)
    half[: seen.height // 2] = np.nan
    assert depth_error(half, seen, plane(CAMERA), CAMERA) < 2e-3
    assert np.isnan(depth_error(np.nan * half, seen, plane(CAMERA), CAMERA))


def test_the_report_says_first_what_must_be_said_of_the_weights():
    text = report(
        recording(walk(), walk()), note="made of cheese", device=torch.device("cpu"), ros="none"
    )
    assert text.index("made of cheese") < text.index("picture.png") < text.index("| received | 5 |")
    assert "| time of a step, median | 2.0 ms |" in text
    assert "none: no depth was known" in text
    without = report(recording(walk(), walk()), note="", device=torch.device("cpu"), ros="none")
    assert "Note" not in without


def test_near_depth_is_red_far_depth_is_blue_and_unknown_depth_is_dark():
    depth = np.full((10, 10), np.nan, np.float32)
    depth[:4], depth[4:8] = 0.5, 4.0
    colours = colour_depth(depth).astype(int)
    assert farthest(depth) == 4
    assert colours[0, 0, 0] > colours[0, 0, 2] + 100
    assert colours[5, 5, 2] > colours[5, 5, 0]
    assert (colours[9] == BACKGROUND).all()
    assert (colour_depth(np.full((2, 2), np.nan, np.float32)) == BACKGROUND).all()


def test_the_picture_shows_the_image_as_it_is():
    shown = recording(walk(), walk())
    shown.rgb = np.full((240, 320, 3), (200, 30, 90), np.uint8)
    shown.depth_m = np.ones((96, 128), np.float32)
    picture = draw_picture(shown, "", voxel_m=0.05)
    image = (picture == (200, 30, 90)).all(axis=2)
    assert image.sum() == 480 * 360
    assert len(draw_picture(shown, "made of cheese", voxel_m=0.05)) > len(picture)


def test_without_an_image_there_is_no_picture():
    with pytest.raises(ValueError, match="no image"):
        draw_picture(recording(walk(), walk()), "", voxel_m=0.05)
