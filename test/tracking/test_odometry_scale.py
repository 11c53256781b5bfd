# SPDX-License-Identifier: Apache-2.0
"""Scale by odometry, where it is known."""

from __future__ import annotations

import numpy as np
import pytest
from transforms3d.euler import euler2mat

from ttt3r_ros.geometry import inverse, optical_extrinsics, transform
from ttt3r_ros.tracking.scale_source import OdometryScale

RATE_HZ = 10
S = 1_000_000_000
MOUNT = optical_extrinsics((0.4, 0.1, 1.2, 0.0, 0.1, 0.3))  # T_base_camera


def base_pose(x, y, yaw):
    return transform(euler2mat(0, 0, yaw), (x, y, 0))


def curve(seconds, speed=0.4, turn=0.5):
    """T_odom_base of a robot that drives an arc."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    radius = speed / turn
    return [base_pose(radius * np.sin(a), radius * (1 - np.cos(a)), a) for a in turn * t]


def seen(poses, scale, mount=MOUNT, noise_m=0.0, seed=0):
    """p_segment_camera for poses of the base, in units of `scale` metres."""
    first = inverse(poses[0] @ mount)
    places = np.array([(first @ pose @ mount)[:3, 3] for pose in poses])
    noise = noise_m * np.random.default_rng(seed).standard_normal(places.shape)
    return (places + noise) / scale


def feed(source, poses, places, segment=0, start_s=0.0, mount=MOUNT):
    for i, (pose, place) in enumerate(zip(poses, places, strict=True)):
        known = None if pose is None else pose @ mount
        source.add(round((start_s + i / RATE_HZ) * S), segment, place, known)


def scale_of(poses, places, mount=MOUNT, **more):
    source = OdometryScale(**more)
    feed(source, poses, places, mount=mount)
    return source.estimate()


@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
def test_paths_without_noise_give_the_scale(scale):
    poses = curve(30)
    found = scale_of(poses, seen(poses, scale))
    assert found.scale == pytest.approx(scale, rel=1e-9)
    assert found.spread < 1e-9
    assert found.samples >= 30


def test_noise_from_image_to_image_makes_paths_no_longer():
    for seed in range(5):
        poses = curve(30)
        places = seen(poses, 2.5, noise_m=0.02, seed=seed)
        steps = np.linalg.norm(np.diff(places, axis=0), axis=1).sum() * 2.5
        assert steps > 1.3 * 0.4 * 30  # what is walked from image to image
        found = scale_of(poses, places)
        assert found.scale == pytest.approx(2.5, rel=0.03)
        assert 0.01 < found.spread < 0.15


def test_noise_of_both_at_a_standstill_gives_nothing():
    noise = np.random.default_rng(1).normal(0, 0.02, (2, 600, 3))
    poses = [transform(np.eye(3), place) for place in noise[0]]
    assert scale_of(poses, noise[1]) is None


def test_turning_on_the_spot_gives_nothing_if_the_camera_is_on_the_axis():
    poses = [base_pose(1.0, 2.0, 0.05 * i) for i in range(600)]
    near = optical_extrinsics((0.1, 0.05, 1.0, 0, 0, 0))
    drift = np.cumsum(np.random.default_rng(2).normal(0, 0.01, (600, 3)), axis=0)
    assert scale_of(poses, drift, mount=near) is None


def test_turning_on_the_spot_moves_a_camera_far_from_the_axis():
    poses = [base_pose(1.0, 2.0, 0.05 * i) for i in range(600)]
    found = scale_of(poses, seen(poses, 1.7))
    assert found.scale == pytest.approx(1.7, rel=1e-9)


def test_it_is_the_camera_whose_path_counts():
    poses = curve(30, speed=0.3, turn=0.8)
    places = seen(poses, 2.0)
    assert scale_of(poses, places).scale == pytest.approx(2.0, rel=1e-9)
    assert scale_of(poses, places, mount=np.eye(4)).scale < 1.8  # the base's path is shorter


def test_slipping_wheels_and_jumps_of_the_odometry_do_no_harm():
    poses = curve(60)
    places = seen(poses, 2.0, noise_m=0.01)
    places[100:180] = places[100]  # the wheels turn, the robot stands
    for pose in poses[300:]:
        pose[0, 3] += 50  # the odometry's origin is another
    found = scale_of(poses, places, window=60)
    assert found.scale == pytest.approx(2.0, rel=0.03)


def test_a_robot_that_is_pushed_while_its_wheels_stand_says_nothing():
    poses = curve(20)
    places = seen(poses, 2.0)
    assert scale_of([poses[0]] * len(poses), places) is None


def test_images_without_odometry_are_bridged():
    poses = curve(40)
    places = seen(poses, 2.0)
    known = [pose if i % 3 == 0 else None for i, pose in enumerate(poses)]
    known[150:300] = [None] * 150
    found = scale_of(known, places)
    assert found.scale == pytest.approx(2.0, rel=1e-9)
    assert 10 < found.samples < scale_of(poses, places).samples
    assert scale_of([None] * len(poses), places) is None


def test_a_chord_is_given_up_when_it_takes_too_long():
    poses = [base_pose(0.02 * i / RATE_HZ, 0, 0) for i in range(2000)]  # 2 cm/s
    assert scale_of(poses, seen(poses, 2.0)) is None
    assert scale_of(poses, seen(poses, 2.0), chord_s=20.0).scale == pytest.approx(2.0, rel=1e-9)


def test_stamps_that_step_back_begin_a_new_chord():
    source = OdometryScale(fewest=1)
    source.add(10 * S, 0, np.zeros(3), base_pose(0, 0, 0))
    source.add(9 * S, 0, np.array([9.0, 0, 0]), base_pose(1, 0, 0))
    assert source.estimate() is None
    source.add(10 * S, 0, np.array([11.0, 0, 0]), base_pose(2, 0, 0))
    assert source.estimate().scale == pytest.approx(0.5)


def test_places_of_two_segments_are_not_compared():
    source = OdometryScale(fewest=3)
    poses = curve(40)
    for segment in range(5):
        part = poses[80 * segment : 80 * segment + 80]
        places = seen(part, 2.0) + 100 * segment
        feed(source, part, places, segment, start_s=8 * segment)
    assert source.estimate().scale == pytest.approx(2.0, rel=1e-9)
    assert source.estimate().spread < 1e-9


def test_segments_shorter_than_a_chord_count_from_a_third_of_it():
    units = 1 + np.random.default_rng(6).random(11)
    for speed, samples in ((0.4, 10), (0.2, 10), (0.12, 0)):  # 0.28, 0.14 and 0.08 m in a segment
        source = OdometryScale(fewest=1)
        poses = [base_pose(speed * i / RATE_HZ, 0, 0) for i in range(88)]
        for segment in range(11):
            part = poses[8 * segment : 8 * segment + 8]
            if segment:
                source.unit_changed(units[segment] / units[segment - 1])
            feed(source, part, seen(part, units[segment]), segment, start_s=0.8 * segment)
        found = source.estimate()
        assert (found.samples if found else 0) == samples
        assert found is None or found.scale == pytest.approx(units[-1], rel=1e-9)
        assert found is None or found.spread < 1e-9


def test_units_that_change_unsaid_are_seen_in_the_spread():
    units = (2.0, 3.0, 1.4, 2.4)
    poses = curve(40)
    told, untold = OdometryScale(), OdometryScale()
    for segment, unit in enumerate(units):
        part = poses[100 * segment : 100 * segment + 100]
        places = seen(part, unit, noise_m=0.005, seed=segment)
        if segment:
            told.unit_changed(unit / units[segment - 1])
        for source in (told, untold):
            feed(source, part, places, segment, start_s=10 * segment)
    assert told.estimate().scale == pytest.approx(2.4, rel=0.02)
    assert told.trusted(0.2) == told.estimate().scale
    assert untold.estimate().spread > 0.2
    assert untold.trusted(0.2) is None


def test_only_the_last_samples_count():
    source = OdometryScale(window=12)
    poses = curve(30)
    feed(source, poses, seen(poses, 2.0))
    feed(source, poses, seen(poses, 1.2), segment=1, start_s=30)
    found = source.estimate()
    assert found.samples == 12
    assert found.scale == pytest.approx(1.2, rel=1e-9)


def test_after_a_reset_nothing_is_left():
    source = OdometryScale()
    poses = curve(30)
    feed(source, poses, seen(poses, 2.0))
    source.reset()
    assert source.estimate() is None
    # The same segment number, and other places: no chord may reach from before.
    feed(source, poses, seen(poses, 0.7) + 5, start_s=30)
    found = source.estimate()
    assert found.scale == pytest.approx(0.7, rel=1e-9)
    assert found.spread < 1e-9


def test_wrong_numbers_are_named():
    with pytest.raises(ValueError, match=r"chord_s: must be above 0 and finite, got inf"):
        OdometryScale(chord_s=float("inf"))
    source = OdometryScale()
    with pytest.raises(ValueError, match="p_segment_camera: must be finite"):
        source.add(0, 0, np.full(3, np.nan), np.eye(4))
    with pytest.raises(ValueError, match="T_odom_camera: must be finite"):
        source.add(0, 0, np.zeros(3), np.full((4, 4), np.inf))
