# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ttt3r_ros.camera.reprojection import consistency
from ttt3r_ros.geometry import Intrinsics, inverse, transform
from ttt3r_ros.simulation import make_rooms, make_trajectory, render

HEIGHT, WIDTH = 48, 64
LENS = Intrinsics(48.0, 48.0, 31.5, 23.5, WIDTH, HEIGHT)


def unprojected(depth, lens=LENS):
    """Points [H, W, 3] of a depth image."""
    row, column = torch.meshgrid(torch.arange(lens.height), torch.arange(lens.width), indexing="ij")
    x, y = (column - lens.cx) / lens.fx * depth, (row - lens.cy) / lens.fy * depth
    return torch.stack((x, y, depth), dim=-1)


def wall(depth_m=2.0):
    return unprojected(torch.full((HEIGHT, WIDTH), depth_m))


def moved(x=0.0, y=0.0, z=0.0):
    return torch.from_numpy(transform(np.eye(3), (x, y, z)))


ONES = torch.ones(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def views():
    """Exact points of a room from two places 0.3 s apart, and the first camera in the second."""
    room = make_rooms(5)
    poses = make_trajectory(5, room).pose(torch.tensor([0.0, 0.3]))
    depth = render(room, poses, (LENS.fx, LENS.fy, LENS.cx, LENS.cy), HEIGHT, WIDTH).depth_m[0]
    first, second = poses[0].double().numpy()
    return unprojected(depth[0]), unprojected(depth[1]), torch.from_numpy(inverse(second) @ first)


def test_exact_views_of_a_room_agree_and_with_a_wrong_pose_they_do_not(views):
    first, second, T_second_first = views
    right = consistency(first, ONES, second, T_second_first, LENS)
    wrong = consistency(first, ONES, second, moved(z=0.5) @ T_second_first, LENS)
    assert right[0] < 0.01 and right[1] > 0.8
    assert wrong[0] > 10 * right[0]


def test_it_is_what_a_plain_loop_over_the_pixels_finds(views):
    first, second, T_second_first = views
    confidence = torch.from_numpy(np.random.default_rng(0).random((HEIGHT, WIDTH))).float()
    kept = confidence >= confidence.median()
    differences = []
    for point in first[kept].double():
        x, y, z = T_second_first[:3, :3] @ point + T_second_first[:3, 3]
        column, row = (
            round(float(LENS.fx * x / z + LENS.cx)),
            round(float(LENS.fy * y / z + LENS.cy)),
        )
        if z > 0 and 0 <= column < WIDTH and 0 <= row < HEIGHT:
            differences.append(abs(math.log(z / second[row, column, 2])))
    found = consistency(first, confidence, second, T_second_first, LENS).tolist()
    assert found[0] == pytest.approx(sorted(differences)[(len(differences) - 1) // 2], abs=1e-5)
    assert found[1] == pytest.approx(len(differences) / int(kept.sum()), abs=2e-3)
    assert found[2] == pytest.approx(float(first[kept][:, 2].median()))


def test_a_wall_a_fifth_too_far_disagrees_by_a_fifth():
    found = consistency(wall(), ONES, wall(2.4), moved(), LENS).tolist()
    assert found == pytest.approx([math.log(1.2), 1.0, 2.0])


def test_the_unit_of_length_makes_no_difference_but_to_the_depth(views):
    first, second, T_second_first = views
    scaled = T_second_first.clone()
    scaled[:3, 3] *= 1000
    one = consistency(first, ONES, second, T_second_first, LENS)
    other = consistency(1000 * first, ONES, 1000 * second, scaled, LENS)
    torch.testing.assert_close(other, one * torch.tensor([1, 1, 1000]), rtol=1e-3, atol=1e-3)


def test_half_of_a_wall_is_seen_after_a_step_of_half_its_width():
    width_m = 2.0 * WIDTH / LENS.fx
    found = consistency(wall(), ONES, wall(), moved(x=width_m / 2), LENS).tolist()
    assert found[:2] == pytest.approx([0.0, 0.5], abs=1e-6)


@pytest.mark.parametrize("T", [moved(x=100.0), moved(z=-5.0)])
def test_where_nothing_is_in_view_there_is_no_disagreement_to_tell(T):
    found = consistency(wall(), ONES, wall(), T, LENS).tolist()
    assert found[:2] == [math.inf, 0]


def test_the_less_confident_half_and_points_that_are_no_numbers_do_not_matter():
    points, confidence = wall(), ONES.clone()
    points[: HEIGHT // 4] = torch.nan
    points[HEIGHT // 4 : HEIGHT // 2 - 1] *= 7
    confidence[HEIGHT // 2 - 1 :] = 5.0  # a little more than half
    found = consistency(points, confidence, wall(), moved(), LENS).tolist()
    assert found[:2] == pytest.approx([0.0, 1.0], abs=1e-6)


def test_large_images_are_sampled_to_the_same_numbers():
    lens = Intrinsics(384.0, 384.0, 255.5, 191.5, 512, 384)
    near, far = (unprojected(torch.full((384, 512), d), lens) for d in (2.0, 2.4))
    width_m = 2.0 * 512 / lens.fx
    found = consistency(near, torch.ones(384, 512), far, moved(x=width_m / 2), lens).tolist()
    assert found == pytest.approx([math.log(1.2), 0.5, 2.0], abs=0.01)


def test_shapes_that_do_not_fit_are_errors_that_name_them():
    with pytest.raises(
        ValueError, match=r"previous_confidence: expected \[48, 64\], got \[64, 48\]"
    ):
        consistency(wall(), ONES.T, wall(), moved(), LENS)
    with pytest.raises(ValueError, match=r"points: expected \[48, 64, 3\]"):
        consistency(wall()[:-1], ONES[:-1], wall()[:-1], moved(), LENS)
    with pytest.raises(ValueError, match=r"T_camera_previous: expected \[4, 4\]"):
        consistency(wall(), ONES, wall(), moved()[:3], LENS)


def test_depth_behind_the_camera_disagrees_as_much_as_can_be():
    found = consistency(wall(), ONES, wall(-2.0), moved(), LENS).tolist()
    assert found[:2] == pytest.approx([math.log(1000), 1.0])
