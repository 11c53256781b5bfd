# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest

from ttt3r_ros.viewer.page import Bounds, bounds, overview


def test_stray_points_do_not_make_the_box_larger():
    rng = np.random.default_rng(0)
    room = rng.uniform((0, 0, 0), (4, 6, 2), (10_000, 3)).astype(np.float32)
    room[:50] = 1000.0
    low, high = bounds(room)
    np.testing.assert_allclose(low, (0, 0, 0), atol=0.2)
    np.testing.assert_allclose(high, (4, 6, 2), atol=0.2)


def test_no_points_have_no_box():
    assert bounds(np.zeros((0, 3), np.float32)) is None


@pytest.mark.parametrize("size", [(0, 0, 0), (1, 1, 1), (4, 6, 2.5), (300, 20, 10), (1, 1, 80)])
def test_all_of_a_box_is_in_the_view_from_above(size):
    low, high = np.zeros(3), np.array(size, float)
    view = overview(Bounds(low, high))
    assert view.position[2] > high[2]
    forward = (view.look_at - view.position) / np.linalg.norm(view.look_at - view.position)
    for corner in itertools.product(*zip(low, high, strict=True)):
        ray = corner - view.position
        assert forward @ ray / np.linalg.norm(ray) > np.cos(np.radians(75 / 2))  # viser's lens
