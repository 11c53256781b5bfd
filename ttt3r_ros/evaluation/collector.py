# SPDX-License-Identifier: Apache-2.0
"""What is heard of each image during an evaluation, and how the paths lie on one another."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ttt3r_ros.evaluation.metrics.trajectory import NoAlignmentError, align, trajectory_errors
from ttt3r_ros.evaluation.metrics_json import trajectory_metrics
from ttt3r_ros.evaluation.report.data import Series
from ttt3r_ros.geometry import Transform
from ttt3r_ros.recordings.recording import Truth
from ttt3r_ros.types import TrackingState

_log = logging.getLogger(__name__)

_AXIS_COSINE = 0.85  # within 32 degrees of an axis of the world, up is that axis


@dataclass(frozen=True, slots=True)
class Heard:
    """One image; what is not known of it is NaN."""

    stamp_ns: int
    T_map_camera: Transform | None  # None: LOST
    state: TrackingState
    segment: int
    gain: float
    confidence: float
    scale: float
    step_s: float


@dataclass(slots=True)
class Collector:
    """All images since the last reset, in order."""

    images: list[Heard] = field(default_factory=list)
    before_reset: int = 0  # images, not compared

    def add(self, image: Heard, images_since_reset: int) -> None:
        """Take an image; with the first one after a reset those before are forgotten.

        Args:
            image: LOST or not.
            images_since_reset: those that were not LOST, this one included.
        """
        first = images_since_reset == 1 and image.state is not TrackingState.LOST
        if first and len(self.poses):
            _log.warning("a reset: the %d images before it are not compared", len(self.images))
            self.before_reset += len(self.images)
            self.images.clear()
        self.images.append(image)

    @property
    def stamps_ns(self) -> npt.NDArray[np.int64]:
        """Stamps [N] of the images with a pose."""
        return np.array([i.stamp_ns for i in self.images if i.T_map_camera is not None], np.int64)

    @property
    def poses(self) -> list[Transform]:
        """T_map_camera of the images that have one."""
        return [i.T_map_camera for i in self.images if i.T_map_camera is not None]

    def on_path(self, path: Sequence[tuple[int, Transform]]) -> Collector:
        """Return the same images with other poses.

        Args:
            path: stamps and T_map_camera of all images that were not LOST, those before a reset
                too, in order.
        """
        poses = iter([T for _, T in path][len(path) - len(self.poses) :])
        images = [
            image if image.T_map_camera is None else replace(image, T_map_camera=next(poses))
            for image in self.images
        ]
        return Collector(images, self.before_reset)

    def with_poses(self, T_map_camera: Mapping[int, Transform]) -> Collector:
        """Return the same images with the poses of their stamps, [4, 4], or none."""
        images = [
            replace(image, T_map_camera=T_map_camera.get(image.stamp_ns)) for image in self.images
        ]
        return Collector(images, self.before_reset)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Estimated poses beside true ones.

    `T_truth_map` is a similarity: the upper left 3 x 3 is rotation times scale.
    """

    metrics: dict[str, Any] | None  # None: nothing is compared,
    reason: str  # and why
    alignment: str
    T_truth_map: Transform
    true_poses: dict[int, Transform]  # by stamp
    up: tuple[float, float, float]


def compare(collected: Collector, truth: Truth, alignment: str) -> Comparison:
    """Compare poses with the truth.

    Args:
        collected: the images.
        truth: of them.
        alignment: how the estimate is laid on the truth for pictures and the map, one of
            `metrics.trajectory.ALIGNMENTS`; where none is the best, as with "none".
    """

    def nothing(reason: str) -> Comparison:
        return Comparison(None, reason, "none", np.eye(4), {}, (0.0, 0.0, 1.0))

    if not truth.pose_source:
        return nothing("there are no true poses")
    stamps, poses = collected.stamps_ns, collected.poses
    if not poses:
        return nothing("no image has an estimated pose")
    places, true_poses = truth.poses(stamps)
    if not places:
        _log.warning("%s: no pose at the images' stamps", truth.pose_source)
        return nothing("no true pose is of the time of an image")
    found = [poses[place] for place in places]
    try:
        path = align(found, true_poses, alignment)
    except NoAlignmentError as error:
        _log.warning("nothing is aligned: %s", error)
        alignment = "none"
        path = align(found, true_poses, alignment)
    return Comparison(
        metrics=trajectory_metrics(trajectory_errors(found, true_poses)),
        reason="",
        alignment=alignment,
        T_truth_map=_similarity(found[0], path.poses[0], path.scale),
        true_poses={int(stamps[place]): T for place, T in zip(places, true_poses, strict=True)},
        up=_up(np.array(true_poses)),
    )


def series_of(collected: Collector, comparison: Comparison) -> Series:
    """Return what happened over time."""
    images, T = collected.images, comparison.T_truth_map
    unknown = np.full((4, 4), np.nan)
    poses = [unknown if i.T_map_camera is None else i.T_map_camera for i in images]
    true = [comparison.true_poses.get(i.stamp_ns, unknown) for i in images]
    positions, true_positions = (np.reshape(found, (-1, 4, 4))[:, :3, 3] for found in (poses, true))
    return Series(
        stamps_ns=np.array([i.stamp_ns for i in images], np.int64),
        positions_m=positions @ T[:3, :3].T + T[:3, 3],
        true_positions_m=true_positions,
        gain=np.array([i.gain for i in images], float),
        confidence=np.array([i.confidence for i in images], float),
        scale=np.array([i.scale for i in images], float),
        step_ms=np.array([1e3 * i.step_s for i in images], float),
        state=np.array([i.state for i in images], np.int8),
        segment=np.array([i.segment for i in images], np.int64),
        alignment=comparison.alignment,
        up=comparison.up,
    )


def _similarity(pose: Transform, aligned: Transform, scale: float) -> Transform:
    """Return the similarity that makes `aligned` of `pose`."""
    result = np.eye(4)
    rotation = aligned[:3, :3] @ pose[:3, :3].T
    result[:3, :3] = scale * rotation
    result[:3, 3] = aligned[:3, 3] - result[:3, :3] @ pose[:3, 3]
    return result


def _up(poses: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return where up is in the world of cameras [N, 4, 4] that are mostly held upright."""
    up = -poses[:, :3, 1].mean(axis=0)
    length = np.linalg.norm(up)
    if length < 1e-6:
        return (0.0, 0.0, 1.0)
    up /= length
    axis = int(np.abs(up).argmax())
    if abs(up[axis]) > _AXIS_COSINE:
        up = np.sign(up[axis]) * np.eye(3)[axis]
    return (float(up[0]), float(up[1]), float(up[2]))
