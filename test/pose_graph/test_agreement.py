# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
from loop_examples import DEPTH_M, at, keyframe

from ttt3r_ros.geometry import Transform
from ttt3r_ros.pose_graph.agreement import agreeing, distance
from ttt3r_ros.relocalization.keyframes import Keyframe
from ttt3r_ros.relocalization.relocalize import Relocalization


def answer(number: int, T_map_camera: Transform) -> Relocalization:
    found = SimpleNamespace(keyframe=keyframe(number, looks=number), T_map_camera=T_map_camera)
    return cast(Relocalization, found)


def near(one: Keyframe, other: Keyframe) -> float:
    return 0.0


def test_answers_that_put_the_camera_in_one_place_agree() -> None:
    one, other = answer(0, at(x_m=1.0)), answer(1, at(x_m=1.0 + 0.05 * DEPTH_M, turned=0.05))
    elsewhere = answer(2, at(x_m=1.0 + 0.5 * DEPTH_M))
    assert agreeing([one, elsewhere, other], near) == [one, other]


def test_an_answer_does_not_agree_with_itself() -> None:
    assert agreeing([answer(0, at())], near) == []


def test_answers_that_turn_the_camera_otherwise_do_not_agree() -> None:
    assert agreeing([answer(0, at()), answer(1, at(turned=0.2))], near) == []


def test_the_farther_the_way_between_keyframes_the_more_may_be_between_answers() -> None:
    answers = [answer(0, at()), answer(1, at(x_m=0.15 * DEPTH_M))]
    assert agreeing(answers, near) == []
    assert agreeing(answers, lambda one, other: 1.0) == answers


def test_keyframes_of_whose_places_the_map_is_not_sure_say_nothing_together() -> None:
    answers = [answer(0, at()), answer(1, at())]
    assert agreeing(answers, lambda one, other: 20.0) == []


def test_distances_are_shares_of_the_depth() -> None:
    assert np.isclose(distance(answer(0, at(x_m=0.5 * DEPTH_M, turned=1.0))), 0.5)
