# SPDX-License-Identifier: Apache-2.0
"""The two halves of `Pipeline.process`, between which the node publishes a pose."""

from __future__ import annotations

import numpy as np
from tracked_frames import frames, pipeline


def test_tracking_and_merging_later_is_what_process_does():
    whole, halves = pipeline(), pipeline()
    merge = None
    for frame in frames(4):
        expected = whole.process(frame)
        result, merge_next = halves.track(frame)
        np.testing.assert_array_equal(result.T_odom_camera, expected.T_odom_camera)
        if merge is not None:  # of the image before, as in the node's second thread
            merge()
        assert len(halves.map) < len(whole.map)
        merge = merge_next
    merge()
    np.testing.assert_array_equal(halves.map.cloud().values, whole.map.cloud().values)


def test_what_was_seen_before_a_reset_does_not_come_into_the_map_after_it():
    subject = pipeline()
    first, second = frames(2)
    _, merge = subject.track(first)
    subject.reset("a test")
    merge()
    assert len(subject.map) == 0
    _, merge = subject.track(second)
    merge()
    assert len(subject.map) > 0
