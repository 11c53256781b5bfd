# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import random

from ttt3r_ros.ros.stream import StreamCounter

MS = 1_000_000


def lost(*stamps_ms: float) -> int:
    counter = StreamCounter(2.0)
    for stamp in stamps_ms:
        counter.received(round(stamp * MS))
    return counter.counts().lost_estimated


def test_a_steady_stream_has_lost_nothing_jitter_included():
    rng = random.Random(0)
    assert lost(*(33.3 * i + rng.uniform(-5, 5) for i in range(1000))) == 0


def test_gaps_are_counted_in_periods():
    assert lost(*(10 * i for i in range(100) if i not in (50, 60, 61, 62))) == 4


def test_loss_at_random_is_seen_though_no_two_neighbours_may_arrive_often():
    rng = random.Random(1)
    kept = [i for i in range(1000) if rng.random() < 0.5]
    assert abs(lost(*(10 * i for i in kept)) - (1000 - len(kept))) < 60


def test_stamps_that_repeat_or_go_back_count_as_nothing_lost():
    assert lost(0, 10, 20, 20, 10, 20, 30) == 0


def test_a_pause_of_the_camera_is_no_loss():
    assert lost(*range(0, 1000, 10), *range(60_000, 61_000, 10)) == 0


def test_every_end_is_counted():
    counter = StreamCounter(0.0)
    for stamp in range(7):
        counter.received(stamp)
    counter.processed()
    counter.replaced(3)
    counter.rejected()
    counts = counter.counts()
    assert (counts.received, counts.processed, counts.replaced, counts.rejected) == (7, 1, 3, 1)
