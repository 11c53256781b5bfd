# SPDX-License-Identifier: Apache-2.0
"""Which depth has which colour."""

from __future__ import annotations

import numpy as np

from ttt3r_ros.io.depth_colours import UNKNOWN, colour_depth, depth_range


def test_near_depth_is_red_far_depth_is_blue_and_unknown_depth_is_dark():
    depth = np.full((10, 10), np.nan, np.float32)
    depth[:4], depth[4:8] = 0.5, 3.9
    assert depth_range([depth, depth]) == (0.5, 4)
    colours = colour_depth(depth, (0, 4)).astype(int)
    assert colours[0, 0, 0] > colours[0, 0, 2] + 100
    assert colours[5, 5, 2] > colours[5, 5, 0]
    assert (colours[9] == UNKNOWN).all()
    assert depth_range([np.full((2, 2), np.nan, np.float32)]) == (0, 1)


def test_several_depths_have_one_range():
    near, far = np.full((5, 5), 1.5, np.float32), np.full((5, 5), 6.5, np.float32)
    assert depth_range([near, far]) == depth_range([far, near]) == (1.5, 7)
