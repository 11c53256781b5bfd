# SPDX-License-Identifier: Apache-2.0
"""The numbers of metrics as they stand in `report.json`; what they mean: docs/evaluation.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from ttt3r_ros.evaluation.metrics.depth import DepthErrors, DepthReport
from ttt3r_ros.evaluation.metrics.map import MapErrors
from ttt3r_ros.evaluation.metrics.trajectory import TrajectoryErrors

_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def trajectory_metrics(errors: TrajectoryErrors) -> dict[str, Any]:
    """Return the errors of poses, by alignment where that matters."""
    drift = errors.scale_drift
    return {
        "poses": errors.poses,
        "path_length_m": errors.path_length_m,
        "guess_ate_rmse_m": errors.guess_ate_rmse_m,
        "alignments": {name: asdict(found) for name, found in errors.by_alignment.items()},
        "motion": {f"{found.length_m:g} m": asdict(found) for found in errors.motion},
        "scale_drift": drift
        and {
            "window_m": drift.window_m,
            "last_by_first": drift.last_by_first,
            "log_spread": drift.log_spread,
        },
        "revisits": errors.revisits and asdict(errors.revisits),
    }


def depth_metrics(report: DepthReport) -> dict[str, Any]:
    """Return the errors of depth by alignment, the constant guess among them."""
    return {
        "images": report.images,
        "pixels": report.pixels,
        "pixels_not_finite": report.pixels_not_finite,
        "guess_m": report.guess_m,
        "alignments": {
            "metric": asdict(report.metric),
            "scale": {**asdict(report.scaled), "scale": report.scale},
            "scale_shift": {
                **asdict(report.shifted),
                "scale": report.shifted_scale,
                "shift_m": report.shift_m,
            },
            "guess": asdict(report.guess),
        },
    }


def map_metrics(errors: MapErrors, alignment: str) -> dict[str, Any]:
    """Return the errors of the map after an alignment of the poses."""
    metrics = asdict(errors)
    metrics["scores"] = [asdict(score) for score in errors.scores]
    return {"alignment": alignment, **metrics}


def quantiles_ms(name: str, seconds: list[float]) -> dict[str, float]:
    """Return median, 95th and 99th percentile of times, in milliseconds; nothing if none is."""
    if not seconds:
        return {}
    values = np.quantile(seconds, [*_QUANTILES.values()])
    return {f"{name}_ms_{key}": 1e3 * float(v) for key, v in zip(_QUANTILES, values, strict=True)}


def summary_text(metrics: Mapping[str, Any]) -> str:
    """Return the metrics that matter most as a text of several lines."""
    lines = []
    path, depth, surface = (metrics[name] for name in ("trajectory", "depth", "map"))
    if path:
        rigid, similar, as_it_is = (path["alignments"][a] for a in ("se3", "sim3", "none"))
        lines += [
            f"trajectory ({path['poses']} poses, {path['path_length_m']:.2f} m)",
            _line("ATE, RMSE after SE(3)", rigid["ate_rmse_m"], "m"),
            *_online(metrics),
            _line("the same, not moving", path["guess_ate_rmse_m"], "m"),
            _line("ATE, RMSE after Sim(3)", similar["ate_rmse_m"], "m"),
            _line("scale of that", similar["scale"], ""),
            _line("RPE of translation", as_it_is["rpe_trans_rmse_m"], "m"),
            _line("RPE of rotation", as_it_is["rpe_rot_rmse_deg"], "deg"),
        ]
    if depth:
        columns = depth["alignments"]
        head = f"depth ({depth['images']} images, {depth['pixels']} pixels)"
        lines.append(f"{head:34}" + "".join(f"{name:>12}" for name in columns))
        for name in (entry.name for entry in fields(DepthErrors)):
            cells = "".join(f"{column[name]:12.4f}" for column in columns.values())
            lines.append(f"  {name:32}{cells}")
    if surface:
        lines += [
            f"map ({surface['map_points']} points, aligned by {surface['alignment']})",
            _line("accuracy", surface["accuracy_m"], "m"),
            _line("completeness", surface["completeness_m"], "m"),
        ]
    runtime = metrics["runtime"]
    speed = f"{runtime['images_per_second']:.1f} images/s"
    if "step_ms_p50" in runtime:
        speed += f", a step takes {runtime['step_ms_p50']:.1f} ms (median)"
    counts = ("images", "images_lost", "images_rejected", "segments", "map_points")
    lines += [speed, ", ".join(f"{metrics[name]} {name.replace('_', ' ')}" for name in counts)]
    return "\n".join(lines)


def _online(metrics: Mapping[str, Any]) -> list[str]:
    """Return the line of the path that the robot had, if loops have moved it since."""
    path = metrics.get("trajectory_online")
    value = path and path["alignments"]["se3"]["ate_rmse_m"]
    return [_line("the same, as the robot had it", value, "m")] if path else []


def _line(name: str, value: float | None, unit: str) -> str:
    return f"  {name:32}" + ("  undefined" if value is None else f"{value:10.4f} {unit}")


def without_nan(value: Any) -> Any:
    """Replace numbers that JSON cannot say by null."""
    if isinstance(value, dict):
        return {key: without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
