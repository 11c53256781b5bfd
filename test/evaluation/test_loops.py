# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from loop_examples import at

from ttt3r_ros.evaluation.loops import judge_loops, loop_lines, loop_metrics
from ttt3r_ros.geometry import inverse
from ttt3r_ros.pose_graph.exchange import LoopCounts
from ttt3r_ros.pose_graph.graph import Edge, EdgeKind, End

TRUE = {0: at(), 10: at(x_m=1.0, turned=0.3), 20: at(x_m=2.0)}


def loop(first_ns, second_ns, off=None, *, believed=True):
    """A loop that is off the truth."""
    true = inverse(TRUE.get(first_ns, at())) @ TRUE.get(second_ns, at())
    ends = End(0, stamp_ns=first_ns), End(1, stamp_ns=second_ns)
    said = true @ (np.eye(4) if off is None else off)
    return Edge(*ends, said, np.eye(6), EdgeKind.LOOP, is_believed=believed)


def test_loops_are_judged_by_the_true_motion_between_their_images():
    right, off, turned = judge_loops(
        [loop(0, 10), loop(10, 20, at(x_m=0.6)), loop(0, 20, at(turned=math.radians(25)))], TRUE
    )
    assert right.is_right and not right.is_wrong
    assert off.error_m == pytest.approx(0.6) and off.is_wrong and not off.is_right
    assert turned.error_deg == pytest.approx(25.0) and turned.is_wrong


def test_between_right_and_wrong_a_loop_is_neither():
    (found,) = judge_loops([loop(0, 10, at(x_m=0.4))], TRUE)
    assert not found.is_right and not found.is_wrong


def test_a_loop_to_an_image_without_truth_is_neither_and_one_of_no_images_is_left_out():
    nameless = Edge(End(0), End(1), np.eye(4), np.eye(6), EdgeKind.LOOP)
    (found,) = judge_loops([loop(0, 99), nameless], TRUE)
    assert math.isnan(found.error_m) and not found.is_right and not found.is_wrong


def test_the_report_counts_what_is_believed_and_what_is_thrown_out():
    judged = judge_loops(
        [loop(0, 10), loop(0, 20), loop(10, 20, at(x_m=3.0), believed=False)], TRUE
    )
    metrics = loop_metrics(LoopCounts(asked=7, accepted=4, gated=1), judged)
    assert (metrics["asked"], metrics["accepted"], metrics["gated"]) == (7, 4, 1)
    assert (metrics["believed"], metrics["believed_right"], metrics["believed_wrong"]) == (2, 2, 0)
    assert (metrics["thrown_out"], metrics["thrown_out_wrong"]) == (1, 1)


def test_without_truth_nothing_is_called_right_or_wrong():
    metrics = loop_metrics(LoopCounts(), judge_loops([loop(0, 10)], {}))
    assert metrics["believed"] == 1
    assert metrics["believed_right"] is None and metrics["believed_wrong"] is None


def test_lines_join_the_places_of_the_aligned_path_and_wrong_ones_are_on_top():
    path = list(TRUE.items())
    T = np.diag([2.0, 2.0, 2.0, 1.0])
    loops = [loop(0, 20, at(x_m=3.0)), loop(0, 10), loop(0, 10, believed=False), loop(0, 99)]
    lines = loop_lines(judge_loops(loops, TRUE), path, T)
    assert len(lines) == 3  # image 99 has no place
    np.testing.assert_allclose(lines[-1][0], [[0, 0, 0], [4, 0, 0]])
    assert len({colour for _, colour in lines}) == 3
