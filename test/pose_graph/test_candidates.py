# SPDX-License-Identifier: Apache-2.0
import numpy as np
from loop_examples import at, descriptor, keyframe, view

from ttt3r_ros.config import LoopConfig
from ttt3r_ros.pose_graph.candidates import Choice, choose
from ttt3r_ros.relocalization.keyframes import Keyframe

WAY_SINCE = {0: 9.0, 1: 6.0, 2: 3.0, 3: 0.8, 4: 0.5, 5: 0.1}
HERE = view(0, 5, at(), at(), looks=7)


def chosen(keyframes: list[Keyframe], calibrate: bool = False, **config: float) -> Choice:
    settings = LoopConfig(**config)  # type: ignore[arg-type]
    return choose(HERE, keyframes, descriptor(7), WAY_SINCE, settings, calibrate)


def test_the_most_alike_and_the_nearest_old_places_take_turns() -> None:
    alike = keyframe(0, looks=7, T_map_camera=at(x_m=9.0))
    less_alike = keyframe(1, looks=9, T_map_camera=at(x_m=9.0))
    near = keyframe(2, looks=8, T_map_camera=at(x_m=0.1))
    distances = [np.linalg.norm(k.descriptor - descriptor(7)) for k in (alike, less_alike, near)]
    assert distances == sorted(distances)
    assert chosen([less_alike, near, alike]).old == (alike, near, less_alike)


def test_turned_away_is_not_near() -> None:
    turned = keyframe(0, looks=8, T_map_camera=at(turned=3.0))
    beside = keyframe(1, looks=9, T_map_camera=at(x_m=1.0))
    other = keyframe(1, looks=7, T_map_camera=at(x_m=50.0))
    assert chosen([turned, beside, other], candidates=2).old == (other, beside)


def test_no_more_places_are_asked_than_allowed() -> None:
    assert len(chosen([keyframe(0, looks) for looks in range(9)], candidates=2).old) == 2


def test_places_passed_a_moment_ago_are_no_old_ones() -> None:
    recent = [keyframe(segment, looks=7) for segment in (3, 4, 5)]
    assert chosen(recent).old == ()


def test_the_newest_segments_are_never_asked_however_long_they_are() -> None:
    newest = [keyframe(4, looks=7), keyframe(5, looks=7)]
    assert chosen(newest, min_path=0.0).old == ()
    assert len(chosen([keyframe(3, looks=7)], min_path=0.0).old) == 1


def test_places_of_segments_that_the_graph_does_not_have_are_left_out() -> None:
    assert chosen([keyframe(-1, looks=7)], calibrate=True) == Choice((), (), ())


def test_the_last_successor_and_what_looks_elsewhere_are_the_known_truth() -> None:
    behind = keyframe(2, looks=7, T_map_camera=at(turned=3.0))
    beside = keyframe(2, looks=7, T_map_camera=at(x_m=0.5))
    successor = keyframe(4, looks=3)
    result = chosen([behind, beside, successor], calibrate=True)
    assert result.known == (successor,)
    assert result.far == (behind,)
    assert chosen([behind, beside, successor]).known == ()


def test_what_looks_elsewhere_but_much_alike_is_taken_first() -> None:
    one = keyframe(2, looks=3, T_map_camera=at(turned=3.0))
    other = keyframe(2, looks=7, T_map_camera=at(x_m=8.0))
    assert chosen([one, other], calibrate=True).far == (other,)
