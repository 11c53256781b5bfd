# SPDX-License-Identifier: Apache-2.0
"""What is where on a map drawn from above."""

from __future__ import annotations

import numpy as np
import pytest

from ttt3r_ros.evaluation.map_view import BACKGROUND, TEXT, draw_from_above

SIZE = 400
PX_PER_M = 0.88 * SIZE / 4  # of a view of four metres, with margins
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
# Fixes the view to x and y from -2 to 2; its one vertex pair lies far from what is looked at.
CORNERS = (np.array([[-2.0, -2.0, 0.0], [-2.0, 2.0, 0.0], [2.0, 2.0, 0.0]]), (9, 9, 9), "")


def draw(points, colours, paths=(CORNERS,), **options):
    points = np.array(points, np.float32).reshape(-1, 3)
    colours = np.array(colours, np.uint8).reshape(-1, 3)
    return draw_from_above(points, colours, paths, options.pop("size", (SIZE, SIZE)), **options)


def pixel(x, y):
    """Row and column of the pixel at a place in metres."""
    return int(SIZE / 2 - PX_PER_M * x), int(SIZE / 2 - PX_PER_M * y)


def places(picture, colour):
    return np.argwhere((picture == colour).all(axis=2))


@pytest.mark.parametrize(("x", "y"), [(0.55, 0.55), (1.15, -0.75), (-0.95, 0.25), (-0.35, -1.45)])
def test_a_point_is_drawn_where_it_is_with_x_up_and_y_left(x, y):
    red = draw([(x, y, 0.0)], RED, point_m=0.1)[..., 0] - draw([], [])[..., 0].astype(float)
    row, column = np.mgrid[0.5:SIZE, 0.5:SIZE]
    found = [(red * row).sum() / red.sum(), (red * column).sum() / red.sum()]
    np.testing.assert_allclose(found, [SIZE / 2 - PX_PER_M * x, SIZE / 2 - PX_PER_M * y], atol=0.3)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_points_above_one_another_the_highest_is_seen(order):
    points = np.array([(0.51, 0.52, -1.0), (0.53, 0.51, 0.1), (0.52, 0.53, 0.4)])[[*order]]
    picture = draw(points, np.array([RED, GREEN, BLUE])[[*order]], point_m=0.1)
    red, green, blue = picture[pixel(0.55, 0.55)]
    assert blue > 150
    assert max(red, green) < 30


def test_points_above_the_ceiling_height_are_left_out():
    points, colours = [(0.55, 0.55, 0.79), (0.55, 0.55, 0.81)], [RED, BLUE]
    assert draw(points, colours, point_m=0.1)[pixel(0.55, 0.55)][2] < 60
    assert draw(points, colours, point_m=0.1, ceiling_m=1.0)[pixel(0.55, 0.55)][2] > 150


@pytest.mark.parametrize("voxel_m", [0.004, 0.03, 0.05, 0.17])
def test_a_floor_with_a_point_in_every_voxel_has_no_holes(voxel_m):
    steps = np.arange(-1.0, 1.0, voxel_m)
    x, y = np.meshgrid(steps, steps)
    points = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    points[:, :2] = (np.floor(points[:, :2] / voxel_m) + 0.5) * voxel_m
    points += np.random.default_rng(0).uniform(-0.45, 0.45, points.shape) * voxel_m * [1, 1, 0]
    picture = draw(points, np.full(points.shape, 200), point_m=voxel_m)
    top, left = pixel(0.8, 0.8)
    bottom, right = pixel(-0.8, -0.8)
    assert (picture[top:bottom, left:right] == 200).all()


@pytest.mark.parametrize("angle", [0.1, 0.4, 0.78])
def test_a_floor_of_voxels_that_was_turned_has_no_holes(angle):
    voxel_m = 0.05
    x, y = np.mgrid[-1.5:1.5:voxel_m, -1.5:1.5:voxel_m]
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    floor = np.stack([x, y, np.zeros_like(x)], axis=-1).reshape(-1, 3)
    points = np.concatenate([floor @ np.transpose(turn), floor - [0, 0, 0.3]])
    colours = np.repeat([(200, 200, 200), RED], len(floor), axis=0)
    top, left = pixel(0.8, 0.8)
    bottom, right = pixel(-0.8, -0.8)
    for shown in (slice(len(floor)), slice(None)):  # alone, and above something red
        picture = draw(points[shown], colours[shown], point_m=voxel_m)
        assert (picture[top:bottom, left:right] == 200).all()


def test_a_map_with_pits_may_be_larger_than_the_view():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 1, (100_000, 3)) * [1, 1, 0.2]
    picture = draw(points, np.full(points.shape, 200), [])
    assert (picture[0] > 60).any() and (picture[-1] > 60).any()


def test_the_view_holds_all_paths_and_leaves_few_far_points_out():
    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, (1000, 3)) * [1, 1, 0.1]
    points[:10] = (500.0, -500.0, 0.0)
    path = np.array([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    picture = draw(points, np.full(points.shape, 200), [(path, BLUE, "")])
    blue = places(picture, BLUE)
    # From x = -1 to x = 3 the view is high, less the margins of 6 percent; the path has a ring at
    # its lower end and a disc at its upper one.
    assert np.ptp(blue[:, 0]) == pytest.approx(0.88 * SIZE * 3 / 4 + 12 + 4, abs=8)
    assert blue[:, 0].min() == pytest.approx(0.06 * SIZE - 4, abs=4)


def test_a_path_is_drawn_through_its_positions_over_the_points():
    path = np.array([[-1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [1.0, 1.0, 5.0]])
    ground = [(-1.0, y, 0.5) for y in np.arange(-1, 1, 0.05)]
    picture = draw(ground, [RED] * len(ground), [CORNERS, (path, GREEN, "")])
    for place in ((-1.0, 0.5), (-1.0, 0.0), (0.0, 1.0), (1.0, 1.0)):
        assert tuple(picture[pixel(*place)]) == GREEN


def test_a_wide_view_holds_what_is_wide():
    path = np.array([[0.0, -4.0, 0.0], [1.0, 4.0, 0.0]])
    picture = draw([], [], [(path, BLUE, "")], size=(SIZE // 2, SIZE))
    assert picture.shape == (SIZE // 2, SIZE, 3)
    blue = places(picture, BLUE)
    assert np.ptp(blue[:, 1]) == pytest.approx(0.88 * SIZE + 12 + 4, abs=8)
    assert np.ptp(blue[:, 0]) == pytest.approx(0.88 * SIZE / 8 + 12 + 4, abs=8)


def test_a_path_begins_with_a_ring_and_ends_with_a_disc():
    path = np.array([[-1.5, -1.5, 0.0], [1.5, 1.5, 0.0]])
    picture = draw([], [], [CORNERS, (path, GREEN, "")])
    for place, across_the_line in (((-1.5, -1.5), 12), ((1.5, 1.5), 0)):
        row, column = pixel(*place)
        # Along the normal of the line, that is towards lower rows and columns.
        step = round(across_the_line / np.sqrt(2))
        assert tuple(picture[row - step, column - step]) == GREEN


def test_a_mark_covers_the_path_and_says_its_number():
    path = np.array([[-1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])
    plain = draw([], [], [CORNERS, (path, GREEN, "")])
    marked, other = (
        draw([], [], [CORNERS, (path, GREEN, "")], marks=[(np.array([-1.0, 0.3, 0.0]), text)])
        for text in ("1", "2")
    )
    row, column = pixel(-1.0, 0.3)
    changed = np.argwhere((marked != plain).any(axis=2))
    assert np.abs(changed - (row, column)).max() <= 14
    assert not (marked[row - 2 : row + 3, column - 4 : column + 5] == GREEN).all(axis=2).any()
    assert (marked != other).any()


def test_paths_with_a_name_are_in_the_legend():
    nowhere = np.empty((0, 3))
    named = draw([], [], [CORNERS, (nowhere, BLUE, "estimated path")])
    nameless = draw([], [], [CORNERS, (nowhere, BLUE, "")])
    assert len(places(named[: SIZE // 4, : SIZE // 4], BLUE)) > 20
    assert not len(places(nameless, BLUE))


@pytest.mark.parametrize(("extent_m", "bar_m"), [(4.0, 1), (20.0, 5), (900.0, 200)])
def test_the_scale_bar_is_as_long_as_it_says(extent_m, bar_m):
    path = np.array([[-0.5, -0.5, 0.0], [0.5, 0.5, 0.0]]) * extent_m
    picture = draw([], [], [(path, BLUE, "")])
    rows = [places(picture[row : row + 1], TEXT)[:, 1] for row in range(SIZE - 15, SIZE)]
    longest = max((np.ptp(row) for row in rows if len(row)), default=0)
    assert longest == pytest.approx(bar_m * 0.88 * SIZE / extent_m, abs=4)


def test_points_that_are_not_finite_are_left_out():
    points = [(np.nan, 0.0, 0.0), (0.0, np.inf, 0.0), (0.0, 0.0, -np.inf), (0.5, 0.5, 0.0)]
    colours = [RED, RED, RED, GREEN]
    np.testing.assert_array_equal(draw(points, colours), draw(points[3:], colours[3:]))


def test_without_points_and_paths_there_is_an_empty_map():
    picture = draw([], [], [])
    assert picture.shape == (SIZE, SIZE, 3)
    assert picture.dtype == np.uint8
    assert (picture[: SIZE // 2] == BACKGROUND).all()


def test_points_without_colours_are_refused():
    with pytest.raises(ValueError, match=r"\[4, 3\], \[3, 3\]"):
        draw_from_above(np.zeros((4, 3), np.float32), np.zeros((3, 3), np.uint8), [], (SIZE, SIZE))
