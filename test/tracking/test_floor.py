# SPDX-License-Identifier: Apache-2.0
"""The camera's height above the floor, in rooms with exact depth and with errors put on it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transforms3d.axangles import axangle2mat

from ttt3r_ros.geometry import optical_extrinsics, transform
from ttt3r_ros.simulation import make_rooms, make_trajectory, render
from ttt3r_ros.tracking.floor import floor_height

HEIGHT, WIDTH, FOCAL = 48, 64, 48.0
LENS = (FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
SEEN = 0.1  # share of an image that shows the floor, to be sure that it does


def rays(height=HEIGHT, width=WIDTH):
    """[H, W, 3] with z = 1, of a lens that is as wide at any size."""
    v, u = np.mgrid[:height, :width]
    focal = FOCAL / WIDTH * width
    x, y = (u - (width - 1) / 2) / focal, (v - (height - 1) / 2) / focal
    return np.stack((x, y, np.ones(x.shape)), axis=-1)


def found_in(points, T_level_camera, confidence=None, min_confidence=1.5):
    points = torch.as_tensor(points, dtype=torch.float32)
    confidence = torch.full(points.shape[:2], 2.0) if confidence is None else confidence
    return floor_height(points, confidence, T_level_camera, min_confidence=min_confidence)


def room_points(pose, table=None, wall_m=4.0, floor=True, **size):
    """Points that a camera at `pose` sees of a floor, a wall ahead and a table.

    Args:
        pose: T_world_camera.
        table: top, from x, to x, half width in metres; a closed box.
        wall_m: its x.
        floor: whether there is one.
        size: of the image.
    """
    directions = rays(**size) @ pose[:3, :3].T
    start = pose[:3, 3]
    depth = np.full(directions.shape[:2], 1e6)

    def meet(axis, value, inside=lambda x, y, z: True):
        with np.errstate(divide="ignore"):
            t = (value - start[axis]) / directions[..., axis]
        hit = start + t[..., None] * directions
        t = np.where((t > 0) & inside(*np.moveaxis(hit, -1, 0)), t, 1e6)
        np.minimum(depth, t, out=depth)

    meet(0, wall_m)
    if floor:
        meet(2, 0.0)
    if table is not None:
        top, begin, end, half = table
        meet(2, top, lambda x, y, z: (x > begin) & (x < end) & (np.abs(y) < half))
        meet(0, begin, lambda x, y, z: (z < top) & (z > 0) & (np.abs(y) < half))
    return rays(**size) * depth[..., None]


def standing(height_m=1.2, pitch=0.3):
    return optical_extrinsics((0, 0, height_m, 0, pitch, 0))


@pytest.fixture(scope="module", params=["robot", "handheld"])
def rooms(request):
    """Poses [N, 4, 4], exact points [N, H, W, 3] and shares of floor [N], of 20 rooms."""
    seeds = list(range(700, 720))
    batch = make_rooms(seeds)
    poses = make_trajectory(seeds, batch, request.param).pose(5.0 * torch.arange(3))
    depth = render(batch, poses, LENS, HEIGHT, WIDTH).depth_m
    poses, depth = poses.flatten(0, 1).double().numpy(), depth.flatten(0, 1).double().numpy()
    points = rays() * depth[..., None]
    heights = np.einsum("nhwj,nj->nhw", points, poses[:, 2, :3]) + poses[:, None, None, 2, 3]
    return poses, points, (np.abs(heights) < 0.01).mean(axis=(1, 2))


def errors_in(rooms, change=lambda points, i: points, tilt=0.0):
    """Relative errors [N] of the heights found, NaN where none is; where the floor is in view."""
    poses, points, share = rooms
    directions = np.random.default_rng(0).normal(size=(len(poses), 2))
    errors = []
    for i, (pose, seen) in enumerate(zip(poses, points, strict=True)):
        level = pose.copy()
        level[:3, :3] = axangle2mat((*directions[i], 0), tilt) @ pose[:3, :3]
        found = found_in(change(seen, i), level)
        errors.append(found.height / pose[2, 3] - 1 if found else np.nan)
    return np.array(errors), share >= SEEN


def noisy(points, seed):
    """With errors of 5 % of the depth, another one at each pixel."""
    noise = np.random.default_rng(seed).standard_normal((*points.shape[:2], 1))
    return points * (1 + 0.05 * noise)


def test_exact_depth_gives_the_height_wherever_a_tenth_of_the_image_is_floor(rooms):
    errors, visible = errors_in(rooms)
    assert visible.sum() >= 15
    assert np.isfinite(errors[visible]).all()
    assert np.abs(errors[visible]).max() < 0.003


def test_where_hardly_any_floor_is_seen_hardly_any_is_found(rooms):
    errors, _ = errors_in(rooms, noisy)
    hidden = rooms[2] < 0.02
    assert hidden.sum() >= 5
    assert np.isfinite(errors[hidden]).mean() < 0.15


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_noise_of_5_percent_and_any_unit_leave_the_height_right(rooms, factor):
    errors, visible = errors_in(rooms, lambda points, i: factor * noisy(points, i))
    heights = (1 + errors[visible]) / factor
    assert np.isfinite(heights).mean() >= 0.95
    assert np.nanmedian(np.abs(heights - 1)) < 0.015
    assert np.nanpercentile(np.abs(heights - 1), 90) < 0.05


def test_a_level_that_is_3_degrees_off_does_little_harm(rooms):
    errors, visible = errors_in(rooms, noisy, tilt=np.radians(3))
    assert np.isfinite(errors[visible]).mean() >= 0.95
    assert np.nanmedian(np.abs(errors[visible])) < 0.06
    assert abs(np.nanmedian(errors[visible])) < 0.03


def shown(points, pose, height_m):
    """Share of the pixels that show something at this height."""
    heights = (points @ pose[:3, :3].T + pose[:3, 3])[..., 2]
    return (np.abs(heights - height_m) < 1e-6).mean()


def test_a_table_twice_as_large_as_what_is_seen_of_the_floor_does_not_pass_for_it():
    pose = standing(pitch=0.4)
    points = room_points(pose, table=(0.75, 0.5, 2.4, 0.4))
    assert shown(points, pose, 0.75) > 2 * shown(points, pose, 0.0) > 0.2
    for seed in range(5):
        found = found_in(noisy(points, seed), pose)
        assert found.height == pytest.approx(1.2, rel=0.02)
        assert found.spread == pytest.approx(0.05, rel=0.25)


def test_a_table_above_a_floor_too_small_to_be_sure_of_is_not_taken_for_it():
    pose = standing()
    points = room_points(pose, table=(0.75, 0.6, 2.2, 0.6))
    assert shown(points, pose, 0.75) > 0.3
    assert 0.03 < shown(points, pose, 0.0) < 0.06
    assert found_in(points, pose) is None


def test_walls_are_no_floor():
    for pitch in (0.0, 0.3, 0.8):
        for yaw in (0.0, 0.7):
            pose = optical_extrinsics((0, 0, 1.2, 0, pitch, yaw))
            for seed in range(3):
                points = noisy(room_points(pose, wall_m=1.0, floor=False), seed)
                assert found_in(points, pose) is None


def test_a_slope_of_20_degrees_is_no_floor():
    pose = standing(pitch=0.5)
    slope = transform(axangle2mat((0, 1, 0), np.radians(20)), np.zeros(3))
    points = room_points(pose, wall_m=9.0)
    assert found_in(points, pose).height == pytest.approx(1.2, rel=1e-3)
    assert found_in(points, slope @ pose) is None


def test_the_share_of_the_floor_is_given():
    pose = standing()
    points = room_points(pose)
    share = shown(points, pose, 0.0)
    assert found_in(points, pose).share == pytest.approx(share, abs=0.06)


def test_a_large_image_is_sampled():
    pose = standing()
    for size in ((384, 512), (240, 320), (60, 80)):
        points = noisy(room_points(pose, height=size[0], width=size[1]), 0)
        assert found_in(points, pose).height == pytest.approx(1.2, rel=0.03)


def test_points_that_are_not_good_do_not_count():
    pose = standing()
    points = torch.as_tensor(room_points(pose), dtype=torch.float32)
    confidence = torch.full((HEIGHT, WIDTH), 2.0)
    points[:, :5] = torch.nan
    points[:, 5:8] = torch.inf
    points[:, 8:10] *= -1
    points[:, 10:20] *= 1.5
    confidence[:, 10:20] = 1.1
    found = found_in(points, pose, confidence)
    assert found.height == pytest.approx(1.2, rel=0.005)
    assert found_in(points, pose, torch.ones(HEIGHT, WIDTH)) is None
    assert found_in(torch.full_like(points, torch.nan), pose) is None
    assert found_in(torch.zeros_like(points), pose) is None


def test_nothing_is_changed_by_yaw_and_place():
    points = noisy(room_points(standing()), 1)
    turned = transform(axangle2mat((0, 0, 1), 1.1), (5, -3, 8)) @ standing()
    assert found_in(points, turned).height == pytest.approx(
        found_in(points, standing()).height, rel=1e-6
    )


def test_wrong_shapes_are_named():
    points, confidence = torch.ones(HEIGHT, WIDTH, 3), torch.ones(HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"points: expected \[H, W, 3\], got \[64, 3\]"):
        floor_height(points[0], confidence, np.eye(4), min_confidence=1.0)
    with pytest.raises(ValueError, match=r"confidence: expected \[48, 64\], got \[64\]"):
        floor_height(points, confidence[0], np.eye(4), min_confidence=1.0)
    with pytest.raises(ValueError, match=r"T_level_camera: expected \[4, 4\], got \[3, 3\]"):
        floor_height(points, confidence, np.eye(3), min_confidence=1.0)
