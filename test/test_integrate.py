# SPDX-License-Identifier: Apache-2.0
"""The two halves of `Pipeline.process`, between which the node publishes a pose."""

from __future__ import annotations

import numpy as np
from tracked_frames import frames, pipeline


def test_tracking_and_integrating_later_is_what_process_does():
    whole, halves = pipeline(), pipeline()
    waiting = None
    for frame in frames(4):
        expected = whole.process(frame)
        result = halves.track(frame)
        np.testing.assert_array_equal(result.T_odom_camera, expected.T_odom_camera)
        if waiting is not None:  # the image before, as in the node's second thread
            halves.integrate(waiting)
        assert len(halves.map) < len(whole.map)
        waiting = result
    halves.integrate(waiting)
    np.testing.assert_array_equal(halves.map.cloud().values, whole.map.cloud().values)


def test_what_was_seen_before_a_reset_does_not_come_into_the_map_after_it():
    subject = pipeline()
    first, second = frames(2)
    result = subject.track(first)
    subject.reset("a test")
    subject.integrate(result)
    assert len(subject.map) == 0
    subject.integrate(subject.track(second))
    assert len(subject.map) > 0
