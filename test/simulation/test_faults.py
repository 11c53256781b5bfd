# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from ttt3r_ros.simulation import make_rooms, make_trajectory
from ttt3r_ros.simulation.faults import (
    PICTURE_FAULTS,
    blurred,
    covered,
    frozen,
    kidnapped,
    lights_off,
    pure_noise,
    turned,
)

FIRST, STOP = 2, 5


@pytest.fixture
def rgb():
    """Seven pictures of stripes and patches."""
    rough = np.random.default_rng(0).integers(0, 256, (7, 6, 8, 3), np.uint8)
    return rough.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize("fault", PICTURE_FAULTS.values(), ids=PICTURE_FAULTS)
def test_a_fault_is_where_it_should_be_and_the_same_at_every_call(fault, rgb):
    before = rgb.copy()
    found = fault(rgb, FIRST, STOP, 3)
    np.testing.assert_array_equal(rgb, before)
    np.testing.assert_array_equal(found, fault(rgb, FIRST, STOP, 3))
    changed = (found != rgb).any(axis=(1, 2, 3))
    assert changed.tolist() == [FIRST <= i < STOP for i in range(7)]
    assert found.dtype == np.uint8 and found.shape == rgb.shape


@pytest.mark.parametrize("fault", [covered, lights_off, pure_noise])
def test_what_is_random_is_another_with_another_seed(fault, rgb):
    assert (fault(rgb, FIRST, STOP, 3) != fault(rgb, FIRST, STOP, 4)).any()


@pytest.mark.parametrize(("first", "stop"), [(0, 3), (3, 3), (4, 2), (2, 8)])
def test_a_fault_outside_of_the_pictures_is_an_error(first, stop, rgb):
    with pytest.raises(ValueError, match=f"1 <= first < stop <= 7, got {first}, {stop}"):
        frozen(rgb, first, stop)


def test_a_covered_lens_is_dark_and_shows_nothing_but_noise(rgb):
    part = covered(rgb, FIRST, STOP, 0)[FIRST:STOP].astype(float)
    assert part.mean() < 20
    assert 1 < part.std() < 3
    assert part.mean(axis=0).std() < 2  # no picture stays


def test_with_the_lights_off_the_picture_is_there_at_3_percent(rgb):
    part = lights_off(np.full_like(rgb, 200), FIRST, STOP, 0)[FIRST:STOP]
    assert part.mean() == pytest.approx(6, abs=0.1)


def test_noise_is_new_in_each_picture_and_spreads_over_all_values(rgb):
    part = pure_noise(rgb, FIRST, STOP, 0)[FIRST:STOP].astype(float)
    assert part.mean() == pytest.approx(127.5, abs=2)
    assert part.std() == pytest.approx(256 / 12**0.5, rel=0.02)
    assert abs(np.corrcoef(part[0].ravel(), part[1].ravel())[0, 1]) < 0.05


def test_a_frozen_camera_repeats_its_last_picture(rgb):
    found = frozen(rgb, FIRST, STOP)
    for i in range(FIRST, STOP):
        np.testing.assert_array_equal(found[i], rgb[FIRST - 1])


def test_blur_is_the_mean_over_a_quarter_of_the_width(rgb):
    found = blurred(rgb, FIRST, STOP)
    reach = 8  # of 64 pixels to either side
    columns = np.clip(np.arange(-reach, reach + 1) + 20, 0, 63)
    expected = rgb[FIRST][:, columns].astype(float).mean(axis=1)
    np.testing.assert_allclose(found[FIRST][:, 20], expected, atol=0.51)
    edge = rgb[FIRST][:, np.clip(np.arange(-reach, reach + 1), 0, 63)].astype(float).mean(axis=1)
    np.testing.assert_allclose(found[FIRST][:, 0], edge, atol=0.51)


@pytest.fixture(scope="module")
def rooms():
    return make_rooms([3, 4])


@pytest.fixture(scope="module")
def path(rooms):
    return make_trajectory([3, 4], rooms)


def test_a_turned_camera_stands_where_it_stood_and_looks_back(path):
    poses = path.pose(torch.arange(4) / 10)
    found = turned(poses, 2)
    assert torch.equal(found[:, :2], poses[:, :2])
    assert torch.equal(found[..., :3, 3], poses[..., :3, 3])
    forward, back = poses[:, 2:, :3, 2], found[:, 2:, :3, 2]
    torch.testing.assert_close(back[..., :2], -forward[..., :2])
    torch.testing.assert_close(back[..., 2], forward[..., 2])  # as high or low
    assert torch.linalg.det(found[..., :3, :3]).allclose(torch.ones(2, 4))


def test_a_kidnapped_camera_is_far_away_at_once_inside_the_room_and_moves_on(rooms, path):
    t_s = torch.arange(6, dtype=torch.float64) / 10
    poses = path.pose(t_s)
    found = kidnapped(path, t_s, 3)
    assert torch.equal(found[:, :3], poses[:, :3])
    place, before = found[:, 3:, :3, 3], poses[:, 3:, :3, 3]
    assert ((place - before)[:, 0].norm(dim=-1) > 0.5).all()
    assert (place[..., :2] > rooms.free_low[:, None, :2]).all()
    assert (place[..., :2] < rooms.free_high[:, None, :2]).all()
    assert (place.diff(dim=1).norm(dim=-1) < 0.11).all()  # 1 m/s at most
