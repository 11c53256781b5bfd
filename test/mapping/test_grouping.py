# SPDX-License-Identifier: Apache-2.0
"""Groups of equal keys are those of a sort, and walls do not crowd the scratch table."""

from __future__ import annotations

import pytest
import torch

from ttt3r_ros.mapping.grouping import digest, group_equal

AXES = {"yz": (21, 0), "xz": (42, 0), "xy": (42, 21)}


def wall(axes, side=200):
    """The keys of a wall's voxels: three coordinates of 21 bits, two of which go along it."""
    a, b = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    first, second = AXES[axes]
    return ((a << first) + (b << second)).flatten()


@pytest.mark.parametrize("axes", AXES)
def test_the_voxels_of_a_wall_rarely_meet_in_one_slot(axes):
    keys = wall(axes) + (1234 << 42) + (567 << 21) + 89
    slots = digest(keys, (2 * len(keys)).bit_length())
    met = 1 - len(slots.unique()) / len(keys)
    assert met < 0.2  # by chance 0.14; without a second multiplication up to 0.78


def test_groups_are_those_of_a_sort():
    random = torch.Generator().manual_seed(0)
    keys = wall("yz", 40)[torch.randint(0, 1600, (5000,), generator=random)] - 700
    distinct, group = group_equal(keys)
    assert torch.equal(distinct.sort().values, keys.unique())
    assert torch.equal(distinct[group], keys)
    again = group_equal(keys)
    assert torch.equal(again[0], distinct) and torch.equal(again[1], group)
