# SPDX-License-Identifier: Apache-2.0
"""The true surface that a map is compared with: what cameras at known places saw of it.

Samples come from true depth images, of a bag or a simulated room: what no camera saw is not part
of the surface. Of simulated rooms the exact distance to any point is known besides.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from ttt3r_ros.evaluation.metrics.depth import require_same_view
from ttt3r_ros.evaluation.metrics.map import Numbers, Points, Surface, estimated_normals
from ttt3r_ros.geometry import Intrinsics, Transform
from ttt3r_ros.recordings.recording import Truth
from ttt3r_ros.simulation.room import Rooms
from ttt3r_ros.types import EvaluationError

SPACING_M = 0.02
FARTHEST_M = 100.0
"""Depth from there on is no surface that a map should have: sky, or a sensor's largest number."""
_AT_ONCE = 1_000_000  # points that wait before they are thinned
_STEP_M = 1e-4  # of the differences that make normals


class SurfaceSamples:
    """Points seen, thinned as they come: of each cell of `spacing_m` the first one stays."""

    def __init__(self, spacing_m: float = SPACING_M) -> None:
        self._spacing_m = spacing_m
        self._parts: list[Points] = []
        self._waiting = 0

    def add(self, points: Points) -> None:
        """Take points [N, 3], metres in the world."""
        self._parts.append(self._thinned(points))
        self._waiting += len(self._parts[-1])
        if self._waiting > _AT_ONCE:
            self._parts, self._waiting = [self.points()], 0

    def points(self) -> Points:
        """Return those kept, [M, 3]."""
        return self._thinned(np.concatenate([np.empty((0, 3)), *self._parts]))

    def _thinned(self, points: Points) -> Points:
        cells = np.floor(points / self._spacing_m).astype(np.int64)
        # Sums may wrap around: cells less than 2^20 apart (21 km at 2 cm) always differ.
        keys = (cells[:, 0] << 42) + (cells[:, 1] << 21) + cells[:, 2]
        _, first = np.unique(keys, return_index=True)
        return points[np.sort(first)]


def depth_points(
    depth_m: npt.NDArray[np.floating], lens: Intrinsics, T_world_camera: Transform
) -> Points:
    """Return the points [N, 3] in the world that a depth image shows.

    Args:
        depth_m: [H, W] metres along the optical axis; not finite or not above 0 where unknown.
        lens: of an image with the same view, perhaps of another size.
        T_world_camera: of the optical frame.
    """
    rows, columns = np.nonzero(np.isfinite(depth_m) & (depth_m > 0))
    z = depth_m[rows, columns].astype(np.float64)
    # Pixel centres are at integers, so images of other sizes meet at their corners, -0.5.
    u = (columns + 0.5) * lens.width / depth_m.shape[1] - 0.5
    v = (rows + 0.5) * lens.height / depth_m.shape[0] - 0.5
    seen = np.column_stack(((u - lens.cx) / lens.fx * z, (v - lens.cy) / lens.fy * z, z))
    points: Points = seen @ T_world_camera[:3, :3].T + T_world_camera[:3, 3]
    return points


def surface_of_stream(
    stamps_ns: Iterable[int],
    truth: Truth,
    lens: Intrinsics,
    spacing_m: float = SPACING_M,
    max_depth_m: float | None = None,
) -> Surface:
    """Collect the surface that a recording's true depth and poses show; normals are estimated.

    Args:
        stamps_ns: of the images that the map was made from, in order.
        truth: of the recording; its poses set the frame of the surface.
        lens: of the images; depth is registered to them.
        spacing_m: between points.
        max_depth_m: pixels whose depth is not below that are left out; None: `FARTHEST_M`.

    Raises:
        OtherViewError: the depth is not of the images' view.
        EvaluationError: no stamp has both a true pose and true depth.
    """
    max_depth_m = FARTHEST_M if max_depth_m is None else max_depth_m
    samples = SurfaceSamples(spacing_m)
    stamps = np.array([*stamps_ns], np.int64)
    for place, pose in zip(*truth.poses(stamps), strict=True):
        depth_m = truth.depth(int(stamps[place]))
        if depth_m is not None:
            require_same_view(depth_m.shape, lens.width, lens.height)
            near = np.where(depth_m < max_depth_m, depth_m, np.nan)
            samples.add(depth_points(near, lens, pose))
    points = samples.points()
    if not len(points):
        raise EvaluationError("true surface: no image has both a true pose and true depth")
    return Surface(points, estimated_normals(points))


def surface_of_room(rooms: Rooms, samples: SurfaceSamples) -> Surface:
    """Return what was seen of a room, with exact normals.

    Args:
        rooms: one room.
        samples: of its true depth images.
    """
    points = samples.points()
    steps = _STEP_M * np.eye(3)
    slope = np.column_stack(
        [room_distance(rooms, points + s) - room_distance(rooms, points - s) for s in steps]
    )
    return Surface(points, slope / np.linalg.norm(slope, axis=1, keepdims=True))


def room_distance(rooms: Rooms, points: Points) -> Numbers:
    """Return the signed distance of points to all surfaces of a room, seen or not.

    Exact in free space, where it is above 0. Behind surfaces it is below 0 and exact but where
    solids overlap, such as in a wardrobe that is cut by another box; there it is one of the depths
    below the solids' own surfaces, the largest.

    Args:
        rooms: one room.
        points: [N, 3] metres in the room's world.

    Returns:
        [N] metres.

    Raises:
        EvaluationError: not one room.
    """
    if len(rooms) != 1:
        raise EvaluationError(f"rooms: expected one, got {len(rooms)}")
    centre, half, yaw = (
        tensor[0].double().cpu()
        for tensor in (rooms.solid_centre, rooms.solid_half, rooms.solid_yaw)
    )
    boxes, cylinders = rooms.counts
    sin, cos = yaw.sin(), yaw.cos()
    result = torch.full((len(points),), torch.inf, dtype=torch.float64)
    for number in range(len(centre)):
        x, y, z = (torch.from_numpy(points) - centre[number]).unbind(dim=1)
        local = torch.stack(
            (cos[number] * x + sin[number] * y, cos[number] * y - sin[number] * x, z), dim=1
        )
        if number <= boxes:
            distance = _outside(local.abs() - half[number])
        elif number <= boxes + cylinders:
            across = local[:, :2].norm(dim=1) - half[number, 0]
            distance = _outside(torch.stack((across, z.abs() - half[number, 2]), dim=1))
        else:
            distance = local.norm(dim=1) - half[number, 0]
        result = torch.minimum(result, distance if number else -distance)  # 0 is seen from inside
    return result.numpy()


def _outside(beyond: torch.Tensor) -> torch.Tensor:
    """Signed distance [N] to a box from how far points are beyond its faces, [N, axes]."""
    distance: torch.Tensor = torch.linalg.vector_norm(beyond.clamp(min=0), dim=1)
    return distance + beyond.amax(dim=1).clamp(max=0)
