# SPDX-License-Identifier: Apache-2.0
"""A recording through the pipeline into files, without ROS."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ttt3r_ros.config import Config, ConfigError, with_values
from ttt3r_ros.geometry import Transform
from ttt3r_ros.io.atomic import atomic_write
from ttt3r_ros.io.point_cloud import CLOUD_WRITERS
from ttt3r_ros.io.trajectory import BoundedTrajectory, TumWriter
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.session import check_target, made_for, save_session
from ttt3r_ros.types import (
    Frame,
    FrameRejected,
    FrameResult,
    MapMoves,
    TrackingError,
    TrackingState,
)

_log = logging.getLogger(__name__)

TRAJECTORY, ONLINE, MAP, DEPTH = "trajectory.tum", "trajectory_online.tum", "map", "depth"
SESSION = "session"
_MAX_DEPTH_MM = 65535


def offline_config(file: Mapping[str, Any], values: Mapping[str, Any], *, every: int) -> Config:
    """Return the settings for recordings: no image is replaced by a newer one.

    Args:
        file: settings by dotted name that are for a live camera.
        values: settings that are for the recording; they beat the file's.
        every: which images are taken; those left out by choice are no gap in time.

    Raises:
        ConfigError: a setting does not exist or cannot have its value.
    """
    live = with_values(Config(), file)
    gap_s = every * live.time.max_gap_s
    return with_values(live, {"time.max_gap_s": gap_s, **values, "process_all_images": True})


@dataclass(slots=True)
class RunSummary:
    """What became of the images.

    Attributes:
        path: stamps in nanoseconds and T_map_camera after all loops, as in `trajectory.tum`.
    """

    processed: int = 0
    lost: int = 0  # of these: neither pose nor depth is written
    rejected: int = 0
    segments: int = 0
    map_points: int = 0
    path: list[tuple[int, Transform]] = field(default_factory=list)
    _segment: int = 0  # of the last image

    def take(self, result: FrameResult) -> None:
        """Count a processed image."""
        self.processed += 1
        if result.state is TrackingState.LOST:
            self.lost += 1
            return
        if result.images_since_reset == 1 or result.segment != self._segment:
            self.segments += 1
        self._segment = result.segment


def run(
    frames: Iterable[Frame],
    pipeline: Pipeline,
    output: Path,
    *,
    depth_images: bool = False,
    map_format: str = "ply",
    save_to_session: bool = False,
    on_result: Callable[[Frame, FrameResult], None] | None = None,
) -> RunSummary:
    """Process images and write trajectory, map and, if wanted, depth images.

    `trajectory_online.tum` (poses of the camera's optical frame in the map, as a robot has them at
    the time) and `depth/<stamp in ns>.png` (16 bits, millimetres, 0 is unknown) are written image
    by image. `trajectory.tum`, the same poses after all loops, and `map.ply` or `map.pcd` follow
    at the end, also when the images end with an exception; then `session`, if it is wanted.

    Args:
        frames: the images in order.
        pipeline: in front of its first image.
        output: the folder; made if it does not exist.
        depth_images: whether to write depth images.
        map_format: one of `mapping.export.CLOUD_WRITERS`.
        save_to_session: whether to write a session that can be gone on from.
        on_result: is told of every image that was processed.

    Raises:
        ConfigError: a setting is for the node alone.
        OSError: a file cannot be written.
        SessionError: there is none to be written, or something else is in its place.
    """
    if pipeline.config.scale_source == "odom":
        raise ConfigError("scale_source: odom is for the node, no odometry is read from recordings")
    output.mkdir(parents=True, exist_ok=True)
    if depth_images:
        (output / DEPTH).mkdir(exist_ok=True)
    if save_to_session:
        check_target(output / SESSION)
    (output / TRAJECTORY).unlink(missing_ok=True)  # of an earlier run
    summary, path = RunSummary(), FinalPath()
    try:
        with TumWriter(output / ONLINE) as online:
            for frame in frames:
                try:
                    result = pipeline.process(frame)
                except (FrameRejected, TrackingError) as error:
                    summary.rejected += 1
                    _log.warning("image at %d ns rejected: %s", frame.stamp_ns, error)
                    continue
                summary.take(result)
                path.take(result)
                if on_result:
                    on_result(frame, result)
                if result.state is TrackingState.LOST:
                    continue
                online.append(result.stamp_ns, result.T_map_camera)
                if depth_images:
                    _write_depth(output / DEPTH, result, pipeline)
    finally:
        path.move(pipeline.finish())
        summary.path = path.poses()
        with atomic_write(output / TRAJECTORY) as unfinished, TumWriter(unfinished) as final:
            for stamp_ns, T_map_camera in summary.path:
                final.append(stamp_ns, T_map_camera)
        cloud = pipeline.map.cloud(pipeline.config.map.min_hits)
        CLOUD_WRITERS[map_format](output / f"{MAP}.{map_format}", cloud.points, cloud.colours)
        summary.map_points = len(cloud.points)
    if save_to_session:
        owner = made_for(pipeline.config, pipeline.model.image_size)
        save_session(output / SESSION, pipeline.session(), owner)
    return summary


class FinalPath:
    """Where the camera was at each image that was not LOST, as later loops have it."""

    def __init__(self) -> None:
        """Start empty."""
        self._poses = BoundedTrajectory(sys.maxsize)
        self._before: list[tuple[int, Transform]] = []  # the last reset: of a map that is gone
        self._resets = 0

    def take(self, result: FrameResult) -> None:
        """Take the next image, LOST or not; what has moved before it moves now."""
        if result.resets != self._resets:
            self._before = self.poses()
            self._poses = BoundedTrajectory(sys.maxsize)
            self._resets = result.resets
        self.move(result.moves)
        if result.state is not TrackingState.LOST:
            self._poses.append(result.stamp_ns, result.T_map_camera, result.segment)

    def move(self, moves: Iterable[MapMoves]) -> None:
        """Move with the map."""
        for each in moves:
            self._poses.move(each.T_by_segment, each.numbers)

    def poses(self) -> list[tuple[int, Transform]]:
        """Return stamps in nanoseconds and T_map_camera, in order."""
        return self._before + self._poses.poses()


def _write_depth(folder: Path, result: FrameResult, pipeline: Pipeline) -> None:
    config = pipeline.config
    usable = result.usable(config.confidence.min, config.depth.max_m)
    depth_mm = (1000 * result.points[..., 2]).where(usable, 0).round().clamp(max=_MAX_DEPTH_MM)
    _, png = cv2.imencode(".png", depth_mm.cpu().numpy().astype(np.uint16))
    with atomic_write(folder / f"{result.stamp_ns}.png") as unfinished:
        unfinished.write_bytes(png.tobytes())
