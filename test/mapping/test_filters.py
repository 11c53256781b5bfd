# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from ttt3r_ros.mapping.filters import flying_pixel_mask, within_range


def slow_flying_pixel_mask(depth, share):
    height, width = depth.shape
    flying = np.zeros(depth.shape, bool)
    for v in range(height):
        for u in range(width):
            for row, column in ((v - 1, u), (v + 1, u), (v, u - 1), (v, u + 1)):
                if 0 <= row < height and 0 <= column < width:
                    pair = depth[v, u], depth[row, column]
                    if min(pair) > 0 and abs(pair[0] - pair[1]) > np.float32(share) * min(pair):
                        flying[v, u] = True
    return flying


@pytest.mark.parametrize("size", [(9, 14), (1, 5), (5, 1), (1, 1)])
def test_the_edge_filter_equals_a_loop_over_pixels(size):
    rng = np.random.default_rng(0)
    depth = rng.choice(np.float32([1, 1.04, 2, 2.1, 0, -1, np.nan]), size)
    expected = slow_flying_pixel_mask(depth, 0.05)
    found = flying_pixel_mask(torch.from_numpy(depth), 0.05).numpy()
    np.testing.assert_array_equal(found, expected)
    if min(size) > 1:
        assert 0.1 < expected.mean() < 0.9


def test_the_pixels_between_an_object_and_what_is_behind_it_go():
    row = torch.tensor([1.0, 1.0, 1.0, 1.4, 1.9, 2.5, 3.0, 3.0, 3.0])
    kept = ~flying_pixel_mask(row.expand(5, -1), 0.1)
    assert kept[2].tolist() == [True, True, False, False, False, False, False, True, True]


def test_a_floor_seen_at_a_flat_angle_stays():
    rows = torch.arange(12, 60, dtype=torch.float32)  # below the horizon
    floor = (1.2 * 100 / rows)[:, None].expand(-1, 20)  # f = 100 pixels, 1.2 m above it
    assert not flying_pixel_mask(floor, 0.1).any()


def test_range_is_the_distance_and_not_the_depth():
    points = torch.tensor([[[0, 0, 3.0], [4.0, 0, 3.0], [0, 0, np.nan], [np.inf, 0, 1]]])
    assert within_range(points, 5.0).tolist() == [[True, True, False, False]]
    assert within_range(points, 4.9).tolist() == [[True, False, False, False]]
