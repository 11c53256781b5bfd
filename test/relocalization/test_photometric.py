# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transforms3d.axangles import axangle2mat

from ttt3r_ros.geometry import Intrinsics, inverse, rotation_vector, transform
from ttt3r_ros.relocalization.photometric import align, correlation
from ttt3r_ros.simulation import make_rooms, make_trajectory, render

HEIGHT, WIDTH = 48, 64
LENS = Intrinsics(48.0, 48.0, 31.5, 23.5, WIDTH, HEIGHT)
SEEDS = (2_400_100, 2_400_102, 2_400_103, 2_400_105)


def unprojected(depth):
    row, column = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    x, y = (column - LENS.cx) / LENS.fx * depth, (row - LENS.cy) / LENS.fy * depth
    return torch.stack((x, y, depth.expand_as(x)), dim=-1)


@pytest.fixture(scope="module")
def rooms():
    """Two views of each room 0.5 s apart: colours, points, and the first camera in the second."""
    room = make_rooms(SEEDS)
    poses = make_trajectory(SEEDS, room).pose(torch.tensor([0.0, 0.5]))
    rgb, depth = render(room, poses, (LENS.fx, LENS.fy, LENS.cx, LENS.cy), HEIGHT, WIDTH)
    points = torch.stack([unprojected(d) for d in depth[:, 0]])
    first, second = poses.double().unbind(dim=1)
    T_second_first = torch.linalg.inv(second) @ first
    return 255 * rgb[:, 0], points, 255 * rgb[:, 1], T_second_first


def errors(found, truth):
    off = inverse(truth.numpy()) @ found.double().numpy()
    return float(np.linalg.norm(off[:3, 3])), math.degrees(np.linalg.norm(rotation_vector(off)))


def test_the_pose_of_a_second_view_is_found_from_the_first_ones(rooms):
    rgb, points, pictures, truth = rooms
    for k in range(len(SEEDS)):
        found, photometric_correlation = align(
            torch.eye(4)[None], points[k, None], rgb[k, None], pictures[k], LENS
        )
        before = correlation(
            torch.eye(4)[None],
            points[k, None].flatten(1, 2),
            rgb[k, None].flatten(1, 2),
            pictures[k].permute(2, 0, 1)[None],
            LENS,
        )
        metres, degrees = errors(found[0], truth[k])
        assert metres < 0.05 and degrees < 1, (metres, degrees)
        assert float(photometric_correlation) > max(0.93, float(before))


def test_guesses_are_improved_each_by_itself(rooms):
    rgb, points, pictures, truth = rooms
    off = torch.from_numpy(transform(axangle2mat((0, 1, 0), 0.1), (0.1, 0.0, 0.05)))
    guesses = torch.stack((truth[0], off @ truth[0], torch.eye(4).double()))
    same = (points[0].expand(3, -1, -1, -1), rgb[0].expand(3, -1, -1, -1))
    together, photometric_correlation = align(guesses, *same, pictures[0], LENS)
    for k in range(3):
        alone, alike = align(guesses[k, None], same[0][:1], same[1][:1], pictures[0], LENS)
        torch.testing.assert_close(together[k], alone[0], atol=1e-3, rtol=0)
        torch.testing.assert_close(photometric_correlation[k], alike[0], atol=1e-3, rtol=0)
        assert errors(together[k], truth[0])[0] < 0.03


def test_brightness_and_contrast_make_no_difference(rooms):
    rgb, points, pictures, _ = rooms
    guess = torch.eye(4)[None]
    one, alike = align(guess, points[:1], rgb[:1], pictures[0], LENS)
    other, still_alike = align(guess, points[:1], 0.5 * rgb[:1] + 40, pictures[0], LENS)
    torch.testing.assert_close(one, other, atol=1e-3, rtol=0)
    torch.testing.assert_close(alike, still_alike, atol=1e-4, rtol=0)


def test_the_unit_of_length_makes_no_difference(rooms):
    rgb, points, pictures, _ = rooms
    guess = torch.eye(4)[None]
    one, alike = align(guess, points[:1], rgb[:1], pictures[0], LENS)
    other, still_alike = align(guess, 1000 * points[:1], rgb[:1], pictures[0], LENS)
    other[:, :3, 3] /= 1000
    torch.testing.assert_close(one, other, atol=2e-3, rtol=0)
    torch.testing.assert_close(alike, still_alike, atol=1e-3, rtol=0)


def test_another_room_is_not_alike_from_wherever_it_is_seen(rooms):
    rgb, points, pictures, _ = rooms
    for k in range(len(SEEDS)):
        picture = pictures[(k + 1) % len(SEEDS)]
        _, photometric_correlation = align(
            torch.eye(4)[None], points[k, None], rgb[k, None], picture, LENS
        )
        assert not float(photometric_correlation) > 0.7


def test_points_that_are_no_numbers_or_not_in_view_do_no_harm(rooms):
    rgb, points, pictures, truth = rooms
    broken = points[:1].clone()
    broken[:, :10] = torch.nan
    broken[:, 10:12] = torch.inf
    found, photometric_correlation = align(torch.eye(4)[None], broken, rgb[:1], pictures[0], LENS)
    assert errors(found[0], truth[0])[0] < 0.05 and float(photometric_correlation) > 0.9
    behind = torch.from_numpy(transform(np.eye(3), (0, 0, -100.0)))[None]
    _, photometric_correlation = align(behind, points[:1], rgb[:1], pictures[0], LENS)
    assert not float(photometric_correlation) > 0
