# SPDX-License-Identifier: Apache-2.0
"""Poses between the poses of an odometry."""

from __future__ import annotations

import numpy as np
import pytest
from transforms3d.euler import euler2mat, mat2euler

from ttt3r_ros.geometry import transform
from ttt3r_ros.tracking.odometry_buffer import OdometryBuffer

MS = 1_000_000


def pose(x, yaw=0.0):
    return transform(euler2mat(0, 0, yaw), (x, 0, 0))


def buffer_with(*stamps_ms, **more):
    """Poses whose x is the stamp in milliseconds."""
    buffer = OdometryBuffer(**more)
    for stamp in stamps_ms:
        buffer.add(stamp * MS, pose(float(stamp)))
    return buffer


def x_at(buffer, stamp_ms):
    found = buffer.at(round(stamp_ms * MS))
    return None if found is None else pytest.approx(found[0, 3])


def test_between_two_poses_the_robot_moves_and_turns_evenly():
    buffer = OdometryBuffer()
    buffer.add(100 * MS, pose(1.0, yaw=3.0))
    buffer.add(200 * MS, pose(2.0, yaw=3.4))  # across half a turn
    for share in (0.0, 0.25, 0.5, 1.0):
        found = buffer.at(round((100 + 100 * share) * MS))
        assert found[0, 3] == pytest.approx(1 + share)
        yaw = mat2euler(found[:3, :3])[2]
        assert np.cos(yaw - 3.0 - 0.4 * share) == pytest.approx(1)


def test_a_robot_that_does_not_turn_keeps_its_attitude():
    buffer = OdometryBuffer()
    buffer.add(0, pose(1.0, yaw=0.7))
    buffer.add(100 * MS, pose(2.0, yaw=0.7))
    np.testing.assert_allclose(buffer.at(30 * MS), pose(1.3, yaw=0.7), atol=1e-12)


def test_nothing_is_said_outside_of_what_is_known_and_across_a_gap():
    buffer = buffer_with(0, 100, 351, 601)
    assert x_at(OdometryBuffer(), 0) is None
    assert x_at(buffer, -1) is None
    assert x_at(buffer, 602) is None
    assert x_at(buffer, 200) is None
    assert x_at(buffer, 100) == 100
    assert x_at(buffer, 351) == 351
    assert x_at(buffer, 400) == 400


def test_late_poses_are_put_in_their_place():
    buffer = buffer_with(0, 300, 200, 100, 1100, 101)
    assert x_at(buffer, 50) == 50
    assert x_at(buffer, 150) == 150
    assert x_at(buffer, 250) == 250


def test_of_poses_with_one_stamp_the_last_counts():
    buffer = buffer_with(0, 100, 200)
    buffer.add(100 * MS, pose(130.0))
    assert x_at(buffer, 100) == 130
    assert x_at(buffer, 50) == 65
    assert x_at(buffer, 150) == 165


def test_when_time_begins_anew_all_before_is_forgotten():
    buffer = buffer_with(5000, 5100, 4101)
    assert x_at(buffer, 5050) == 5050
    buffer.add(4000 * MS, pose(7.0))
    assert x_at(buffer, 5050) is None
    assert x_at(buffer, 4000) == 7
    assert x_at(buffer, 4101) is None


def test_no_more_poses_are_kept_than_there_is_room_for():
    buffer = buffer_with(*range(0, 1000, 10), capacity=5)
    assert x_at(buffer, 949) is None
    assert x_at(buffer, 950) == 950
    buffer.add(900 * MS, pose(0.0))  # older than all that is kept
    assert x_at(buffer, 925) is None


def test_what_is_no_pose_is_refused():
    buffer = buffer_with(0, 100)
    with pytest.raises(ValueError, match="T_odom_base"):
        buffer.add(50 * MS, pose(np.nan))
    with pytest.raises(ValueError, match="T_odom_base"):
        buffer.add(50 * MS, np.eye(3))
    assert x_at(buffer, 50) == 50
    for name in ("capacity", "max_gap_s", "jump_back_s"):
        with pytest.raises(ValueError, match=f"{name}: must be above 0, got 0"):
            OdometryBuffer(**{name: 0})
