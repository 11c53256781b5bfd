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


def follow(*stamps_ms):
    """What a guard says to one stamp after the other; an accepted one is the last then."""
    guard, said = TimeGuard(), []
    for stamp_ms in stamps_ms:
        try:
            step = guard.judge(stamp_ms * MS, None, TimeConfig())
        except FrameRejected as error:
            said.append(str(error))
        else:
            guard.accept(stamp_ms * MS, step)
            said.append(step)
    return said


NEXT = StampStep.NEXT


def test_a_long_step_back_is_a_restart_when_a_second_stamp_confirms_it():
    *_, first, second, third = follow(5000, 4000, 4100, 4200)
    assert first == "stamp: 1.000 s older than the last image's: believed when a second one " + (
        "confirms it"
    )
    assert (second, third) == (StampStep.RESTART, NEXT)


@pytest.mark.parametrize("odd_ms", [0, 1, 4_000_000, 4_294_967_295])
def test_one_odd_stamp_is_rejected_and_forgotten(odd_ms):
    before, odd, *after = follow(1_000_000, odd_ms, 1_000_100, 1_000_200)
    assert before is NEXT and after == [NEXT, NEXT] and "believed when a second" in odd


def test_a_leap_far_ahead_is_a_gap_when_a_second_stamp_confirms_it():
    _, first, *rest = follow(1000, 99_000, 99_100, 99_200)
    assert first.startswith("stamp: 98.000 s ahead of the last image's")
    assert rest == [StampStep.GAP, NEXT]


def test_stamps_return_from_an_odd_one_a_little_ahead():
    assert follow(10_000, 40_000, 10_100, 10_200) == [
        *(NEXT, StampStep.GAP, StampStep.RETURN, NEXT),
    ]


def test_a_gap_that_was_confirmed_is_not_returned_from():
    *_, first, second = follow(10_000, 40_000, 40_100, 10_100, 10_200)
    assert "older than" in first and second is StampStep.RESTART


def test_two_sources_that_alternate_are_one_and_rejections_that_say_so():
    said = follow(*(ms for i in range(10) for ms in (5_000_000 + 100 * i, 1000 + 100 * i)))
    assert said[::2] == [NEXT] * 10
    assert "two sources" not in said[1] and all("two sources" in s for s in said[9::2])


def test_a_leap_that_the_clock_has_told_is_confirmed_by_one_stamp():
    guard = TimeGuard()
    guard.accept(50_000 * MS)
    guard.doubt(10_000 * MS)
    assert guard.judge(10_000 * MS, None, TimeConfig()) is StampStep.RESTART
    guard.doubt(10_000 * MS)
    assert guard.judge(50_100 * MS, None, TimeConfig()) is NEXT


def test_a_long_step_forward_is_a_gap_unless_switched_off():
    assert judge(1000, 3001) is StampStep.GAP
    assert judge(1000, 99_000, TimeConfig(max_gap_s=0.0)) is StampStep.NEXT


def test_an_image_that_was_left_out_is_no_gap():
    assert judge(1000, 9000, left_out_ms=8000) is StampStep.NEXT
    assert judge(1000, 9000, left_out_ms=2000) is StampStep.GAP
    assert judge(1000, 9000, left_out_ms=500) is StampStep.GAP


def test_an_image_left_out_before_the_last_one_makes_no_gap_longer():
    assert judge(1000, 2900, left_out_ms=500) is StampStep.NEXT


def test_an_image_whose_leap_was_doubted_is_not_what_the_gap_ends_at():
    guard = TimeGuard()
    guard.accept(1000 * MS)
    with pytest.raises(FrameRejected, match="confirms"):
        guard.judge(900_000 * MS, 1000 * MS, TimeConfig())
    assert guard.judge(900_100 * MS, 900_000 * MS, TimeConfig()) is StampStep.GAP
    assert guard.ahead_s(900_100 * MS, 900_000 * MS) == pytest.approx(899.1)


def test_the_distance_to_the_last_image_is_known_in_seconds():
    guard = TimeGuard()
    assert guard.ahead_s(5) == 0
    guard.accept(2000 * MS)
    assert guard.ahead_s(500 * MS) == -1.5
