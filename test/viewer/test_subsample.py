# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from ttt3r_ros.viewer.page import subsample


@pytest.mark.parametrize("count", [0, 1, 9, 10])
def test_what_is_not_too_much_stays_whole(count):
    assert len(subsample(np.zeros((count, 3)), 10)) == count


@pytest.mark.parametrize("count", [11, 20, 21, 1003])
def test_what_stays_is_spread_evenly_and_within_the_limit(count):
    kept = subsample(np.arange(count), 10)
    assert 5 <= len(kept) <= 10
    assert len(set(np.diff(kept))) == 1
    assert count - 1 - kept[-1] < kept[1] - kept[0]


def test_what_is_drawn_stays_while_a_map_grows():
    before, after = subsample(np.arange(25), 10), subsample(np.arange(29), 10)
    assert set(before) <= set(after)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="at most 0 rows"):
        subsample(np.zeros(3), 0)
