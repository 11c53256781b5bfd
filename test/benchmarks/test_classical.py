# SPDX-License-Identifier: Apache-2.0
"""The classical yardstick finds the path of a camera in a textured room, up to its scale."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import classical as subject
from ttt3r_ros.evaluation.metrics.trajectory import trajectory_errors
from ttt3r_ros.simulation import make_rooms, make_trajectory, render

K = np.array([[192.0, 0, 127.5], [0, 192, 95.5], [0, 0, 1]])


def test_a_camera_that_moves_is_followed():
    rooms = make_rooms(3)
    poses = make_trajectory(3, rooms).pose(torch.arange(12, dtype=torch.float64) / 5)
    rgb = render(rooms, poses, (192.0, 192.0, 127.5, 95.5), 192, 256).rgb[0]
    found = subject.path([*(255 * rgb).byte().numpy()], K)
    errors = trajectory_errors(found, poses[0].double().numpy())
    assert errors.by_alignment["sim3"].ate_rmse_m < 0.25 * errors.guess_ate_rmse_m
    assert errors.by_alignment["none"].rpe_rot_rmse_deg < 1.0


def test_a_camera_that_rests_stays_where_it_is_and_so_does_one_that_sees_nothing():
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    still = subject.path([noise] * 4, K)
    np.testing.assert_allclose(still, np.tile(np.eye(4), (4, 1, 1)), atol=1e-9)
    dark = subject.path([np.zeros((48, 64, 3), np.uint8)] * 3, K)
    np.testing.assert_allclose(dark, np.tile(np.eye(4), (3, 1, 1)), atol=1e-9)
