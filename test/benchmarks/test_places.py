# SPDX-License-Identifier: Apache-2.0
"""Rooms that look alike, and the truth that goes with them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import places as subject
from benchmarks.streams import Studio
from ttt3r_ros.evaluation.metrics.true_surface import depth_points, room_distance

SEED, WIDTH, IMAGES = 950_001, 48, 12


def rooms_of(places):
    """The second room, and what brings points of its world to that of `Rooms`."""
    first, back = Studio(SEED, WIDTH).rooms, np.eye(4)
    back[0, 3] = -1000.0
    if places == "other":
        return Studio(SEED + 500_000, WIDTH).rooms, back
    if places == "alike":
        return subject._rearranged(first), back
    return first, np.diag([1.0, -1.0, 1.0, 1.0]) @ back


@pytest.mark.parametrize("places", ["other", "alike", "mirrored"])
def test_depth_and_pose_of_each_room_agree_with_its_walls(places):
    lens = Studio(SEED, WIDTH).lens
    images = list(subject.stream(SEED, WIDTH, IMAGES, places))
    assert [seen.room for seen in images] == [0] * 4 + [1] * 4 + [0] * 4
    first, (second, T_second_world) = Studio(SEED, WIDTH).rooms, rooms_of(places)
    for seen in images:
        T = T_second_world @ seen.T_world_camera if seen.room else seen.T_world_camera
        points = depth_points(seen.depth_m, lens, T)
        off_m = np.abs(room_distance(second if seen.room else first, points))
        assert np.quantile(off_m, 0.9) < 0.01
    assert np.linalg.det(images[5].T_world_camera[:3, :3]) == pytest.approx(1.0)


def test_the_robot_is_carried_between_rooms_and_goes_elsewhere_when_it_is_back():
    images = list(subject.stream(SEED, WIDTH, IMAGES, "mirrored"))
    steps_s = np.diff([seen.stamp_ns for seen in images]) * 1e-9
    np.testing.assert_allclose(steps_s, [0.1] * 3 + [3.1] + [0.1] * 3 + [3.1] + [0.1] * 3)
    places = np.array([seen.T_world_camera[:3, 3] for seen in images])
    assert np.abs(places[4:8, 0] - 1000).max() < 10 and np.abs(places[8:, 0]).max() < 10
    assert not np.allclose(places[:4], places[8:])


def test_one_room_is_driven_through_without_a_break():
    images = list(subject.stream(SEED, WIDTH, 5, "one"))
    assert {seen.room for seen in images} == {0} and len(images) == 5
