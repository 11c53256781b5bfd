# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import torch

from ttt3r_ros.geometry import optical_extrinsics
from ttt3r_ros.mapping.grouping import transform_points


def test_points_are_moved_by_rotation_scale_and_translation():
    points = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    T = optical_extrinsics((1.0, -2.0, 30.0, 0.1, 0.2, 0.3))
    T[:3, :3] *= 1.7
    expected = points.double().numpy() @ T[:3, :3].T + T[:3, 3]
    moved = transform_points(points, T)
    assert moved.dtype == points.dtype
    np.testing.assert_allclose(moved.numpy(), expected, atol=2e-5)


def test_no_points_stay_no_points():
    assert transform_points(torch.empty(0, 3), np.eye(4)).shape == (0, 3)
