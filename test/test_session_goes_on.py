# SPDX-License-Identifier: Apache-2.0
"""The graph of a session goes on: loops found after a restart move what was mapped before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from driven_stream import ROUND, SETTINGS, Drive
from seen_again import EAGER, recognise_every_place
from small_network import CONFIG as SMALL
from tolerant import TOLERANT
from tracked_frames import frames, pipeline

from ttt3r_ros.config import LoopConfig, with_values
from ttt3r_ros.geometry import Intrinsics, inverse, optical_extrinsics
from ttt3r_ros.network.model import Network
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.pose_graph import loop_closer
from ttt3r_ros.pose_graph.graph import EdgeKind
from ttt3r_ros.pose_graph.loop_closer import LoopCloser
from ttt3r_ros.pose_graph.memory import LONG_AGO
from ttt3r_ros.session import made_for, save_session

CAMERA = Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)
NETWORK = cast(Network, SimpleNamespace(config=SMALL))
Process = Callable[[Pipeline, int], None]


def closer(**settings: Any) -> LoopCloser:
    return LoopCloser(NETWORK, replace(SETTINGS, **settings), every_image=True)


def segments_moved_by(drive: Drive) -> set[int]:
    moves = [correction.T_by_segment for _, correction in drive.corrections]
    return {s for each in moves for s, T in each.items() if np.abs(T[:3, 3]).max() > 0.005}


@pytest.fixture
def resumed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Drive]:
    """A drive of a round and a half without loops, at the beginning of another stream."""

    def made(settings: dict[str, Any] | None = None, **more: Any) -> Drive:
        drive = Drive(closer(**{"enabled": False, **(settings or {})}), **more)
        monkeypatch.setattr(loop_closer, "attempts_with", drive.attempts)
        drive.go(ROUND + ROUND // 2)
        drive.resume(closer())
        return drive

    return made


def test_loops_found_after_a_restart_mend_what_was_mapped_before(resumed) -> None:
    drive = resumed()
    old = len(drive.path)
    assert {segment for segment, _ in drive.path} == set(range(-old // 10, 0))
    before = [T for _, T in drive.path]
    drive.go(ROUND + ROUND // 2)
    assert min(segments_moved_by(drive)) < 0
    after = [T for _, T in drive.path]
    truth = drive.truth
    drive.truth = truth[:old]
    assert drive.error_m(after[:old]) < 0.6 * drive.error_m(before)
    drive.truth = truth
    assert drive.error_m(after) < 0.6 * drive.error_m(drive.odom)


def test_between_two_streams_nothing_is_known_but_what_was_recognized(resumed) -> None:
    drive = resumed()
    drive.go(1)
    graph = drive.closer.graph
    unknown, relocalized = graph.edges[-2:]
    assert unknown.kind is EdgeKind.BOUNDARY and relocalized.kind is EdgeKind.LOOP
    assert (unknown.first.segment, unknown.second.segment) == (-1, 30)
    assert unknown.covariance[0, 0] >= 100 and relocalized.covariance[0, 0] < 0.1
    assert relocalized.first.segment == -30
    way_since = drive.closer.memory().way_since
    assert all((way >= LONG_AGO) is (segment < 0) for segment, way in way_since.items())


def test_the_last_segment_of_an_earlier_stream_is_asked_like_others(resumed) -> None:
    drive = resumed()
    asked: list[int] = []
    say = drive.say

    def note(known: Any, *arguments: Any) -> Any:
        asked.append(known.segment)
        return say(known, *arguments)

    drive.say = note
    drive.go(9)  # all of the new stream's first segment
    while -1 not in asked and len(drive.truth) < 3 * ROUND:
        drive.go(1)
    assert -1 in asked


def test_what_limits_were_learnt_from_goes_on(resumed) -> None:
    drive = resumed({"enabled": True})
    known = drive.closer.memory().known
    assert known.right and known.wrong
    twice = closer()
    drive.resume(twice)
    assert twice.memory().known == known


def test_a_restart_keeps_to_the_bound_of_segments(resumed) -> None:
    drive = resumed()
    drive.closer._config = replace(SETTINGS, max_segments=12)
    drive.go(ROUND)
    graph = drive.closer.graph
    assert len(graph) <= 12
    assert {s for s, _ in drive.path} <= set(graph.segments)


def test_what_is_held_stays_and_what_comes_later_moves(resumed) -> None:
    drive = resumed()
    drive.closer.hold(True)
    old = len(drive.path)
    before = [T for _, T in drive.path]
    drive.go(ROUND)
    assert drive.corrections and drive.closer.graph.held == set(range(-30, 0))
    np.testing.assert_allclose([T for _, T in drive.path[:old]], before, atol=1e-12)
    assert min(segments_moved_by(drive)) >= 0
    drive.corrections.clear()
    drive.closer.hold(False)
    drive.go(ROUND)
    assert min(segments_moved_by(drive)) < 0


def test_an_answer_that_would_move_what_is_held_by_now_is_left_out(resumed) -> None:
    drive = resumed(delay=1000)
    while drive._due is None or drive._due[1].solved is None:
        if drive._due:  # its loops wait to be confirmed
            assert drive.closer.apply(drive._due[1]) is None
            drive._due = None
        drive.go(1)
    drive.closer.hold(True)
    assert drive.closer.apply(drive._due[1]) is None


def process(subject: Pipeline, count: int) -> None:
    for frame in frames(count):
        subject.process(replace(frame, intrinsics=CAMERA))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A session of several segments, by a network of random weights, without loops."""
    subject = pipeline(**TOLERANT, **{"segment.reset_interval": 4, "loop.enabled": False})
    process(subject, 14)
    return save(subject, tmp_path / "session")


def save(subject: Pipeline, folder: Path) -> Path:
    save_session(folder, subject.session(), made_for(subject.config, subject.model.image_size))
    return folder


def test_without_loops_a_session_has_a_graph_even_so(folder: Path) -> None:
    graph = pipeline(**TOLERANT, session=str(folder)).loops.graph
    assert graph.segments == (-4, -3, -2, -1)
    assert [edge.kind for edge in graph.edges] == [EdgeKind.BOUNDARY] * 3


def test_map_keyframes_and_path_of_a_session_move_with_its_segments(folder, monkeypatch) -> None:
    recognise_every_place(monkeypatch)
    subject = pipeline(**EAGER, session=str(folder))
    saved = subject.session()
    subject.set_pose(optical_extrinsics(), np.eye(6))
    process(subject, 20)
    assert subject.loops.counts.corrections > 0
    now = subject.session()
    old, graph = saved.loops.graph, now.loops.graph
    moves = {s: graph.pose(s) @ inverse(old.pose(s)) for s in old.segments}
    assert max(np.abs(T - np.eye(4)).max() for T in moves.values()) > 0.01
    went = len(saved.trajectory)
    assert now.path_segments[:went] == saved.path_segments
    assert min(now.path_segments[went:]) >= 0
    for (_, before), (_, after), segment in zip(
        saved.trajectory, now.trajectory[:went], saved.path_segments, strict=True
    ):
        np.testing.assert_allclose(after, moves[segment] @ before, atol=1e-6)
    kept = {keyframe.stamp_ns: keyframe for keyframe in now.keyframes if keyframe.segment < 0}
    assert kept
    for keyframe in saved.keyframes:
        if keyframe.stamp_ns in kept:
            expected = moves[keyframe.segment] @ keyframe.T_map_camera
            found = kept[keyframe.stamp_ns].T_map_camera
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert set(now.map_tensors["segment"].tolist()) <= set(graph.segments)


def test_a_session_of_a_session_goes_on_too(folder, tmp_path, monkeypatch) -> None:
    recognise_every_place(monkeypatch)
    subject = pipeline(**EAGER, session=str(folder))
    subject.set_pose(optical_extrinsics(), np.eye(6))
    process(subject, 9)
    graph = subject.loops.graph
    third = pipeline(**EAGER, session=str(save(subject, tmp_path / "second")))
    assert third.loops.graph.segments == tuple(range(-len(graph), 0))
    assert len(third.loops.graph.edges) == len(graph.edges)
    assert max(third.session().path_segments) == -1
    way_since = third.loops.memory().way_since
    assert way_since[-len(graph)] > 2 * LONG_AGO > way_since[-1] >= LONG_AGO


def test_with_localization_only_nothing_of_a_session_moves(folder, monkeypatch) -> None:
    recognise_every_place(monkeypatch)
    subject = pipeline(**EAGER, session=str(folder), localization_only=True)
    before = subject.session()
    subject.set_pose(optical_extrinsics(), np.eye(6))
    process(subject, 20)
    after = subject.session()
    assert subject.loops.counts.corrections > 0
    for name, column in before.map_tensors.items():
        assert bool((after.map_tensors[name] == column).all())
    for one, other in zip(before.keyframes, after.keyframes, strict=True):
        np.testing.assert_array_equal(one.T_map_camera, other.T_map_camera)
    for (_, one), (_, other) in zip(before.trajectory, after.trajectory, strict=False):
        np.testing.assert_array_equal(one, other)


def test_what_the_stream_has_mapped_itself_stays_too_once_that_is_wanted(monkeypatch) -> None:
    subject = pipeline(**EAGER, **{"loop.candidates": 1})
    pictures = [replace(frame, intrinsics=CAMERA) for frame in frames(26)]
    for frame in pictures[:6]:
        subject.process(frame)
    recognise_every_place(monkeypatch)
    subject.config = with_values(subject.config, {"localization_only": True})
    results = [subject.process(pictures[6])]
    before = subject.map.to_tensors()
    results += [subject.process(frame) for frame in pictures[7:]]
    assert subject.loops.counts.corrections > 0
    assert results[0].segment == 2 and results[-1].segment > 2  # the camera parted from segment 1
    after = subject.map.to_tensors()
    assert all(bool((after[name] == before[name]).all()) for name in before)


def test_loops_are_on_by_default_and_a_graph_is_kept_without_them() -> None:
    assert LoopConfig().enabled
    subject = pipeline(**TOLERANT, **{"segment.reset_interval": 4, "loop.enabled": False})
    process(subject, 6)
    assert len(subject.loops.graph) == 2 and subject.loops.counts.asked == 0
    assert subject.finish() == ()
