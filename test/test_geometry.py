# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from transforms3d.axangles import axangle2mat
from transforms3d.euler import euler2mat

from ttt3r_ros.geometry import (
    Intrinsics,
    inverse,
    optical_extrinsics,
    orthonormal,
    quaternion,
    rotation_vector,
    transform,
    transform_from_quaternion,
)

T_A_B = transform(euler2mat(0.3, -0.5, 1.2), (1.0, -2.0, 0.5))


def test_the_inverse_undoes_a_transform():
    np.testing.assert_allclose(inverse(T_A_B) @ T_A_B, np.eye(4), atol=1e-12)


def test_a_quaternion_says_the_same_rotation():
    assert quaternion(T_A_B)[0] >= 0
    again = transform_from_quaternion(T_A_B[:3, 3], quaternion(T_A_B))
    np.testing.assert_allclose(again, T_A_B, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-6, 1e-3, 1.0, 3.14])
def test_a_rotation_vector_is_axis_times_angle_however_small(angle):
    axis = np.array([1.0, -2.0, 2.0]) / 3
    T = transform(axangle2mat(axis, angle), (0, 0, 0))
    np.testing.assert_allclose(rotation_vector(T), angle * axis, atol=1e-15, rtol=1e-6)


def test_float32_noise_is_no_rotation_to_speak_of():
    rng = np.random.default_rng(0)
    for _ in range(200):
        noisy = orthonormal(transform(np.eye(3) + rng.normal(0, 1e-7, (3, 3)), (0, 0, 0)))
        assert np.abs(rotation_vector(noisy)).max() < 1e-6


def test_a_level_camera_looks_along_x_with_its_image_upright():
    x_right, y_down, z_forward = optical_extrinsics()[:3, :3].T
    np.testing.assert_allclose(z_forward, [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(y_down, [0, 0, -1], atol=1e-12)
    np.testing.assert_allclose(x_right, [0, -1, 0], atol=1e-12)


def test_a_mount_pitched_down_looks_down():
    forward = optical_extrinsics((1, 2, 3, 0, np.pi / 6, 0))[:3, 2]
    np.testing.assert_allclose(forward, [np.cos(np.pi / 6), 0, -0.5], atol=1e-12)
    np.testing.assert_allclose(optical_extrinsics((1, 2, 3, 0, 0, 0))[:3, 3], [1, 2, 3])


def test_a_mount_that_is_not_six_numbers_is_an_error():
    with pytest.raises(ValueError, match="camera_pose: six finite numbers"):
        optical_extrinsics((1.0, 2.0))


def test_a_drifted_rotation_becomes_the_nearest_true_one():
    drifted = T_A_B.copy()
    drifted[:3, :3] += 1e-4 * np.arange(9).reshape(3, 3)
    fixed = orthonormal(drifted)
    np.testing.assert_allclose(fixed[:3, :3] @ fixed[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(fixed[:3, :3]) == pytest.approx(1)
    np.testing.assert_allclose(fixed, T_A_B, atol=1e-3)


@pytest.mark.parametrize("name", ["fx", "fy", "width", "height"])
def test_intrinsics_must_be_positive(name):
    values = dict(fx=1.0, fy=1.0, cx=0.0, cy=0.0, width=2, height=2)
    with pytest.raises(ValueError, match=f"intrinsics.{name}: must be positive, got 0"):
        Intrinsics(**{**values, name: 0})


def test_intrinsics_must_be_finite():
    with pytest.raises(ValueError, match=r"intrinsics\.cx: must be finite, got nan"):
        Intrinsics(1.0, 1.0, float("nan"), 0.0, 2, 2)
