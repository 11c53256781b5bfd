# SPDX-License-Identifier: Apache-2.0
"""A bag with ground truth through the pipeline, and how near the results are to the truth.

Every image goes the way of `offline.run`; what is added here only listens. The numbers are
computed in `trajectory_metrics` and `depth_metrics`, and explained in docs/evaluation.md.
"""

from __future__ import annotations

import json
import logging
import math
import statistics
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from ttt3r_ros.config import Config, to_dict
from ttt3r_ros.evaluation import circumstances
from ttt3r_ros.evaluation.depth_metrics import DepthComparison, DepthErrors, DepthReport
from ttt3r_ros.evaluation.ground_truth import GroundTruth
from ttt3r_ros.geometry import Transform
from ttt3r_ros.model import load_model
from ttt3r_ros.offline import RunSummary, run
from ttt3r_ros.pipeline import Pipeline
from ttt3r_ros.types import Frame, FrameResult

REPORT = "report.json"

_log = logging.getLogger(__name__)


def evaluate(
    frames: Iterable[Frame],
    truth: GroundTruth,
    config: Config,
    output: Path,
    *,
    depth_images: bool = False,
    map_format: str = "ply",
) -> tuple[dict[str, Any], RunSummary]:
    """Process images, compare with the truth and write `report.json` beside what `run` writes.

    Args:
        frames: the images of the bag that holds the truth, in order.
        truth: of these images.
        config: settings of the pipeline.
        output: the folder; made if it does not exist.
        depth_images: as `run`.
        map_format: as `run`.

    Returns:
        What is in the report, and what became of the images.

    Raises:
        CheckpointError, ConfigError: as `Pipeline.from_config`.
        EvaluationError: evo is not installed and there are poses to compare, or the depth is not
            of the images' view.
        SourceError: the bag is damaged.
        OSError: a file cannot be written.
    """
    if truth.pose_source:
        from ttt3r_ros.evaluation import trajectory_metrics  # noqa: F401  before the work begins
    model = load_model(config)
    if model.note:
        _log.warning("%s", model.note)
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        depth = stack.enter_context(DepthComparison(output)) if truth.depth else None
        listener = _Listener(truth, depth)
        began_s = time.perf_counter()
        summary = run(
            frames,
            Pipeline(model, config),
            output,
            depth_images=depth_images,
            map_format=map_format,
            on_result=listener.take,
        )
        run_s = time.perf_counter() - began_s - listener.spent_s
        depth_report = depth.report() if depth else None
    report = {
        "trajectory": listener.trajectory(),
        "depth": _depth_entries(depth_report) if depth_report else None,
        "images": summary.processed,
        "images_lost": summary.lost,
        "images_rejected": summary.rejected,
        "segments": summary.segments,
        "map_points": summary.map_points,
        "images_per_second": summary.processed / run_s,
        "step_ms_median": 1e3 * statistics.median(listener.steps_s) if listener.steps_s else None,
        "ground_truth": {"poses": truth.pose_source, "depth": truth.depth_topic},
        "checkpoint": circumstances.checkpoint(config),
        "config": to_dict(config),
        "versions": circumstances.versions(),
        "hardware": circumstances.hardware(model.device),
    }
    report = _without_nan(report)
    text = json.dumps(report, indent=2, allow_nan=False)
    (output / REPORT).write_text(text + "\n", encoding="utf-8")
    return report, summary


class _Listener:
    """Collects what is compared in the end; `spent_s` is the time that took."""

    def __init__(
        self,
        truth: GroundTruth,
        depth: DepthComparison | None,
    ) -> None:
        self._truth, self._depth = truth, depth
        self._stamps_ns: list[int] = []
        self._poses: list[Transform] = []
        self.steps_s: list[float] = []
        self.spent_s = 0.0

    def take(self, frame: Frame, result: FrameResult) -> None:
        """Take one tracked image."""
        began_s = time.perf_counter()
        if result.images_since_reset == 1 and self._stamps_ns:
            _log.warning("the %d poses before the reset are not compared", len(self._stamps_ns))
            self._stamps_ns.clear()
            self._poses.clear()
        self._stamps_ns.append(result.stamp_ns)
        self._poses.append(result.T_map_camera)
        self.steps_s.append(result.step_s)
        true_m = self._truth.depth.at(result.stamp_ns) if self._truth.depth else None
        if self._depth and true_m is not None:
            self._depth.add(result.points[..., 2].cpu().numpy(), true_m, result.crop)
        self.spent_s += time.perf_counter() - began_s

    def trajectory(self) -> dict[str, Any] | None:
        """Return the errors of the poses; None if there is no true pose for any of them."""
        if not self._truth.pose_source:
            return None
        from ttt3r_ros.evaluation.trajectory_metrics import trajectory_errors

        places, true_poses = self._truth.poses(np.array(self._stamps_ns, np.int64))
        if not places:
            _log.warning("%s: no pose at the images' stamps", self._truth.pose_source)
            return None
        return asdict(trajectory_errors([self._poses[i] for i in places], true_poses))


def _depth_entries(depth: DepthReport) -> dict[str, Any]:
    return {
        "images": depth.images,
        "pixels": depth.pixels,
        "pixels_not_finite": depth.pixels_not_finite,
        **asdict(depth.metric),
        "scale": depth.scale,
        **{f"{name}_scaled": value for name, value in asdict(depth.scaled).items()},
        "guess_m": depth.guess_m,
        **{f"guess_{name}": value for name, value in asdict(depth.guess).items()},
    }


def _without_nan(value: Any) -> Any:
    """Replace numbers that JSON cannot say by null."""
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_report(report: dict[str, Any]) -> str:
    """Return the errors as a text of several lines."""
    lines = []
    path, depth = report["trajectory"], report["depth"]
    if path:
        lines += [
            f"trajectory ({path['poses']} poses, {path['path_length_m']:.2f} m)",
            _line("ATE, RMSE after SE(3)", path["ate_rmse_m"], "m"),
            _line("the same, not moving", path["guess_ate_rmse_m"], "m"),
            _line("ATE, RMSE after Sim(3)", path["ate_sim3_rmse_m"], "m"),
            _line("scale of that", path["sim3_scale"], ""),
            _line("RPE of translation", path["rpe_trans_m"], "m"),
            _line("RPE of rotation", path["rpe_rot_deg"], "deg"),
        ]
    if depth:
        head = f"depth ({depth['images']} images, {depth['pixels']} pixels)"
        scaled = f"x {depth['scale']:.3g}"
        lines += [f"{head:34}{'as it is':>10}{scaled:>10}{'constant':>10}"]
        for name in (entry.name for entry in fields(DepthErrors)):
            numbers = (depth[key] for key in (name, f"{name}_scaled", f"guess_{name}"))
            lines.append(f"  {name:32}" + "".join(f"{number:10.4f}" for number in numbers))
    speed = f"{report['images_per_second']:.1f} images/s"
    if report["step_ms_median"] is not None:
        speed += f", a step takes {report['step_ms_median']:.1f} ms (median)"
    return "\n".join([*lines, speed])


def _line(name: str, value: float | None, unit: str) -> str:
    return f"  {name:32}" + ("  undefined" if value is None else f"{value:10.4f} {unit}")
