# SPDX-License-Identifier: Apache-2.0
"""Covariances against plain sampling, and what makes them grow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from transforms3d.axangles import axangle2mat

from ttt3r_ros.geometry import inverse, rotation_vector, transform
from ttt3r_ros.tracking import covariance as subject
from ttt3r_ros.tracking.covariance import PoseCovariance, moved
from ttt3r_ros.tracking.signals import Signals
from ttt3r_ros.types import TrackingState

INITIALIZING, TRACKING, UNCERTAIN, LOST = TrackingState
DT_S, DEPTH_M = 0.1, 2.5


def signals(confidence=3.0, dt_s=DT_S, **more):
    return Signals(confidence=confidence, contrast=40.0, detail=(1.0, 1.0), dt_s=dt_s, **more)


def rotated(vector):
    angle = np.linalg.norm(vector)
    return axangle2mat(vector / angle, angle) if angle > 0 else np.eye(3)


def curve(steps, forward=0.05, turn=0.06):
    """Poses of a camera that drives along its z axis and turns about y and a little about x."""
    step = transform(rotated(np.array([0.01, turn, 0.0])), (0.0, 0.002, forward))
    poses = [transform(rotated(np.array([0.3, -0.5, 0.2])), (1.0, 2.0, 3.0))]
    for _ in range(steps):
        poses.append(poses[-1] @ step)
    return poses


def followed(poses, depth_m=DEPTH_M, state=TRACKING, **more):
    covariance = PoseCovariance()
    for i, pose in enumerate(poses):
        covariance.update(pose, signals(**more), state if i else INITIALIZING, depth_m)
    return covariance


def deviation(true, estimated):
    turn = transform(true[:3, :3] @ estimated[:3, :3].T, np.zeros(3))
    return np.concatenate((true[:3, 3] - estimated[:3, 3], rotation_vector(turn)))


def assert_alike(sampled, expected, share):
    """Covariances, compared in units of the expected standard deviations."""
    sigma = np.sqrt(np.diag(expected))
    difference = (sampled - expected) / np.outer(sigma, sigma)
    np.testing.assert_allclose(difference, 0, atol=share)


def test_a_chain_of_noisy_steps_spreads_as_is_predicted():
    poses = curve(8)
    covariance, noises = PoseCovariance(), []
    for i, pose in enumerate(poses):
        covariance.update(pose, signals(), TRACKING if i else INITIALIZING, DEPTH_M)
        noises.append(subject._ALIKE**2 * covariance.twist * DT_S**2)
    generator = np.random.default_rng(0)
    samples = []
    for _ in range(2500):
        scale, turn_scale = generator.normal(0, (subject._SCALE, subject._TURN_SCALE))
        true = poses[0]
        for last, now, noise in zip(poses, poses[1:], noises[1:], strict=False):
            step = inverse(last) @ now
            true = true @ transform(
                rotated((1 + turn_scale) * rotation_vector(step)), (1 + scale) * step[:3, 3]
            )
            error = generator.multivariate_normal(np.zeros(6), noise)
            true = true @ transform(rotated(error[3:]), error[:3])
        samples.append(deviation(true, poses[-1]))
    assert_alike(np.cov(np.transpose(samples)), covariance.pose, 0.1)


def test_a_pose_is_transferred_to_the_base_as_its_samples_are():
    T_odom_camera = curve(3)[-1]
    T_camera_base = transform(rotated(np.array([0.4, 1.0, -0.2])), (0.3, -0.8, 0.5))
    root = np.random.default_rng(1).normal(0, 0.01, (6, 6))
    T_odom_base = T_odom_camera @ T_camera_base
    samples = []
    for error in np.random.default_rng(2).multivariate_normal(np.zeros(6), root @ root.T, 4000):
        true = transform(rotated(error[3:]) @ T_odom_camera[:3, :3], T_odom_camera[:3, 3])
        true[:3, 3] += error[:3]
        samples.append(deviation(true @ T_camera_base, T_odom_base))
    lever = transform(np.eye(3), T_odom_camera[:3, 3] - T_odom_base[:3, 3])
    assert_alike(np.cov(np.transpose(samples)), moved(root @ root.T, lever), 0.1)


def test_a_velocity_is_transferred_to_the_base_as_that_of_its_point_of_the_body():
    T_base_camera = transform(rotated(np.array([0.4, 1.0, -0.2])), (0.3, -0.8, 0.5))
    linear, angular = np.array([0.1, -0.3, 0.6]), np.array([0.2, 0.7, -0.4])
    T_camera_base, dt = inverse(T_base_camera), 1e-6
    step = transform(rotated(dt * angular), dt * linear)
    base = T_base_camera @ step @ T_camera_base  # the base in its own place of before
    expected = np.concatenate((base[:3, 3], rotation_vector(base))) / dt
    velocity = np.concatenate((linear, angular))
    found = moved(np.outer(velocity, velocity), T_base_camera)
    np.testing.assert_allclose(found, np.outer(expected, expected), atol=1e-4)


def test_components_are_in_the_order_of_ros():
    """A heading that is unsure about z makes a place ahead, on x, unsure along y."""
    yaw = np.diag([0.0, 0.0, 0.0, 0.0, 0.0, 0.01])
    ahead = moved(yaw, transform(np.eye(3), (-2.0, 0.0, 0.0)))
    expected = yaw.copy()
    expected[1, 1], expected[1, 5], expected[5, 1] = 0.04, 0.02, 0.02
    np.testing.assert_allclose(ahead, expected, atol=1e-12)


def test_the_first_camera_is_known_and_so_it_is_after_a_reset():
    covariance = followed(curve(0))
    assert not covariance.pose.any()
    covariance = followed(curve(5))
    assert np.linalg.eigvalsh(covariance.pose).min() > 0
    covariance.reset()
    covariance.update(curve(0)[0], signals(dt_s=None), INITIALIZING, DEPTH_M)
    assert not covariance.pose.any()


def test_a_pose_gets_less_sure_with_every_step():
    poses = curve(40)
    traces = [np.diag(followed(poses[: n + 1]).pose) for n in range(0, 41, 10)]
    assert (np.diff(traces, axis=0) > 0).all()


def test_in_another_unit_of_length_it_is_the_same_in_that_unit():
    large = [transform(pose[:3, :3], 100 * pose[:3, 3]) for pose in curve(10)]
    metres, centimetres = followed(curve(10)), followed(large, 100 * DEPTH_M)
    factor = np.diag([100.0] * 3 + [1.0] * 3)
    for name in ("pose", "twist"):
        expected = factor @ getattr(metres, name) @ factor
        np.testing.assert_allclose(getattr(centimetres, name), expected, rtol=1e-9, atol=1e-15)


def test_a_step_along_the_way_is_less_sure_than_across_it():
    covariance = followed([np.eye(4), transform(np.eye(3), (0.0, 0.0, 0.05))])
    x, y, z = np.diag(covariance.twist)[:3]
    assert x == pytest.approx(y) and z == pytest.approx(x / subject._ACROSS**2)


@pytest.mark.parametrize(
    "doubtful",
    [
        dict(state=UNCERTAIN),
        dict(translation_jump=0.05, rotation_jump_rad=0.05),
        dict(confidence=1.1),
        dict(confidence=math.nan),
    ],
)
def test_doubtful_steps_are_less_sure(doubtful):
    poses = curve(6)
    sure, unsure = followed(poses[:-1]), followed(poses[:-1])
    state = doubtful.pop("state", TRACKING)
    sure.update(poses[-1], signals(), TRACKING, DEPTH_M)
    unsure.update(poses[-1], signals(**doubtful), state, DEPTH_M)
    assert (np.diag(unsure.twist) > 1.2 * np.diag(sure.twist)).all()
    assert (np.diag(unsure.pose) > np.diag(sure.pose)).all()


def test_confidence_tells_nothing_until_it_is_below_half_of_what_it_usually_is():
    poses = curve(6)
    twists = []
    for confidence in (9.0, 3.0, 2.01, 1.5):  # usually 2 above 1
        covariance = followed(poses[:-1])
        covariance.update(poses[-1], signals(confidence), TRACKING, DEPTH_M)
        twists.append(covariance.twist[2, 2])
    assert twists[0] == twists[1] == twists[2]
    assert twists[3] == pytest.approx(2 * twists[0])


@pytest.mark.parametrize("images", [1, 4])
def test_while_lost_deviations_grow_by_a_rate_whatever_the_number_of_images(images):
    covariance = followed(curve(0))
    nowhere = np.full((4, 4), np.nan)
    for _ in range(images):
        covariance.update(nowhere, signals(dt_s=2.0 / images), LOST, 100.0)
    speed = subject._BLIND_SPEED * DEPTH_M
    rates = np.array([speed] * 3 + [subject._BLIND_TURN_RAD] * 3)
    np.testing.assert_allclose(covariance.pose, np.diag(4.0 * rates**2), atol=1e-12)
    np.testing.assert_allclose(covariance.twist, np.diag(rates**2))


def test_the_way_to_the_image_that_is_found_again_counts_as_lost_and_the_next_one_does_not():
    pose = curve(0)[0]
    covariance = followed([pose])
    covariance.update(pose, signals(dt_s=0.5), LOST, DEPTH_M)
    covariance.update(pose, signals(dt_s=0.5), INITIALIZING, DEPTH_M)
    assert covariance.pose[0, 0] == pytest.approx((subject._BLIND_SPEED * DEPTH_M) ** 2)
    before = covariance.pose[0, 0]
    covariance.update(pose, signals(dt_s=0.5), TRACKING, DEPTH_M)
    assert covariance.pose[0, 0] < 1.1 * before


def test_a_relocalised_camera_is_as_sure_as_it_is_said_to_be():
    covariance, given = followed(curve(20)), np.diag([0.01] * 3 + [0.02] * 3)
    elsewhere = curve(2)[-1]
    covariance.set(elsewhere, given)
    np.testing.assert_allclose(covariance.pose, given)
    covariance.update(elsewhere, signals(), TRACKING, DEPTH_M)  # no motion since
    assert (np.diag(covariance.pose) < np.diag(given) + 1e-3).all()


def test_whatever_happens_covariances_are_symmetric_positive_finite_and_bounded():
    generator = np.random.default_rng(3)
    covariance = PoseCovariance()
    for size in generator.choice([0.0, 1e-9, 0.1, 1e3], 300):
        pose = transform(rotated(generator.normal(0, 1, 3)), generator.normal(0, 1, 3) * size)
        state = TrackingState(generator.integers(4))
        confidence = generator.choice([1.0, 3.0, math.inf, math.nan])
        jump = generator.choice([0.0, 1e3])
        covariance.update(
            pose,
            signals(confidence, generator.choice([1e-9, 0.1, 1e3]), translation_jump=jump),
            state,
            generator.choice([0.0, math.inf, math.nan, 2.0]),
        )
        for matrix in (covariance.pose, covariance.twist):
            assert np.isfinite(matrix).all()
            np.testing.assert_array_equal(matrix, matrix.T)
            values = np.linalg.eigvalsh(matrix)
            assert values.min() >= -1e-9 * max(1.0, values.max())
            assert np.diag(matrix).max() <= 1e6 * (1 + 1e-9)
