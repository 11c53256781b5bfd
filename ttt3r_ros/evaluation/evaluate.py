# SPDX-License-Identifier: Apache-2.0
"""One recording through the pipeline, and how near the results are to the truth.

Every image goes the way of `run.run`; what is added here only listens. Several recordings and
configurations are `batch`'s, the report's look is `report.files`'.
"""

from __future__ import annotations

import json
import logging
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ttt3r_ros.config import Config, to_dict
from ttt3r_ros.evaluation import run_metadata
from ttt3r_ros.evaluation.collector import Collector, Comparison, Heard, compare, series_of
from ttt3r_ros.evaluation.loops import judge_loops, loop_lines, loop_metrics
from ttt3r_ros.evaluation.map_view import Link
from ttt3r_ros.evaluation.metrics.depth import (
    DepthComparison,
    DepthReport,
    OtherViewError,
    truth_window,
)
from ttt3r_ros.evaluation.metrics.map import map_errors
from ttt3r_ros.evaluation.metrics.true_surface import surface_of_stream
from ttt3r_ros.evaluation.metrics_json import depth_metrics, map_metrics, quantiles_ms, without_nan
from ttt3r_ros.evaluation.report.data import DepthExample, ExampleSampler, SequenceReport, Series
from ttt3r_ros.evaluation.report.files import METRICS, write_sequence
from ttt3r_ros.evaluation.report.pictures import draw_map, make_example
from ttt3r_ros.geometry import Intrinsics, Transform
from ttt3r_ros.io.atomic import atomic_write
from ttt3r_ros.loading import Model, load_model
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.recordings.recording import Recording, Selection, Truth
from ttt3r_ros.recordings.source import Source
from ttt3r_ros.run import run
from ttt3r_ros.types import EvaluationError, Frame, FrameResult, SourceError, TrackingState

_MAP_POINTS = 500_000  # compared and drawn at most; a larger map is subsampled evenly

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choices:
    """What decides the metrics beside the pipeline's settings."""

    selection: Selection = field(default_factory=Selection)
    alignment: str = "se3"  # in pictures and of the map
    max_true_depth_m: float | None = None  # pixels whose truth is farther are left out
    max_depth_m: float | None = None  # predictions are clipped to this after alignment
    published_shift: bool = False  # see `DepthComparison`
    depth_images: bool = False
    map_format: str = "ply"

    def depth_comparison(self, folder: Path) -> DepthComparison:
        """Return what true and estimated depth go to; it keeps a file in `folder`."""
        return DepthComparison(
            folder,
            max_true_m=self.max_true_depth_m,
            clip_m=self.max_depth_m,
            published_shift=self.published_shift,
        )


def evaluate(
    recording: Recording,
    config: Config,
    output: Path,
    choices: Choices | None = None,
    *,
    configuration: str = "",
    about: dict[str, Any] | None = None,
    progress: Callable[[Source], Iterable[Frame]] = iter,
) -> SequenceReport:
    """Process the images of a recording, compare with the truth, and write what `run` writes.

    `report.json`, `report.md`, `report.html` and `series.npz` come on top.

    Args:
        recording: images and truth.
        config: settings of the pipeline.
        output: the folder; made if it does not exist.
        choices: what beside the settings decides the metrics.
        configuration: what the settings are called.
        about: further entries of `report.json`.
        progress: is given the images and gives them back, one by one.

    Returns:
        The report; its metrics are the content of `report.json`.

    Raises:
        CheckpointError, ConfigError: as `Pipeline.from_config`.
        EvaluationError: the depth is not of the images' view.
        SourceError: the recording cannot be read. Where it is damaged after some images, these
            are evaluated, and `damage` says so.
        OSError: a file cannot be written.
    """
    choices = choices or Choices()
    seen = _follow(recording, config, output, choices, progress)
    truth, listener, pipeline, path = seen.truth, seen.listener, seen.pipeline, seen.path
    online = listener.collected
    final = online.on_path(path)
    comparison = compare(final, truth, choices.alignment)
    as_it_was = compare(online, truth, choices.alignment)
    cloud = pipeline.map.cloud(config.map.min_hits, _MAP_POINTS)
    T = comparison.T_truth_map
    points = cloud.points.astype(np.float64) @ T[:3, :3].T + T[:3, 3]
    surface, no_map = _map(recording, seen.source, truth, choices, comparison, listener, points)
    no_depth = "" if seen.depth else listener.why_no_depth()
    loops = judge_loops(pipeline.loops.graph.loops, comparison.true_poses)
    counts = pipeline.loops.counts
    metrics = {
        "sequence": recording.name,
        "configuration": configuration,
        "trajectory": comparison.metrics,
        "trajectory_online": as_it_was.metrics if counts.corrections else None,
        "loops": loop_metrics(counts, loops) if config.loop.enabled else None,
        "depth": seen.depth and depth_metrics(seen.depth),
        "map": surface,
        "not_compared": {"trajectory": comparison.reason, "depth": no_depth, "map": no_map},
        **seen.processed,
        "ground_truth": {"poses": truth.pose_source, "depth": truth.depth_source},
        **_made_with(config, pipeline.model),
        **(about or {}),
    }
    return write_report(
        metrics,
        output,
        series_of(final, comparison),
        listener.sampler.views(),
        (cloud.points, cloud.colours),
        comparison.T_truth_map,
        voxel_m=config.map.voxel_size_m,
        loops=loop_lines(loops, path, comparison.T_truth_map),
    )


class _Followed(NamedTuple):
    """A recording that was processed."""

    truth: Truth
    source: Source
    listener: _Listener
    pipeline: Pipeline
    processed: dict[str, Any]  # metrics of that
    path: list[tuple[int, Transform]]  # final
    depth: DepthReport | None


def _follow(
    recording: Recording,
    config: Config,
    output: Path,
    choices: Choices,
    progress: Callable[[Source], Iterable[Frame]],
) -> _Followed:
    """Process the images beside the truth."""
    with ExitStack() as stack:
        truth = stack.enter_context(recording.truth())
        source = stack.enter_context(recording.images(choices.selection))
        truth.follow(source)
        model = load_model(config)
        if model.note:
            _log.warning("%s", model.note)
        output.mkdir(parents=True, exist_ok=True)
        (output / METRICS).unlink(missing_ok=True)  # of what is written over now
        depth = stack.enter_context(choices.depth_comparison(output))
        listener = _Listener(truth, depth)
        pipeline = Pipeline(model, config)
        processed, path = _process(source, pipeline, output, choices, listener, progress)
        processed["runtime"].update(_peak_memory(model))
        report = depth.report()
    return _Followed(truth, source, listener, pipeline, processed, path, report)


def _made_with(config: Config, model: Model) -> dict[str, Any]:
    return {
        "checkpoint": run_metadata.checkpoint(config),
        "config": to_dict(config),
        "versions": run_metadata.versions(),
        "hardware": run_metadata.hardware(model.device),
        "date": date.today().isoformat(),
    }


def _process(
    source: Source,
    pipeline: Pipeline,
    output: Path,
    choices: Choices,
    listener: _Listener,
    progress: Callable[[Source], Iterable[Frame]],
) -> tuple[dict[str, Any], list[tuple[int, Transform]]]:
    """Process the images; return the metrics of that, and the final path."""
    damage: list[str] = []
    began_s = time.perf_counter()
    summary = run(
        _until_damage(progress(source), damage),
        pipeline,
        output,
        depth_images=choices.depth_images,
        map_format=choices.map_format,
        on_result=listener.take,
    )
    run_s = time.perf_counter() - began_s - listener.spent_s
    metrics = {
        "damage": damage[0] if damage else None,
        "images": summary.processed,
        "images_before_reset": listener.collected.before_reset,
        "images_lost": summary.lost,
        "images_rejected": summary.rejected + len(source.rejected),
        "segments": summary.segments,
        "map_points": summary.map_points,
        "runtime": {
            "images_per_second": summary.processed / run_s,
            **quantiles_ms("step", listener.steps_s),
        },
    }
    return metrics, summary.path


def write_report(
    metrics: dict[str, Any],
    output: Path,
    series: Series,
    views: Sequence[DepthExample],
    cloud: tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]] | None,
    T_truth_map: Transform,
    voxel_m: float = Config().map.voxel_size_m,
    loops: Sequence[Link] = (),
) -> SequenceReport:
    """Write all files of the report of one sequence.

    Args:
        metrics: the content of `report.json`.
        output: the folder; it exists.
        series: what happened over time.
        views: examples.
        cloud: points [N, 3] and colours [N, 3] of the map, in its own frame.
        T_truth_map: similarity from the map's frame to that of the series.
        voxel_m: edge of the map's voxels.
        loops: lines to be drawn into the map, in the frame of the series.

    Raises:
        OSError: a file cannot be written.
    """
    metrics = without_nan(metrics)
    picture = None
    if cloud is not None and len(cloud[0]):
        points = cloud[0].astype(np.float64) @ T_truth_map[:3, :3].T + T_truth_map[:3, 3]
        picture = draw_map(points, cloud[1], series, voxel_m=voxel_m, loops=loops)
    report = SequenceReport(
        metrics["sequence"], metrics["configuration"], metrics, series, views, picture
    )
    write_sequence(report, output)
    # Last of all: where it is, the evaluation is whole.
    with atomic_write(output / METRICS) as unfinished:
        unfinished.write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", "utf-8")
    return report


def _until_damage(frames: Iterable[Frame], damage: list[str]) -> Iterator[Frame]:
    """Yield images; where the recording is damaged after some, note it and end."""
    images = 0
    try:
        for frame in frames:
            yield frame
            images += 1
    except SourceError as error:
        if not images:
            raise
        _log.error("%s", error)
        damage.append(str(error))


class _Listener:
    """Collects what is compared in the end; `spent_s` is the time that took."""

    def __init__(self, truth: Truth, depth: DepthComparison) -> None:
        self._truth, self._depth = truth, depth
        self.collected = Collector()
        self.sampler = ExampleSampler()
        self.lens: Intrinsics | None = None  # of the camera's images
        self.depth_refusal = ""  # why true depth was not compared, if so
        self.steps_s: list[float] = []
        self.spent_s = 0.0

    def take(self, frame: Frame, result: FrameResult) -> None:
        """Take one processed image."""
        began_s = time.perf_counter()
        lost = result.state is TrackingState.LOST
        heard = Heard(
            stamp_ns=result.stamp_ns,
            T_map_camera=None if lost else result.T_map_camera,
            state=result.state,
            segment=result.segment,
            gain=result.mean_gain,
            confidence=result.median_confidence,
            scale=result.scale,
            step_s=result.step_s,
        )
        self.collected.add(heard, result.images_since_reset)
        self.lens = self.lens or frame.intrinsics
        self.steps_s.append(result.step_s)
        if not lost:
            self._compare_depth(result)
        self.spent_s += time.perf_counter() - began_s

    def why_no_depth(self) -> str:
        """Say why no depth was compared."""
        if not self._truth.depth_source:
            return "there is no true depth"
        return self.depth_refusal or "no true depth is of the time of an image"

    def _compare_depth(self, result: FrameResult) -> None:
        true_m = self._truth.depth(result.stamp_ns) if self._truth.depth_source else None
        shown = self.sampler.wants_next()
        if true_m is None and not shown:
            return
        depth = result.points[..., 2]
        if result.outside_fov is not None:
            depth = depth.where(~result.outside_fov, np.nan)
        depth_m = depth.cpu().numpy()
        if true_m is not None:
            try:
                self._depth.add(depth_m, true_m, result.crop)
            except OtherViewError as error:
                if not self.depth_refusal:
                    _log.warning("%s", error)
                self.depth_refusal, true_m = str(error), None
        if shown:
            seen = None if true_m is None else true_m[truth_window(result.crop, true_m.shape)]
            self.sampler.add(make_example(result.stamp_ns, result.rgb, depth_m, seen))


def _map(
    recording: Recording,
    source: Source,
    truth: Truth,
    choices: Choices,
    comparison: Comparison,
    listener: _Listener,
    points: npt.NDArray[np.float64],
) -> tuple[dict[str, Any] | None, str]:
    """Compare the map's points, aligned, with the surface that true depth and poses show.

    Returns:
        The metrics, or None and why.
    """
    if not (comparison.metrics and truth.depth_source):
        return None, "this takes true poses and true depth"
    if not len(points):
        return None, "the map is empty"
    if comparison.alignment != choices.alignment:
        return None, f"the poses allow no alignment {choices.alignment}"
    if listener.lens is None:
        return None, "the images have no intrinsics"
    with recording.truth() as again:  # depth is read in the order of time
        again.follow(source)
        try:
            surface = surface_of_stream(
                listener.collected.stamps_ns.tolist(),
                again,
                listener.lens,
                max_depth_m=choices.max_true_depth_m,
            )
        except EvaluationError as error:
            return None, str(error)
    return map_metrics(map_errors(points, surface), comparison.alignment), ""


def _peak_memory(model: Model) -> dict[str, int]:
    """Return the most memory that the process, and its GPU if it has one, have held so far."""
    peak = {"peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if model.device.type == "cuda":
        peak["peak_device_memory_bytes"] = torch.cuda.max_memory_allocated(model.device)
    return peak
