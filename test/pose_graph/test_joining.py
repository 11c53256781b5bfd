# SPDX-License-Identifier: Apache-2.0
"""Two drives of one place, each with drift of its own, become one map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from driven_stream import ROUND, SETTINGS, SURE, UNSURE, Drive, pose
from graph_examples import noise
from loop_examples import features
from small_network import CONFIG

from ttt3r_ros.geometry import Transform, inverse
from ttt3r_ros.network.model import Network
from ttt3r_ros.pose_graph import joining
from ttt3r_ros.pose_graph.acceptance import KnownAnswers
from ttt3r_ros.pose_graph.graph import EdgeKind
from ttt3r_ros.pose_graph.joining import Joined, Joiner, Part
from ttt3r_ros.pose_graph.loop_closer import LoopCloser
from ttt3r_ros.pose_graph.memory import LONG_AGO, LoopMemory
from ttt3r_ros.relocalization.keyframes import Keyframe
from ttt3r_ros.relocalization.relocalize import Evidence, Relocalization

NETWORK = cast(Network, SimpleNamespace(config=CONFIG, encode=lambda image: features(0)))
LATER = 1000  # what the stamps of the second drive are greater by
Say = Callable[[Keyframe, int, Transform], tuple[Transform, Evidence]]


def drive(seed: int, first_segment: int, T_map: Transform, later: int = 0) -> Part:
    """A round without loops; its map lies where `T_map` says, and stamps are numbers of images."""
    closer = LoopCloser(NETWORK, replace(SETTINGS, enabled=False), every_image=True)
    driven = Drive(closer, seed=seed)
    driven.go(ROUND)
    memory = closer.memory()
    numbers = {s: first_segment + i for i, s in enumerate(memory.graph.segments)}
    memory = memory.renumbered(numbers)
    memory.graph.set_poses({s: T_map @ memory.graph.pose(s) for s in memory.graph.segments})
    keyframes = []
    for k in driven.keyframes:
        stamp = k.stamp_ns + later
        picture = np.full((96, 128, 3), [stamp >> 8, stamp & 255, 0], np.uint8)
        T = T_map @ k.T_map_camera
        keyframes.append(
            replace(k, stamp_ns=stamp, segment=numbers[k.segment], T_map_camera=T, picture=picture)
        )
    return Part(memory, keyframes)


def truly(known: Keyframe, image: int, true: Transform) -> tuple[Transform, Evidence]:
    """Right where places are the same, and sure of it; else wrong and unsure."""
    generator = np.random.default_rng((image, known.stamp_ns))
    if np.linalg.norm(true[:3, 3]) < 1.0 and true[2, 2] > 0.8:
        return true @ noise(generator, 0.01, 0.005), SURE
    return noise(generator, 0.1, 0.1), UNSURE


@dataclass
class Scene:
    first: Part
    second: Part

    def join(self, **settings: Any) -> Joined | None:
        return Joiner(NETWORK, self.first, self.second, replace(SETTINGS, **settings)).join()

    def error_m(self, joined: Joined) -> float:
        """Of all keyframes in the first map's frame, in which its first camera is right."""
        off = []
        for k in (*self.first.keyframes, *self.second.keyframes):
            found = joined.T_by_segment[k.segment] @ k.T_map_camera
            off.append(found[:3, 3] - pose(k.stamp_ns % LATER)[:3, 3])
        return float(np.sqrt(np.square(off).sum(axis=1).mean()))


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scene]:
    def made(say: Say = truly) -> Scene:
        def attempts(
            network: Any, features: Any, rgb: Any, lens: Any, tried: Sequence[Keyframe]
        ) -> list[Relocalization]:
            image = (int(rgb[0, 0, 0]) << 8) + int(rgb[0, 0, 1])
            answers = []
            for known in tried:
                true = inverse(pose(known.stamp_ns)) @ pose(image % LATER)
                found, evidence = say(known, image, true)
                T = known.T_map_camera @ found
                answers.append(Relocalization(known, None, None, 2.0, T, T, np.eye(4), evidence))
            return answers

        monkeypatch.setattr(joining, "attempts_with", attempts)
        elsewhere = noise(np.random.default_rng(5), 20.0, 1.0)
        return Scene(drive(1, -40, np.eye(4)), drive(2, -20, elsewhere, LATER))

    return made


def drift_m(part: Part) -> float:
    """Of keyframes, where the map's first camera is right."""
    T = pose(0) @ inverse(part.keyframes[0].T_map_camera)
    off = [(T @ k.T_map_camera - pose(k.stamp_ns % LATER))[:3, 3] for k in part.keyframes]
    return float(np.sqrt(np.square(off).sum(axis=1).mean()))


def test_two_maps_of_one_place_become_one_that_is_better_than_either(scene) -> None:
    subject = scene()
    joined = subject.join()
    assert joined is not None and len(joined.between) > 10
    assert subject.error_m(joined) < max(drift_m(subject.first), drift_m(subject.second))
    graph = joined.loops.graph
    assert graph.segments == tuple(range(-40, 0))
    np.testing.assert_allclose(joined.T_by_segment[-40], np.eye(4), atol=1e-9)
    for segment in range(-20, 0):
        own = subject.second.loops.graph.pose(segment)
        expected = joined.T_by_segment[segment] @ own
        np.testing.assert_allclose(graph.pose(segment), expected, atol=1e-9)
    unknown = [e for e in graph.edges if (e.first.segment, e.second.segment) == (-21, -20)]
    assert [e.kind for e in unknown if e.covariance[0, 0] >= 100] == [EdgeKind.BOUNDARY]


def test_keyframes_that_are_near_once_the_maps_lie_together_are_asked_too(scene) -> None:
    asked: list[tuple[int, int]] = []

    def noting(known: Keyframe, image: int, true: Transform) -> tuple[Transform, Evidence]:
        asked.append((image, known.stamp_ns))
        return truly(known, image, true)

    subject = scene(noting)
    assert subject.join() is not None
    assert len(asked) == len(set(asked))
    near = [abs(image % LATER - stamp) <= 5 for image, stamp in asked]
    half = len(near) // 2
    assert sum(near[half:]) > 1.3 * sum(near[:half])


def test_false_answers_that_are_sure_are_outvoted(scene) -> None:
    def lying(known: Keyframe, image: int, true: Transform) -> tuple[Transform, Evidence]:
        found, evidence = truly(known, image, true)
        if (image + known.stamp_ns) % 15:
            return found, evidence
        generator = np.random.default_rng((image, known.stamp_ns))
        return noise(generator, 0.4, 0.3), replace(SURE, photometric_correlation=0.99)

    honest, subject = scene(), None
    fair = honest.join()
    subject = scene(lying)
    joined = subject.join()
    assert fair is not None and joined is not None
    assert subject.error_m(joined) < 1.3 * honest.error_m(fair)


def test_false_answers_alone_join_nothing(scene) -> None:
    def lying(known: Keyframe, image: int, true: Transform) -> tuple[Transform, Evidence]:
        generator = np.random.default_rng((image, known.stamp_ns))
        return noise(generator, 0.5, 0.5), SURE if image % 20 == 0 else UNSURE

    assert scene(lying).join() is None


def test_one_image_alone_joins_nothing_however_sure(scene) -> None:
    def once(known: Keyframe, image: int, true: Transform) -> tuple[Transform, Evidence]:
        found, evidence = truly(known, image, true)
        return found, evidence if image == LATER + 50 else UNSURE

    assert scene(once).join() is None


def test_without_keyframes_nothing_is_joined(scene) -> None:
    subject = scene()
    nobody = Part(LoopMemory(), ())
    assert Scene(subject.first, nobody).join() is None
    assert Scene(nobody, subject.second).join() is None


def test_nobody_knows_the_way_from_one_to_the_other_and_both_kinds_of_limits_count(scene) -> None:
    subject = scene()
    rights = [tuple((0.01 * i, 1.0 + side, 4.0) for i in range(3 + side)) for side in (0, 1)]
    parts = [
        replace(part, loops=replace(part.loops, known=KnownAnswers(right, (float(i),))))
        for i, (part, right) in enumerate(zip((subject.first, subject.second), rights, strict=True))
    ]
    joined = Scene(*parts).join()
    assert joined is not None
    known = joined.loops.known
    assert sorted(known.right) == sorted((*rights[0], *rights[1])) and set(known.wrong) == {0, 1}
    assert {answer[1] for answer in known.right[-2:]} == {1.0, 2.0}
    ways = joined.loops.way_since
    assert min(ways[s] for s in range(-40, -20)) >= LONG_AGO > max(ways[s] for s in range(-20, 0))
