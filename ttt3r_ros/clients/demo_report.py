# SPDX-License-Identifier: Apache-2.0
"""How near the demonstration came to the truth, and that as a text.

What was heard is in `recording`, the picture is in `picture`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import torch

from ttt3r_ros.clients.demo_recording import Positions, Recording, moved
from ttt3r_ros.config import Config
from ttt3r_ros.evaluation import run_metadata as run_metadata

_PICTURE = """\
The picture shows the map from above with the path that the node estimated; the true path is laid
over it by the rigid transform, without scaling, that brings the two nearest to each other. The
numbers on the path are those of the views beside the map, which are spread evenly over the time.
Estimated and true depth have one scale of colours.
"""
_MODEL = """\
## What the model is, and what it is not

It is the small demo model that comes with the package: the architecture of the published networks
at about a hundredth of their size, trained on nothing but simulated rooms like this one. Seeds of
the rooms of its training are below 900,000; this room is number {seed:,}.

- It is not for real cameras. For those there are the published weights: docs/weights.md.
- It is not evidence of how well the published networks do.
- Its metres come from the natural sizes of rooms and furniture that it has learnt. A single camera
  cannot measure them, and a view of one bare wall does not show them.

docs/demo_model.md says how it was trained and how good it is on many rooms.
"""


@dataclass(frozen=True, slots=True)
class Errors:
    """How far the recording is from the truth; NaN is unknown.

    Positions are compared by root mean squares in metres: `ate_m` after the rigid alignment of
    least squares, `first_m` with the first cameras of both paths laid on each other. `resting_...`
    is the same for a camera that never moves.
    """

    ate_m: float
    resting_ate_m: float
    first_m: float
    resting_first_m: float
    abs_rel: float  # mean of |d - true| / true where there is a depth; mean over images
    depth_known: float  # share of pixels that have a depth


def errors(recording: Recording) -> Errors:
    """Compare a recording that has at least one pose with the truth."""
    estimated, true = recording.paths()
    true_at_first = moved(recording.T_odom_world_at_first(), true)
    depth_errors = [error for error in recording.depth_errors if np.isfinite(error)]
    return Errors(
        ate_m=_rms(estimated - moved(recording.T_odom_world_aligned(), true)),
        resting_ate_m=_rms(true - true.mean(axis=0)),
        first_m=_rms(estimated - true_at_first),
        resting_first_m=_rms(true_at_first - true_at_first[0]),
        abs_rel=float(np.mean(depth_errors)) if depth_errors else float("nan"),
        depth_known=float(np.mean(recording.depth_known)) if recording.depth_known else 0.0,
    )


def report(recording: Recording, *, note: str, device: torch.device, ros: str, seed: int) -> str:
    """Return the report in Markdown.

    Args:
        recording: of the whole demonstration, at least one pose in it.
        note: what must be said about the weights; empty: nothing.
        device: where the network ran.
        ros: versions of ROS and its middleware.
        seed: of the room.
    """
    warning = f"> **Note: {note}.**\n\n" if note else ""
    return (
        "# A simulated room, mapped by ttt3r_node\n\n"
        f"{warning}"
        "![map from above with both paths, views with their depth](picture.png)\n\n"
        f"{_PICTURE}\n"
        f"{_table('Images', _stream(recording))}\n"
        f"{_table('Accuracy', accuracy(recording))}\n"
        f"{_MODEL.format(seed=seed)}\n"
        f"{_table('Made with', _circumstances(device, ros))}"
    )


def accuracy(recording: Recording) -> dict[str, str]:
    """Return what was found out about the room and the path, in words."""
    found = errors(recording)
    estimated, true = recording.paths()
    return {
        "map points": str(len(recording.points)),
        "length of the true path": f"{_length(true):.2f} m",
        "length of the estimated path": f"{_length(estimated):.2f} m",
        "position error (ATE), RMSE after a rigid alignment": f"{found.ate_m:.3f} m",
        "the same for a camera that never moves": f"{found.resting_ate_m:.3f} m",
        "ratio of the two (below 1 is better than not moving)": _ratio(
            found.ate_m, found.resting_ate_m
        ),
        "position error, RMSE, in the frame of the first camera": f"{found.first_m:.3f} m",
        "that for a camera that never moves": f"{found.resting_first_m:.3f} m",
        "ratio of these two": _ratio(found.first_m, found.resting_first_m),
        "depth error (AbsRel), mean of abs(d - true) / true": (
            f"{found.abs_rel:.3f}" if np.isfinite(found.abs_rel) else "none: no depth was known"
        ),
        "pixels with a depth": f"{100 * found.depth_known:.0f} %",
    }


def _ratio(error_m: float, resting_m: float) -> str:
    return f"{error_m / resting_m:.2f}" if resting_m else "none: the camera stood still"


def _stream(recording: Recording) -> dict[str, str]:
    return {
        "sent": str(len(recording.true_poses)),
        **{name.replace("_", ", "): str(count) for name, count in recording.counts.items()},
        "processed per second": f"{recording.rate_hz():.1f}",
        "time of a step, median": f"{np.median(recording.step_ms):.1f} ms",
        "from stamp to result, median": f"{np.median(recording.latency_ms):.1f} ms",
    }


def _circumstances(device: torch.device, ros: str) -> dict[str, str]:
    found = run_metadata.hardware(device)
    return {
        **{name: version for name, version in run_metadata.versions().items() if version},
        "ROS": ros,
        "weights, SHA-256": run_metadata.checkpoint(Config())["sha256"][:16],
        "network on": found["gpu"] or "CPU",
        "CPU": f"{found['cpu']}, {found['cores']} cores",
        "system": platform.platform(),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _table(title: str, rows: Mapping[str, str]) -> str:
    lines = [f"| {title} | |", "|---|---|", *(f"| {name} | {rows[name]} |" for name in rows)]
    return "\n".join(lines) + "\n"


def _rms(vectors: Positions) -> float:
    return float(np.sqrt((vectors**2).sum(axis=1).mean()))


def _length(path: Positions) -> float:
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
