# SPDX-License-Identifier: Apache-2.0
"""A recording through the pipeline into files, without ROS."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ttt3r_ros.config import Config, ConfigError, with_values
from ttt3r_ros.io.point_cloud import CLOUD_WRITERS
from ttt3r_ros.io.trajectory import TumWriter
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.types import Frame, FrameRejected, FrameResult, TrackingError, TrackingState

_log = logging.getLogger(__name__)

TRAJECTORY, MAP, DEPTH = "trajectory.tum", "map", "depth"
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
    """What became of the images."""

    processed: int = 0
    lost: int = 0  # of these: neither pose nor depth is written
    rejected: int = 0
    segments: int = 0
    map_points: int = 0


def run(
    frames: Iterable[Frame],
    pipeline: Pipeline,
    output: Path,
    *,
    depth_images: bool = False,
    map_format: str = "ply",
    on_result: Callable[[Frame, FrameResult], None] | None = None,
) -> RunSummary:
    """Process images and write trajectory, map and, if wanted, depth images.

    `trajectory.tum` (poses of the camera's optical frame in the map) and `depth/<stamp in ns>.png`
    (16 bits, millimetres, 0 is unknown) are written image by image, `map.ply` or `map.pcd` at the
    end, also when the images end with an exception.

    Args:
        frames: the images in order.
        pipeline: in front of its first image.
        output: the folder; made if it does not exist.
        depth_images: whether to write depth images.
        map_format: one of `mapping.export.CLOUD_WRITERS`.
        on_result: is told of every image that was processed.

    Raises:
        ConfigError: a setting is for the node alone.
        OSError: a file cannot be written.
    """
    if pipeline.config.scale_source == "odom":
        raise ConfigError("scale_source: odom is for the node, no odometry is read from recordings")
    output.mkdir(parents=True, exist_ok=True)
    if depth_images:
        (output / DEPTH).mkdir(exist_ok=True)
    summary, segment = RunSummary(), 0
    try:
        with TumWriter(output / TRAJECTORY) as trajectory:
            for frame in frames:
                try:
                    result = pipeline.process(frame)
                except (FrameRejected, TrackingError) as error:
                    summary.rejected += 1
                    _log.warning("image at %d ns rejected: %s", frame.stamp_ns, error)
                    continue
                summary.processed += 1
                if on_result:
                    on_result(frame, result)
                if result.state is TrackingState.LOST:
                    summary.lost += 1
                    continue
                if result.images_since_reset == 1 or result.segment != segment:
                    summary.segments += 1
                segment = result.segment
                trajectory.append(result.stamp_ns, result.T_map_camera)
                if depth_images:
                    _write_depth(output / DEPTH, result, pipeline)
    finally:
        cloud = pipeline.map.cloud(pipeline.config.map.min_hits)
        CLOUD_WRITERS[map_format](output / f"{MAP}.{map_format}", cloud.points, cloud.colours)
        summary.map_points = len(cloud.points)
    return summary


def _write_depth(folder: Path, result: FrameResult, pipeline: Pipeline) -> None:
    config = pipeline.config
    usable = result.usable(config.confidence.min, config.depth.max_m)
    depth_mm = (1000 * result.points[..., 2]).where(usable, 0).round().clamp(max=_MAX_DEPTH_MM)
    path = folder / f"{result.stamp_ns}.png"
    if not cv2.imwrite(str(path), depth_mm.cpu().numpy().astype(np.uint16)):
        raise OSError(f"{path}: cannot be written")
