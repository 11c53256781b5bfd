# SPDX-License-Identifier: Apache-2.0
"""A robot that goes round after round, tracked with drift, and a network that knows the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from graph_examples import noise
from loop_examples import keyframe, view

from ttt3r_ros.config import LoopConfig
from ttt3r_ros.geometry import Transform, inverse, transform
from ttt3r_ros.pose_graph.exchange import Answer, Correction
from ttt3r_ros.pose_graph.loop_closer import LoopCloser
from ttt3r_ros.pose_graph.rotations import exponential
from ttt3r_ros.relocalization.keyframes import Keyframe
from ttt3r_ros.relocalization.relocalize import Evidence, Relocalization
from ttt3r_ros.types import TrackedView

IN_A_SEGMENT, ROUND = 10, 200  # images
STEP_M, STEP_RAD = 0.012, 0.006  # drift of each image, for each axis
SURE = Evidence(photometric_correlation=0.95, disagreement=0.05, share_seen=0.8, confidence=1.0)
UNSURE = replace(SURE, photometric_correlation=0.3)


def pose(image: int) -> Transform:
    angle = 2 * np.pi * image / ROUND
    turn = exponential(np.array([[0, angle, 0]]))[0]
    return transform(turn, (3 * np.cos(angle), 0.0, -2 * np.sin(angle)))


Say = Callable[[Keyframe, TrackedView, Transform], tuple[Transform, Evidence]]


def truly(keyframe: Keyframe, view: TrackedView, true: Transform) -> tuple[Transform, Evidence]:
    """Right where places are the same, and sure of it; else unsure, and wrong."""
    near = np.linalg.norm(true[:3, 3]) < 1.0 and true[2, 2] > 0.8
    generator = np.random.default_rng(view.stamp_ns + keyframe.segment)
    if near:
        return true @ noise(generator, 0.01, 0.005), SURE
    return noise(generator, 0.1, 0.1), UNSURE


@dataclass
class Drive:
    """Drives, offers, asks and moves what there is to be moved."""

    closer: LoopCloser
    say: Say = truly
    delay: int = 5
    drift: float = 1.0
    seed: int = 0
    carried_at: int | None = None  # the first image of a segment, before which nobody could see
    truth: list[Transform] = field(default_factory=list)
    online: list[Transform] = field(default_factory=list)
    odom: list[Transform] = field(default_factory=list)
    path: list[tuple[int, Transform]] = field(default_factory=list)
    keyframes: list[Keyframe] = field(default_factory=list)
    corrections: list[tuple[int, Correction]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    T_map_odom: Transform = field(default_factory=lambda: np.eye(4))
    T_odom_segment: Transform = field(default_factory=lambda: pose(0))
    relocalized_in: int | None = None  # the next image
    _due: tuple[int, Answer] | None = None

    def attempts(
        self, network: Any, features: Any, rgb: Any, lens: Any, tried: Sequence[Keyframe]
    ) -> list[Relocalization]:
        """In place of `attempts_with`."""
        image = len(self.truth) - 1
        answers = []
        for known in tried:
            true = inverse(self.truth[known.stamp_ns]) @ self.truth[image]
            found, evidence = self.say(known, self._view, true)
            T = known.T_map_camera @ found
            answers.append(Relocalization(known, None, None, 2.0, T, T, np.eye(4), evidence))
        return answers

    def resume(self, closer: LoopCloser) -> None:
        """Go on as another stream, which is back at the first place and recognizes it."""
        memory = self.closer.memory()
        count = len(memory.graph)
        numbers = {segment: i - count for i, segment in enumerate(memory.graph.segments)}
        closer.resume(memory.renumbered(numbers))
        self.closer, self._due = closer, None
        self.path = [(numbers[segment], T) for segment, T in self.path]
        self.keyframes = [replace(k, segment=numbers[k.segment]) for k in self.keyframes]
        known = self.keyframes[0]
        T_map_last = known.T_map_camera @ inverse(self.truth[known.stamp_ns]) @ self.truth[-1]
        self.T_map_odom = T_map_last @ inverse(self.odom[-1])
        self.relocalized_in = known.segment

    def go(self, images: int) -> None:
        for _ in range(images):
            self._close()
            self._step()

    def _step(self) -> None:
        image, generator = len(self.truth), np.random.default_rng((self.seed, len(self.truth)))
        self.truth.append(pose(image))
        if image:
            step = inverse(self.truth[-2]) @ self.truth[-1]
            step = step @ noise(generator, self.drift * STEP_M, self.drift * STEP_RAD)
            if image == self.carried_at:
                step = step @ noise(generator, 1.0, 0.8)
            self.odom.append(self.odom[-1] @ step)
        else:
            self.odom.append(pose(0))
        segment = image // IN_A_SEGMENT
        if image % IN_A_SEGMENT == 0:
            self.T_odom_segment = self.odom[-2] if image else pose(0)
        root = np.sqrt(IN_A_SEGMENT)
        begin = np.diag([(root * STEP_M) ** 2] * 3 + [(root * STEP_RAD) ** 2] * 3)
        if self.carried_at is not None and segment == self.carried_at // IN_A_SEGMENT:
            begin = np.diag([2.0**2] * 3 + [1.5**2] * 3)
        T_map_odom = self.T_map_odom
        self._view = view(
            image,
            segment,
            self.odom[-1],
            self.T_odom_segment,
            looks=image,
            T_map_odom=T_map_odom,
            begin=begin,
            relocalized_in=self.relocalized_in,
        )
        self.relocalized_in = None
        self.online.append(T_map_odom @ self.odom[-1])
        self.path.append((segment, self.online[-1]))
        query = self.closer.offer(self._view, self.keyframes)
        if image % 5 == 0:
            new = keyframe(segment, looks=image, T_map_camera=self.online[-1])
            self.keyframes.append(replace(new, stamp_ns=image))
        if query:
            self.asked.append(image)
            self._due = image + self.delay, self.closer.answer(query)

    def _close(self) -> None:
        moves: dict[int, Transform] = {}
        if self._due and len(self.truth) >= self._due[0]:
            correction = self.closer.apply(self._due[1])
            self._due = None
            if correction:
                self.corrections.append((len(self.truth), correction))
                moves = correction.T_by_segment
                self.T_map_odom = correction.T_newest @ self.T_map_odom
        numbers = self.closer.merge()
        self.path = [(numbers.get(s, s), moves.get(s, np.eye(4)) @ T) for s, T in self.path]
        self.keyframes = [
            replace(
                k,
                segment=numbers.get(k.segment, k.segment),
                T_map_camera=moves.get(k.segment, np.eye(4)) @ k.T_map_camera,
            )
            for k in self.keyframes
        ]

    def error_m(self, poses: Sequence[Transform]) -> float:
        """Root mean square of places; all begin at the truth."""
        off = [a[:3, 3] - b[:3, 3] for a, b in zip(poses, self.truth, strict=True)]
        return float(np.sqrt(np.square(off).sum(axis=1).mean()))


SETTINGS = LoopConfig(max_correction_m=100.0)
