# SPDX-License-Identifier: Apache-2.0
"""What was heard during the demonstration: poses, some views, the map; and how the paths compare.

Hearing it is `ros.demo_client`'s; what is said and drawn of it is in `report` and
`picture`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import (
    Intrinsics,
    Transform,
    inverse,
    optical_extrinsics,
    orthonormal,
    transform,
)

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.float64]  # [M, 3] metres

MOST_VIEWS = 40  # kept at once: 13 MB of 320x240 images


@dataclass(frozen=True, slots=True)
class View:
    """An image, its depth, and the true depth of the same rays."""

    rgb: npt.NDArray[np.uint8]  # [H, W, 3]
    depth_m: Floats  # [h, w], NaN where unknown
    true_depth_m: Floats  # [h, w], NaN where unknown

    def abs_rel(self) -> float:
        """Return the mean of |depth - true depth| / true depth, NaN if no depth is known."""
        relative = np.abs(self.depth_m - self.true_depth_m) / self.true_depth_m
        known = np.isfinite(relative)
        return float(relative[known].mean()) if known.any() else float("nan")

    def known_share(self) -> float:
        """Return the share of pixels that have a depth."""
        return float(np.isfinite(self.depth_m).mean())


class SpreadViews:
    """Views by stamp, evenly spread over all that were added, and never more than `MOST_VIEWS`."""

    def __init__(self) -> None:
        self._kept: dict[int, View] = {}
        self._added, self._every = 0, 1

    def add(self, stamp_ns: int, view: View) -> None:
        """Take the next view; it is kept, or it is not."""
        if self._added % self._every == 0:
            self._kept[stamp_ns] = view
        self._added += 1
        if len(self._kept) > MOST_VIEWS:
            self._kept = {stamp: self._kept[stamp] for stamp in [*self._kept][::2]}
            self._every *= 2

    def __len__(self) -> int:
        return len(self._kept)

    def choose(self, count: int) -> dict[int, View]:
        """Return the views nearest to the middles of `count` equal parts of the time."""
        if not self._kept:
            return {}
        stamps = np.array(sorted(self._kept))
        times = stamps - stamps[0]
        middles = (np.arange(count) + 0.5) / count * times[-1]
        chosen = {int(stamps[np.abs(times - middle).argmin()]) for middle in middles}
        return {stamp: self._kept[stamp] for stamp in sorted(chosen)}


@dataclass(slots=True)
class Recording:
    """Poses by stamp in nanoseconds, some views, the map, and what the node said of itself."""

    true_poses: dict[int, Transform] = field(default_factory=dict)  # T_world_camera
    poses: dict[int, Transform] = field(default_factory=dict)  # T_odom_camera
    views: SpreadViews = field(default_factory=SpreadViews)
    depth_errors: list[float] = field(default_factory=list)  # of each view: see `View.abs_rel`
    depth_known: list[float] = field(default_factory=list)  # see `View.known_share`
    points: Floats = field(default_factory=lambda: np.empty((0, 3), np.float32))  # in odom
    colours: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 3), np.uint8))
    step_ms: list[float] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    counts: Mapping[str, int] = field(default_factory=dict)  # of the last status message

    def add_view(self, stamp_ns: int, view: View) -> None:
        """Take the errors of a view, and perhaps the view itself."""
        self.depth_errors.append(view.abs_rel())
        self.depth_known.append(view.known_share())
        self.views.add(stamp_ns, view)

    def rate_hz(self) -> float:
        """Return how many poses there were per second of the camera's time, 0 if unknown."""
        seconds = (max(self.poses) - min(self.poses)) / 1e9 if self.poses else 0.0
        return (len(self.poses) - 1) / seconds if seconds else 0.0

    def paths(self) -> tuple[Positions, Positions]:
        """Return the estimated path in odom and the true one in the world, where there are both."""
        stamps = self._compared()
        estimated, true = (
            np.array([poses[stamp][:3, 3] for stamp in stamps]).reshape(-1, 3)
            for poses in (self.poses, self.true_poses)
        )
        return estimated, true

    def T_odom_world_at_first(self) -> Transform:
        """Return where the world is if the first camera is where the odometry frame says it is.

        That is level, at the origin, looking along x.
        """
        return optical_extrinsics() @ inverse(self.true_poses[self._compared()[0]])

    def T_odom_world_aligned(self) -> Transform:
        """Return where the world is if the true path lies as near to the estimated one as it can.

        The rigid transform of least squares over all positions (Kabsch); with one position, or all
        of them on one line, one of several.
        """
        estimated, true = self.paths()
        middle, true_middle = estimated.mean(axis=0), true.mean(axis=0)
        R = orthonormal(transform((estimated - middle).T @ (true - true_middle), np.zeros(3)))
        return transform(R[:3, :3], middle - R[:3, :3] @ true_middle)

    def T_world_odom_by_directions(self) -> Transform:
        """Return the turn of odom after which its cameras look as near as can be as the true ones.

        Unlike the alignment of positions it cannot turn a crude map upside down. No translation.
        """
        turns = [
            self.true_poses[stamp][:3, :3] @ self.poses[stamp][:3, :3].T
            for stamp in self._compared()
        ]
        return orthonormal(transform(np.sum(turns, axis=0), np.zeros(3)))

    def _compared(self) -> list[int]:
        return [stamp for stamp in sorted(self.poses) if stamp in self.true_poses]


def moved(T_a_b: Transform, positions: Positions | Floats) -> Positions:
    """Return positions [M, 3] of frame b in frame a."""
    return np.asarray(positions @ T_a_b[:3, :3].T + T_a_b[:3, 3])


def along_rays(true_m: Floats, camera: Intrinsics, seen: Intrinsics) -> Floats:
    """Return the true depth along the rays of a smaller image, NaN beyond the larger one's edges.

    Args:
        true_m: [H, W].
        camera: intrinsics of `true_m`.
        seen: intrinsics of the result [h, w], of the same camera at another size.
    """
    u = np.rint((np.arange(seen.width) - seen.cx) / seen.fx * camera.fx + camera.cx).astype(int)
    v = np.rint((np.arange(seen.height) - seen.cy) / seen.fy * camera.fy + camera.cy).astype(int)
    inside = np.outer((v >= 0) & (v < camera.height), (u >= 0) & (u < camera.width))
    nearest = true_m[np.ix_(v.clip(0, camera.height - 1), u.clip(0, camera.width - 1))]
    return np.where(inside, nearest, np.float32(np.nan))
