# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from ttt3r_ros.config import TimeConfig
from ttt3r_ros.tracking.time_guard import StampStep, TimeGuard
from ttt3r_ros.types import FrameRejected

MS = 1_000_000


def judge(last_ms, next_ms, config=None, left_out_ms=None) -> StampStep:
    guard = TimeGuard()
    if last_ms is not None:
        guard.accept(last_ms * MS)
    return guard.judge(next_ms * MS, left_out_ms and left_out_ms * MS, config or TimeConfig())


def test_stamps_that_go_on_pass():
    assert judge(None, 1000) is judge(1000, 1050) is judge(1000, 3000) is StampStep.NEXT


def test_a_repeated_or_slightly_older_stamp_is_rejected():
    with pytest.raises(FrameRejected, match="5000000000 ns repeats"):
        judge(5000, 5000)
    with pytest.raises(FrameRejected, match=r"0\.500 s older"):
        judge(5000, 4500)


def test_a_long_step_back_is_a_restart():
    assert judge(5000, 4000) is StampStep.RESTART


def test_a_long_step_forward_is_a_gap_unless_switched_off():
    assert judge(1000, 3001) is StampStep.GAP
    assert judge(1000, 99_000, TimeConfig(max_gap_s=0.0)) is StampStep.NEXT


def test_an_image_that_was_left_out_is_no_gap():
    assert judge(1000, 9000, left_out_ms=8000) is StampStep.NEXT
    assert judge(1000, 9000, left_out_ms=2000) is StampStep.GAP
    assert judge(1000, 9000, left_out_ms=500) is StampStep.GAP


def test_an_image_left_out_before_the_last_one_makes_no_gap_longer():
    assert judge(1000, 2900, left_out_ms=500) is StampStep.NEXT


def test_the_distance_to_the_last_image_is_known_in_seconds():
    guard = TimeGuard()
    assert guard.ahead_s(5) == 0
    guard.accept(2000 * MS)
    assert guard.ahead_s(500 * MS) == -1.5
