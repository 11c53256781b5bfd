# SPDX-License-Identifier: Apache-2.0
"""How near the demonstration came to the truth, and what is said and drawn of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ttt3r_ros.clients import demo_picture as demo_picture
from ttt3r_ros.clients.demo_picture import colour_depth, depth_range, draw_picture
from ttt3r_ros.clients.demo_recording import (
    MOST_VIEWS,
    Recording,
    SpreadViews,
    View,
    along_rays,
    moved,
)
from ttt3r_ros.clients.demo_report import accuracy, errors, report
from ttt3r_ros.evaluation.map_view import BACKGROUND
from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
from ttt3r_ros.geometry import Intrinsics, inverse, optical_extrinsics, transform

CAMERA = Intrinsics(240.0, 240.0, 159.5, 119.5, 320, 240)
PERIOD_NS = 100_000_000
ANGLE = 0.7
TURN = [
    [np.cos(ANGLE), -np.sin(ANGLE), 0],
    [np.sin(ANGLE), np.cos(ANGLE), 0],
    [0, 0, 1],
]


def walk(steps: int = 5) -> list[np.ndarray]:
    """Poses in odom of a camera that goes 1 m along x in each step and looks ahead."""
    return [transform(np.eye(3), (step, 0.0, 0.0)) @ optical_extrinsics() for step in range(steps)]


def wander(steps: int = 40, error_m: float = 0.0) -> list[np.ndarray]:
    """Poses in odom along a knot, each a little beside it."""
    t = np.linspace(0, 6, steps)
    path = np.stack([np.sin(2 * t), 2 * np.sin(t) ** 2, 0.1 * np.cos(3 * t)], axis=1)
    path += np.random.default_rng(3).normal(0, 1, path.shape) * error_m
    return [transform(TURN, position) @ optical_extrinsics() for position in path]


def recording(estimated, true, T_world_odom=None) -> Recording:
    T_world_odom = np.eye(4) if T_world_odom is None else T_world_odom
    result = Recording()
    result.poses = {PERIOD_NS * i: pose for i, pose in enumerate(estimated)}
    result.true_poses = {PERIOD_NS * i: T_world_odom @ pose for i, pose in enumerate(true)}
    result.step_ms, result.latency_ms = [1.0, 2.0, 9.0], [5.0]
    result.counts = {"received": 5, "lost_estimated": 0}
    return result


def view(depth_m: float = 2.0, true_m: float = 2.0, rgb=(200, 30, 90)) -> View:
    return View(
        np.full((240, 320, 3), rgb, np.uint8),
        np.full((96, 128), depth_m, np.float32),
        np.full((96, 128), true_m, np.float32),
    )


def with_views(count: int, **fields) -> Recording:
    result = recording(wander(max(count, 2)), wander(max(count, 2)))
    for stamp in [*result.poses][:count]:
        result.add_view(stamp, view(**fields))
    return result


def said(of: Recording, what: str) -> float:
    return float(next(v for name, v in accuracy(of).items() if what in name).split()[0])


def test_the_same_path_in_another_world_has_no_error():
    same = recording(wander(), wander(), transform(TURN, (3.0, -2.0, 1.2)))
    found = errors(same)
    assert found.ate_m == pytest.approx(0, abs=1e-9)
    true = moved(same.T_odom_world_aligned(), same.paths()[1])
    np.testing.assert_allclose(true, same.paths()[0], atol=1e-9)


def test_a_walk_with_the_first_camera_laid_on_the_true_one_has_no_error_there():
    same = recording(walk(), walk(), transform(TURN, (3.0, -2.0, 1.2)))
    assert errors(same).first_m == pytest.approx(0, abs=1e-9)
    assert said(same, "length of the true path") == pytest.approx(4.0)
    at_first = moved(same.T_odom_world_at_first(), same.paths()[1])
    np.testing.assert_allclose(at_first, [(x, 0, 0) for x in range(5)], atol=1e-12)


def test_the_position_error_is_that_of_the_evaluation_of_a_bag():
    crude = recording(wander(error_m=0.3), wander(), transform(TURN, (3.0, -2.0, 1.2)))
    theirs = trajectory_errors(crude.poses.values(), crude.true_poses.values())
    found = errors(crude)
    assert 0.2 < found.ate_m == pytest.approx(theirs.by_alignment["se3"].ate_rmse_m)
    assert found.resting_ate_m == pytest.approx(theirs.guess_ate_rmse_m)


def test_the_directions_of_the_cameras_tell_how_odom_is_turned():
    turned = recording(wander(error_m=0.3), wander(), transform(TURN, (3.0, -2.0, 1.2)))
    expected = transform(TURN, np.zeros(3))
    np.testing.assert_allclose(turned.T_world_odom_by_directions(), expected, atol=1e-9)


def test_a_mirrored_path_is_not_mirrored_back():
    mirrored = recording([np.diag([1.0, -1, 1, 1]) @ pose for pose in wander()], wander())
    assert np.linalg.det(mirrored.T_odom_world_aligned()[:3, :3]) == pytest.approx(1)


def test_a_camera_that_never_moves_is_as_far_off_as_it_is_said_to_be():
    still = recording([optical_extrinsics()] * 5, walk())
    found = errors(still)
    assert found.first_m == found.resting_first_m == pytest.approx(np.sqrt(30 / 5))
    assert found.ate_m == pytest.approx(found.resting_ate_m)
    assert found.resting_ate_m == pytest.approx(np.sqrt(2))
    assert said(still, "not moving") == said(still, "ratio of these two") == 1
    assert said(still, "length of the estimated path") == 0


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

    true = along_rays(plane(CAMERA), CAMERA, seen)
    rgb = np.zeros((240, 320, 3), np.uint8)
    assert View(rgb, plane(seen), true).abs_rel() < 2e-3
    assert View(rgb, 1.1 * plane(seen), true).abs_rel() == pytest.approx(0.1, abs=2e-3)
    half = plane(seen)
    half[: seen.height // 2] = np.nan
    assert View(rgb, half, true).abs_rel() < 2e-3
    assert View(rgb, half, true).known_share() == 0.5
    assert np.isnan(View(rgb, np.nan * half, true).abs_rel())


def test_there_is_no_true_depth_beyond_the_edges_of_its_image():
    wider = Intrinsics(240.0, 240.0, 199.5, 119.5, 400, 240)
    true = along_rays(np.ones((240, 320), np.float32), CAMERA, wider)
    assert np.isnan(true[:, :40]).all() and np.isnan(true[:, 360:]).all()
    assert (true[:, 40:360] == 1).all()


@pytest.mark.parametrize("count", [1, 7, MOST_VIEWS, 10 * MOST_VIEWS + 3])
def test_views_are_kept_in_bounded_number_and_even_steps(count):
    views = SpreadViews()
    for i in range(count):
        views.add(PERIOD_NS * i, view())
        assert len(views) <= MOST_VIEWS
    assert len(views) >= min(count, MOST_VIEWS // 2)
    stamps = np.array([*views.choose(count)])
    assert len(stamps) == len(views)
    assert len(set(np.diff(stamps))) <= 1


def test_views_are_chosen_from_the_middles_of_equal_parts():
    views = SpreadViews()
    for i in range(31):
        views.add(PERIOD_NS * i, view())
    assert [stamp // PERIOD_NS for stamp in views.choose(5)] == [3, 9, 15, 21, 27]
    assert len(SpreadViews().choose(5)) == 0


def test_the_depth_error_is_the_mean_over_all_images_that_have_a_depth():
    some = with_views(3, depth_m=2.2)
    some.add_view(10**12, view(depth_m=2.6))
    some.add_view(10**12 + 1, view(depth_m=np.nan))
    assert errors(some).abs_rel == pytest.approx((3 * 0.1 + 0.3) / 4)
    assert errors(some).depth_known == pytest.approx(0.8)


def test_the_report_says_first_what_must_be_said_of_the_weights():
    run_metadata = {"device": torch.device("cpu"), "ros": "none", "seed": 1_234_567}
    text = report(recording(walk(), walk()), note="made of cheese", **run_metadata)
    assert text.index("made of cheese") < text.index("picture.png") < text.index("| received | 5 |")
    assert "| time of a step, median | 2.0 ms |" in text
    assert "none: no depth was known" in text
    assert "this room is number 1,234,567." in text
    without = report(recording(walk(), walk()), note="", **run_metadata)
    assert "Note" not in without


def test_near_depth_is_red_far_depth_is_blue_and_unknown_depth_is_dark():
    depth = np.full((10, 10), np.nan, np.float32)
    depth[:4], depth[4:8] = 0.5, 3.9
    assert depth_range([depth, depth]) == (0.5, 4)
    colours = colour_depth(depth, (0, 4)).astype(int)
    assert colours[0, 0, 0] > colours[0, 0, 2] + 100
    assert colours[5, 5, 2] > colours[5, 5, 0]
    assert (colours[9] == BACKGROUND).all()
    assert depth_range([np.full((2, 2), np.nan, np.float32)]) == (0, 1)


def test_estimated_and_true_depth_have_one_scale_of_colours():
    near, far = np.full((5, 5), 1.5, np.float32), np.full((5, 5), 6.5, np.float32)
    assert depth_range([near, far]) == depth_range([far, near]) == (1.5, 7)


def test_the_picture_shows_the_images_as_they_are():
    picture = draw_picture(with_views(20), "", voxel_m=0.05)
    image = (picture == (200, 30, 90)).all(axis=2)
    assert image.sum() == demo_picture.VIEWS * 192 * 144
    noted = draw_picture(with_views(20), "made of cheese", voxel_m=0.05)
    assert len(noted) > len(picture)


def test_the_picture_of_a_short_demonstration_shows_what_there_is():
    picture = draw_picture(with_views(2), "", voxel_m=0.05)
    assert (picture == (200, 30, 90)).all(axis=2).sum() == 2 * 192 * 144
    unknown = draw_picture(with_views(1, depth_m=np.nan), "", voxel_m=0.05)
    assert unknown.shape == picture.shape


@pytest.mark.parametrize("axes", [[0, 1, 2], [1, 0, 2]])
@pytest.mark.parametrize("pitch", [0.0, 0.2])
def test_the_map_is_drawn_level_upright_and_wide_wherever_the_first_camera_looks(axes, pitch):
    """Two high walls along the room's longer side; odom is turned by 0.7 rad and pitched."""
    side, height = np.linspace(-2, 2, 100), np.linspace(-1, 0.5, 40)
    walls = np.array([(x, y, z) for x in (-1.0, 1.0) for y in side for z in height])[:, axes]
    pitched = [[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]]
    T_odom_world = transform(np.array(TURN) @ pitched, (0.3, 0.2, 0.0))
    room = with_views(5)
    room.true_poses = {stamp: inverse(T_odom_world) @ T for stamp, T in room.poses.items()}
    room.points = moved(T_odom_world, walls).astype(np.float32)
    room.colours = np.full(room.points.shape, (255, 0, 255), np.uint8)
    picture = draw_picture(room, "", voxel_m=0.05).astype(int)
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    rows = np.flatnonzero(((red > 120) & (green < 60) & (blue > 120)).any(axis=1))
    assert 0 < len(rows) < 60  # two thin level lines


def test_without_a_view_there_is_no_picture():
    with pytest.raises(ValueError, match="no image"):
        draw_picture(recording(walk(), walk()), "", voxel_m=0.05)
