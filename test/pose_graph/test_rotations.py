# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from transforms3d.axangles import axangle2mat

from ttt3r_ros.pose_graph.rotations import exponential, hat, inverse_right_jacobian, logarithm

ANGLES = [0.0, 1e-9, 1e-5, 0.9e-4, 1.1e-4, 0.3, 1.5, 3.0, 3.1415926, np.pi]


def vectors(angle: float) -> np.ndarray:
    directions = np.random.default_rng(0).normal(size=(50, 3))
    return angle * directions / np.linalg.norm(directions, axis=1, keepdims=True)


@pytest.mark.parametrize("angle", ANGLES)
def test_exponential_is_the_rotation_about_the_axis(angle: float) -> None:
    some = vectors(angle)
    expected = [axangle2mat(v / np.linalg.norm(v) if angle else (1, 0, 0), angle) for v in some]
    np.testing.assert_allclose(exponential(some), expected, atol=1e-14)


@pytest.mark.parametrize("angle", ANGLES)
def test_logarithm_undoes_exponential_up_to_half_a_turn(angle: float) -> None:
    rotations = exponential(vectors(angle))
    found = logarithm(rotations)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), angle, atol=1e-7)
    np.testing.assert_allclose(exponential(found), rotations, atol=1e-7)


@pytest.mark.parametrize("angle", [1e-6, 1e-3, 0.3, 1.5, 3.0])
def test_jacobian_tells_how_the_logarithm_changes(angle: float) -> None:
    some, step = vectors(angle), 1e-6
    jacobian = inverse_right_jacobian(some)
    for axis in range(3):
        moved = exponential(some) @ exponential(np.tile(step * np.eye(3)[axis], (50, 1)))
        numeric = (logarithm(moved) - logarithm(exponential(some))) / step
        np.testing.assert_allclose(jacobian[:, :, axis], numeric, atol=2e-5)


def test_hat_is_the_cross_product() -> None:
    one, other = vectors(1.0), vectors(2.0)[::-1]
    found = np.einsum("nij,nj->ni", hat(one), other)
    np.testing.assert_allclose(found, np.cross(one, other), atol=1e-15)
