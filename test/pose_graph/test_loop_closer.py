# SPDX-License-Identifier: Apache-2.0
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from driven_stream import IN_A_SEGMENT, ROUND, SETTINGS, SURE, UNSURE, Drive, Say, truly
from graph_examples import noise
from loop_examples import at, keyframe, view
from small_network import CONFIG

from ttt3r_ros.config import LoopConfig
from ttt3r_ros.geometry import Transform, inverse
from ttt3r_ros.network.model import Network
from ttt3r_ros.pose_graph import loop_closer
from ttt3r_ros.pose_graph.loop_closer import LoopCloser
from ttt3r_ros.relocalization.keyframes import Keyframe
from ttt3r_ros.relocalization.relocalize import Evidence
from ttt3r_ros.types import TrackedView

MIDDLING = replace(SURE, photometric_correlation=0.72, disagreement=0.2)
NETWORK = cast(Network, SimpleNamespace(config=CONFIG))
Make = Callable[..., Drive]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    def made(config: LoopConfig = SETTINGS, say: Say = truly, **more: Any) -> Drive:
        drive = Drive(LoopCloser(NETWORK, config, every_image=True), say, **more)
        monkeypatch.setattr(loop_closer, "attempts_with", drive.attempts)
        return drive

    return made


def test_places_seen_again_mend_the_path(make: Make) -> None:
    drive = make()
    drive.go(3 * ROUND)
    drifted, mended = drive.error_m(drive.odom), drive.error_m([T for _, T in drive.path])
    assert drive.closer.counts.corrections > 5
    assert mended < 0.5 * drifted
    assert drive.error_m(drive.online) < drifted


def test_map_path_and_keyframes_stay_together_and_odom_never_moves(make: Make) -> None:
    drive = make()
    drive.go(2 * ROUND)
    odom = list(drive.odom)
    drive.go(ROUND)
    assert drive.closer.counts.corrections > 2
    assert all(a is b for a, b in zip(odom, drive.odom, strict=False))
    by_image = {image: T for image, (_, T) in enumerate(drive.path)}
    for known in drive.keyframes:
        np.testing.assert_allclose(known.T_map_camera, by_image[known.stamp_ns], atol=1e-6)
    graph = drive.closer.graph
    newest = graph.segments[-1]
    np.testing.assert_allclose(
        graph.pose(newest), drive.T_map_odom @ drive.T_odom_segment, atol=1e-6
    )


def test_the_same_images_give_the_same_map(make: Make) -> None:
    paths = []
    for _ in range(2):
        drive = make()
        drive.go(2 * ROUND + 50)
        paths.append(np.array([T for _, T in drive.path]))
    np.testing.assert_array_equal(*paths)


def test_without_a_place_seen_again_nothing_moves(make: Make) -> None:
    drive = make()
    drive.go(ROUND // 2)
    assert drive.asked and not drive.corrections
    assert drive.closer.counts.accepted == 0
    np.testing.assert_array_equal(drive.T_map_odom, np.eye(4))


def impossible(known: Keyframe, image: TrackedView, true: Transform) -> tuple[Transform, Evidence]:
    """Sure of places that are out of reach; right where odometry knows better."""
    found, evidence = truly(known, image, true)
    return (found, evidence) if evidence is SURE else (at(0.1), SURE)


def test_answers_that_the_graph_excludes_are_gated(make: Make) -> None:
    drive = make(say=impossible, drift=0.3)
    drive.go(ROUND // 2)
    assert drive.closer.counts.gated == drive.closer.counts.accepted > 0
    assert not drive.corrections


def test_a_large_correction_waits_for_a_second_loop_that_agrees(make: Make) -> None:
    free = make()
    free.go(ROUND + 60)
    at_once, first = free.corrections[0]
    careful = make(replace(SETTINGS, max_correction_m=first.moved_m / 2))
    careful.go(at_once)
    assert not careful.corrections and not careful.closer.graph.loops
    careful.go(ROUND + 60 - at_once)
    assert careful.corrections[0][0] > at_once
    assert len(careful.closer.graph.loops) >= 2
    assert careful.error_m([T for _, T in careful.path]) == pytest.approx(
        free.error_m([T for _, T in free.path]), rel=0.3
    )


def test_after_the_camera_was_carried_a_second_image_elsewhere_has_to_agree(make: Make) -> None:
    drive = make(carried_at=ROUND)
    drive.go(ROUND + 5)
    drive.corrections.clear()  # an answer of before was still due
    while not drive.closer._stream.waiting:
        drive.go(1)
    first = len(drive.truth)
    assert drive.corrections == []
    while not drive.corrections:
        drive.go(1)
    turned = 2 * np.pi * (len(drive.truth) - first) / ROUND
    assert 0.5 < turned < 1.5  # on a circle of one and a half depths
    drive.go(ROUND // 2)
    T_map_camera = drive.T_map_odom @ drive.odom[-1]
    assert np.linalg.norm((T_map_camera - drive.truth[-1])[:3, 3]) < 0.4


def test_one_image_does_not_say_where_a_camera_was_carried(make: Make) -> None:
    answered: list[int] = []

    def once(known: Keyframe, image: TrackedView, true: Transform) -> tuple[Transform, Evidence]:
        found, evidence = truly(known, image, true)
        if evidence is SURE and not answered:
            answered.append(image.stamp_ns)
        return found, evidence if image.stamp_ns in answered else UNSURE

    drive = make(carried_at=ROUND)
    drive.go(ROUND)
    drive.say = once
    drive.go(5)
    drive.corrections.clear()  # an answer of before was still due
    drive.go(ROUND)
    assert answered and drive.closer._stream.waiting and drive.corrections == []


def test_a_reset_forgets_the_question_that_is_under_way(make: Make) -> None:
    drive = make(delay=1000)
    drive.go(40)
    asked = drive._due
    assert asked is not None
    drive.closer.reset()
    assert drive.closer.apply(asked[1]) is None
    assert drive.closer.counts.asked == 0 and len(drive.closer.graph) == 0


def test_there_is_one_question_at_a_time(make: Make) -> None:
    drive = make(delay=35)
    drive.go(200)
    assert np.diff(drive.asked).min() >= 35


def test_questions_are_so_many_images_apart(make: Make) -> None:
    drive = make(replace(SETTINGS, every_images=15), delay=0)
    drive.go(200)
    assert set(np.diff(drive.asked)) == {15}


def test_a_camera_at_rest_asks_once() -> None:
    closer = LoopCloser(NETWORK, SETTINGS, every_image=True)
    asked = 0
    for number in range(100):
        here = view(number, 0, at(), at())
        if query := closer.offer(here, [keyframe(0, 1)]):
            asked += 1
            closer._stream.asking = None
            assert query.view is here
    assert asked == 0


def test_an_odd_image_asks_nothing_but_its_segment_is_known() -> None:
    closer = LoopCloser(NETWORK, SETTINGS, every_image=True)
    for number in range(30):
        here = view(number, 4, at(x_m=0.1 * number), at(), is_sure=False)
        assert closer.offer(here, [keyframe(4, 1)]) is None
    assert closer.graph.segments == (4,)


def test_live_questions_keep_to_the_budget(make: Make) -> None:
    drive = make(replace(SETTINGS, budget=0.1))
    drive.closer._every_image = False
    drive.go(15)
    drive.closer._stream.seconds = 0.5  # an answer takes so long: one in 5 s, 50 images
    drive.asked.clear()
    for _ in range(200):
        drive.go(1)
        drive.closer._stream.seconds = 0.5
    assert np.diff(drive.asked).min() >= 50


def test_of_many_segments_old_ones_become_one_and_loops_go_on(make: Make) -> None:
    drive = make(replace(SETTINGS, max_segments=24))
    drive.go(3 * ROUND)
    graph = drive.closer.graph
    assert 3 * ROUND // IN_A_SEGMENT == 60 and len(graph) <= 24
    assert {s for s, _ in drive.path} <= set(graph.segments)
    assert drive.error_m([T for _, T in drive.path]) < 0.6 * drive.error_m(drive.odom)


def test_the_corrected_camera_is_surer_than_the_drifted_one(make: Make) -> None:
    drive = make()
    drive.go(2 * ROUND)
    covariance = drive.corrections[-1][1].camera_covariance
    drifted = IN_A_SEGMENT * len(drive.closer.graph) * 0.012**2
    assert np.linalg.eigvalsh(covariance)[0] > -1e-9
    assert 0 < covariance[0, 0] < drifted


def test_coming_back_after_being_lost_is_a_loop() -> None:
    closer = LoopCloser(NETWORK, SETTINGS, every_image=True)
    closer.offer(view(0, 0, at(), at()), [])
    back = view(1, 1, at(x_m=1.0), at(x_m=1.0), relocalized_in=0, begin=np.eye(6))
    closer.offer(back, [])
    loop = closer.graph.loops[0]
    assert (loop.first.segment, loop.second.segment) == (0, 1)
    T = closer.graph.pose(0) @ loop.first.T_segment_camera
    np.testing.assert_allclose(T @ loop.T_first_second, back.T_map_camera, atol=1e-12)


def test_a_boundary_says_what_odom_does_with_the_covariance_in_the_new_segments_axes() -> None:
    turned = at(x_m=2.0, turned=np.pi / 2)
    begin = np.diag([0.3**2, 0.1**2, 0.1**2, 1e-8, 1e-8, 1e-8])  # unsure along odom's x
    closer = LoopCloser(NETWORK, SETTINGS, every_image=True)
    moved = at(y_m=5.0)
    closer.offer(view(0, 0, turned, at(), T_map_odom=moved), [])
    closer.offer(view(1, 1, turned, turned, T_map_odom=moved, begin=begin), [])
    edge = closer.graph.edges[0]
    np.testing.assert_allclose(edge.T_first_second, inverse(at()) @ turned, atol=1e-12)
    # One and a half times the standard deviations, for bursts of drift.
    assert edge.covariance[2, 2] == pytest.approx(0.45**2, rel=1e-3)
    assert edge.covariance[0, 0] == pytest.approx(0.15**2, rel=1e-3)


def test_the_last_solve_decides_and_moves_what_there_is(make: Make) -> None:
    drive = make()
    drive.go(3 * ROUND)
    before = drive.error_m([T for _, T in drive.path])
    graph = drive.closer.graph
    # As if a segment in the middle had been left behind by answers so far.
    left = graph.segments[len(graph) // 2]
    graph.set_poses({left: at(x_m=0.5) @ graph.pose(left)})
    correction = drive.closer.finish()
    assert correction is not None and not correction.loops
    moved = np.linalg.norm((correction.T_by_segment[left] @ graph.pose(left))[:3, 3])
    assert moved > 0
    off = correction.T_by_segment[left][:3, 3]
    assert np.linalg.norm(off - (-0.5, 0, 0)) < 0.2
    drive.path = [(s, correction.T_by_segment[s] @ T) for s, T in drive.path if s != left]
    kept = [n for n in range(3 * ROUND) if n // IN_A_SEGMENT != left]
    drive.truth = [drive.truth[n] for n in kept]
    assert drive.error_m([T for _, T in drive.path]) < 1.1 * before


def test_without_loops_there_is_nothing_to_solve_in_the_end(make: Make) -> None:
    drive = make()
    assert drive.closer.finish() is None
    drive.go(ROUND // 2)
    assert drive.closer.finish() is None


def middling(known: Keyframe, image: TrackedView, true: Transform) -> tuple[Transform, Evidence]:
    """Right where places are the same, but not sure of it."""
    found, evidence = truly(known, image, true)
    return found, MIDDLING if evidence is SURE else evidence


def middling_and_wrong(
    known: Keyframe, image: TrackedView, true: Transform
) -> tuple[Transform, Evidence]:
    """Of middling correlation, and each somewhere else."""
    found, evidence = truly(known, image, true)
    if evidence is not SURE:
        return found, evidence
    return found @ noise(np.random.default_rng(known.stamp_ns), 0.5, 0.3), MIDDLING


def test_answers_that_are_not_sure_alone_are_believed_if_they_agree(make: Make) -> None:
    drive = make(say=middling)
    drive.go(2 * ROUND)
    assert drive.closer.counts.accepted > 10 and drive.closer.counts.corrections > 2


def test_answers_that_are_neither_sure_nor_agree_are_not_believed(make: Make) -> None:
    drive = make(say=middling_and_wrong)
    drive.go(2 * ROUND)
    assert drive.closer.counts.accepted <= 2
