# SPDX-License-Identifier: Apache-2.0
"""True errors of poses beside predicted covariances: what `evaluate_covariance.py` is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness import Numbers
from benchmarks.streams import NOISE, RATE_HZ
from ttt3r_ros.geometry import Transform, inverse, rotation_vector
from ttt3r_ros.tracking.covariance import PoseCovariance
from ttt3r_ros.tracking.signals import Signals
from ttt3r_ros.types import Covariance, TrackingState

CAMERAS: dict[str, dict[str, float]] = {  # of the rooms, one after the other
    "good": {"noise": NOISE},
    "noisy": {"noise": 0.03},
    "exposure": {"noise": NOISE, "exposure": 0.4},
    "blur": {"noise": NOISE, "blur_s": 0.05},
}

DIM, COVERED, HANDHELD = "dim light", "covered", "handheld"

SPECIAL = (DIM, COVERED, HANDHELD)

LENGTHS = (10, 50, 100, 200)  # images after which the pose is looked at

_START_EVERY = 25  # images; starts of the pieces that these are of


@dataclass(frozen=True, slots=True)
class Image:
    """What is known of one image, and the truth."""

    T_odom_camera: Transform
    T_world_camera: Transform
    signals: Signals
    state: TrackingState
    depth_m: float

    def has_step(self) -> bool:
        """Whether the motion since the image before was followed."""
        return self.state in (TrackingState.TRACKING, TrackingState.UNCERTAIN)


@dataclass(frozen=True, slots=True, eq=False)
class Compared:
    """Errors [N, 6] of position and rotation, and their predicted covariances [N, 6, 6]."""

    errors: Numbers
    covariances: Numbers

    def whitened(self, part: slice) -> Numbers:
        """Errors [N, 3] in predicted standard deviations, along the principal axes."""
        if not len(self.errors):
            return np.empty((0, 3))
        variances, axes = np.linalg.eigh(self.covariances[:, part, part])
        along = np.einsum("nji,nj->ni", axes, self.errors[:, part])
        result: Numbers = along / np.sqrt(variances)
        return result

    def sizes(self, part: slice) -> tuple[Numbers, Numbers]:
        """Lengths of the errors [N], and root mean squares [N] that are predicted of them."""
        traces = np.trace(self.covariances[:, part, part], axis1=1, axis2=2)
        return np.linalg.norm(self.errors[:, part], axis=1), np.sqrt(traces)


POSITION, ROTATION = slice(0, 3), slice(3, 6)


def predicted(images: Sequence[Image]) -> Iterator[tuple[Covariance, Covariance]]:
    """Yield the covariances of pose and velocity of images of which the first begins a frame."""
    covariance = PoseCovariance()
    for image in images:
        covariance.update(image.T_odom_camera, image.signals, image.state, image.depth_m)
        yield covariance.pose, covariance.twist


def pose_errors(images: Sequence[Image]) -> Numbers:
    """Errors of the poses [F, 6] about the odometry's axes, with the first ones laid together."""
    first = images[0]
    T_odom_world = first.T_odom_camera @ inverse(first.T_world_camera)
    errors = []
    for image in images:
        true = T_odom_world @ image.T_world_camera
        turn = np.eye(4)
        turn[:3, :3] = true[:3, :3] @ image.T_odom_camera[:3, :3].T
        position = true[:3, 3] - image.T_odom_camera[:3, 3]
        errors.append(np.concatenate((position, rotation_vector(turn))))
    return np.array(errors)


def step_errors(images: Sequence[Image]) -> Compared:
    """Errors of each motion from one image to the next, in the axes of the camera."""
    errors, covariances = [np.empty((0, 6))], [np.empty((0, 6, 6))]
    twists = [twist for _, twist in predicted(images)]
    for last, now, twist in zip(images, images[1:], twists[1:], strict=False):
        if now.has_step() and last.state is not TrackingState.LOST:
            step = inverse(last.T_odom_camera) @ now.T_odom_camera
            error = inverse(step) @ inverse(last.T_world_camera) @ now.T_world_camera
            errors.append(np.concatenate((error[:3, 3], rotation_vector(error)))[None])
            covariances.append(twist[None] / RATE_HZ**2)
    return Compared(np.concatenate(errors), np.concatenate(covariances))


def chain_errors(rooms: Sequence[Sequence[Image]], length: int) -> Compared:
    """Errors of poses after `length` images, of pieces that begin at poses known exactly."""
    errors, covariances = [np.empty((0, 6))], [np.empty((0, 6, 6))]
    for images in rooms:
        for start in range(0, len(images) - length, _START_EVERY):
            piece = images[start : start + length + 1]
            if piece[0].state is not TrackingState.LOST:
                errors.append(pose_errors(piece)[-1:])
                *_, (last, _) = predicted(piece)
                covariances.append(last[None])
    return Compared(np.concatenate(errors), np.concatenate(covariances))


def joined(parts: Sequence[Compared]) -> Compared:
    """All of them."""
    return Compared(
        np.concatenate([part.errors for part in parts]),
        np.concatenate([part.covariances for part in parts]),
    )


def rms(values: Numbers) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def rank_correlation(compared: Compared, part: slice) -> float:
    """Spearman's, of predicted and actual sizes of errors."""
    actual, expected = (_ranks(values) for values in compared.sizes(part))
    count = len(actual)
    return float(1 - 6 * np.square(expected - actual).sum() / (count * (count**2 - 1)))


def _ranks(values: Numbers) -> Numbers:
    return np.argsort(np.argsort(values)).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Room:
    """The images of one room, filmed by one of CAMERAS or in a SPECIAL way."""

    kind: str
    images: list[Image]


def usual(rooms: Sequence[Room]) -> list[list[Image]]:
    """The images of rooms that are not special."""
    return [room.images for room in rooms if room.kind not in SPECIAL]


def chains(rooms: Sequence[Sequence[Image]]) -> dict[int, Compared]:
    """Errors of poses by the number of images they come after, where there are any."""
    found = {length: chain_errors(rooms, length) for length in LENGTHS}
    return {length: chain for length, chain in found.items() if len(chain.errors)}
