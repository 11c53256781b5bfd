# SPDX-License-Identifier: Apache-2.0
"""What was heard during the demonstration, how near it is to the truth, and that as a text.

Hearing it is `ros.demo_client`'s, the picture is in `demo_picture`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt
import torch

from ttt3r_ros.evaluation import circumstances
from ttt3r_ros.geometry import Intrinsics, Transform, inverse, optical_mount

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.float64]  # [M, 3] metres in odom


@dataclass(slots=True)
class Recording:
    """Poses by stamp in nanoseconds, the last images, the map, and what the node said of itself."""

    true_poses: dict[int, Transform] = field(default_factory=dict)  # T_world_camera
    poses: dict[int, Transform] = field(default_factory=dict)  # T_odom_camera
    rgb: npt.NDArray[np.uint8] | None = None  # [H, W, 3] the last image that has a depth
    depth_m: Floats | None = None  # [h, w] its depth, NaN where unknown
    depth_errors: list[float] = field(default_factory=list)  # of each image: see `depth_error`
    points: Floats = field(default_factory=lambda: np.empty((0, 3), np.float32))  # in odom
    colours: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 3), np.uint8))
    step_ms: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)  # of the last status message

    def rate_hz(self) -> float:
        """Return how many poses there were per second of the camera's time, 0 if unknown."""
        seconds = (max(self.poses) - min(self.poses)) / 1e9 if self.poses else 0.0
        return (len(self.poses) - 1) / seconds if seconds else 0.0

    def paths(self) -> tuple[Positions, Positions]:
        """Return the estimated and the true path at the stamps that have both.

        The true path is moved so that it begins where the odometry frame says the camera is at
        first: level, at the origin, looking along x.
        """
        stamps = [stamp for stamp in sorted(self.poses) if stamp in self.true_poses]
        if not stamps:
            return np.empty((0, 3)), np.empty((0, 3))
        T_odom_world = optical_mount() @ inverse(self.true_poses[stamps[0]])
        estimated = [self.poses[stamp][:3, 3] for stamp in stamps]
        true = [(T_odom_world @ self.true_poses[stamp])[:3, 3] for stamp in stamps]
        return np.array(estimated), np.array(true)


def depth_error(depth_m: Floats, seen: Intrinsics, true_m: Floats, camera: Intrinsics) -> float:
    """Return the mean of |depth - true depth| / true depth, NaN if no depth is known.

    Args:
        depth_m: [h, w], NaN where unknown.
        seen: intrinsics of `depth_m`.
        true_m: [H, W] of the same camera at another size.
        camera: intrinsics of `true_m`.
    """
    u = np.rint((np.arange(seen.width) - seen.cx) / seen.fx * camera.fx + camera.cx).astype(int)
    v = np.rint((np.arange(seen.height) - seen.cy) / seen.fy * camera.fy + camera.cy).astype(int)
    inside = np.outer((v >= 0) & (v < camera.height), (u >= 0) & (u < camera.width))
    true = true_m[np.ix_(v.clip(0, camera.height - 1), u.clip(0, camera.width - 1))]
    known = inside & np.isfinite(depth_m)
    if not known.any():
        return float("nan")
    return float(np.mean(np.abs(depth_m - true)[known] / true[known]))


def report(recording: Recording, *, note: str, device: torch.device, ros: str) -> str:
    """Return the report in Markdown.

    Args:
        recording: of the whole demonstration, at least one pose in it.
        note: what must be said about the weights; empty: nothing.
        device: where the network ran.
        ros: versions of ROS and its middleware.
    """
    warning = f"> **Note: {note}.**\n\n" if note else ""
    return (
        "# A simulated room, mapped by ttt3r_node\n\n"
        f"{warning}"
        "![input image, depth, map from above](picture.png)\n\n"
        f"{_table('Images', _stream(recording))}\n"
        f"{_table('Accuracy', accuracy(recording))}\n"
        f"{_table('Made with', _circumstances(device, ros))}"
    )


def accuracy(recording: Recording) -> dict[str, str]:
    """Return what was found out about the room and the path, in words."""
    estimated, true = recording.paths()
    rmse_m = _rms(estimated - true)
    still_m = _rms(true - true[:1])
    errors = [error for error in recording.depth_errors if np.isfinite(error)]
    return {
        "map points": str(len(recording.points)),
        "length of the true path": f"{_length(true):.2f} m",
        "length of the estimated path": f"{_length(estimated):.2f} m",
        "position error, RMSE, in the frame of the first camera": f"{rmse_m:.3f} m",
        "the same for a camera that never moves": f"{still_m:.3f} m",
        "ratio of the two (below 1 is better than standing still)": (
            f"{rmse_m / still_m:.2f}" if still_m else "none: the camera stood still"
        ),
        "depth error, mean of abs(d - true) / true, median over images": (
            f"{np.median(errors):.3f}" if errors else "none: no depth was known"
        ),
    }


def _stream(recording: Recording) -> dict[str, str]:
    return {
        "sent": str(len(recording.true_poses)),
        **{name.replace("_", ", "): str(count) for name, count in recording.counts.items()},
        "processed per second": f"{recording.rate_hz():.1f}",
        "time of a step, median": f"{np.median(recording.step_ms):.1f} ms",
        "from stamp to result, median": f"{np.median(recording.latency_ms):.1f} ms",
    }


def _circumstances(device: torch.device, ros: str) -> dict[str, str]:
    found = circumstances.hardware(device)
    return {
        **{name: version for name, version in circumstances.versions().items() if version},
        "ROS": ros,
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
