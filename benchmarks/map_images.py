# SPDX-License-Identifier: Apache-2.0
"""What `bench_map.py` puts into maps: images of a simulated room, and cells of other places."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.streams import Studio
from ttt3r_ros.geometry import Intrinsics, Transform, orthonormal

VOXEL_M = 0.05
SEED = 2_600_000  # of the room
FAR_M = 20.0  # the room is smaller

Cells = npt.NDArray[np.int64]  # [N, 3]
Cloud = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # points [N, 3], colours [N, 3]


@dataclass(frozen=True, slots=True)
class Image:
    """One image as each contestant wants it, every `stride`-th pixel."""

    points: Tensor  # float32 [N, 3] metres in the world
    colours: Tensor  # uint8 [N, 3]
    weights: Tensor  # float32 [N]
    depth_m: Tensor  # float32 [H, W, 1]
    rgb: Tensor  # float32 [H, W, 3] from 0 to 1
    lens: Intrinsics
    T_world_camera: Transform


def film(images: int, stride: int, width: int = 512) -> list[Image]:
    """Render images of a room, each from a place a second further on the camera's way."""
    studio = Studio(SEED, width, loop_s=60.0)
    poses = studio.path.pose(torch.arange(images, dtype=torch.float64))  # [1, F, 4, 4]
    rgb, depth_m = studio.render(poses)
    whole = studio.lens
    fx, fy, cx, cy = (number / stride for number in (whole.fx, whole.fy, whole.cx, whole.cy))
    lens = Intrinsics(fx, fy, cx, cy, -(-whole.width // stride), -(-whole.height // stride))
    v, u = torch.meshgrid(
        torch.arange(lens.height) - lens.cy, torch.arange(lens.width) - lens.cx, indexing="ij"
    )
    result = []
    for pose, depth, colour in zip(poses[0], depth_m[0], rgb[0], strict=True):
        z = depth[::stride, ::stride].float()
        seen = colour[::stride, ::stride].float().contiguous()
        T = orthonormal(pose.double().numpy())
        rotation, translation = torch.from_numpy(T[:3, :3]).float(), torch.from_numpy(T[:3, 3])
        rays = torch.stack([u / lens.fx, v / lens.fy, torch.ones_like(z)], dim=-1)
        points = (rays * z[..., None]).reshape(-1, 3) @ rotation.T + translation.float()
        colours = (255 * seen).round().byte().reshape(-1, 3)
        weights = z.reshape(-1).clamp(min=0.5).square().reciprocal()  # as the pipeline's
        result.append(Image(points, colours, weights, z[..., None].contiguous(), seen, lens, T))
    return result


def elsewhere(images: Sequence[Image], count: int, first: int = 0) -> Cells:
    """Return cells of other places: the room as these images see it, again and again beside it.

    Args:
        images: whose cells are copied.
        count: number of cells.
        first: number of the first copy; places of other copies differ.
    """
    points = torch.cat([image.points for image in images])
    room = np.unique(np.floor(points.numpy() / VOXEL_M).astype(np.int64), axis=0)
    numbers = first + np.arange(-(-count // len(room)))
    at = np.stack([numbers % 40 + 1, numbers // 40, np.zeros_like(numbers)], axis=1)
    step = math.ceil(2 * FAR_M / VOXEL_M)
    return (room + step * at[:, None]).reshape(-1, 3)[:count]


def cells_of(points: Tensor) -> Tensor:
    """Cells int32 [N, 3] that points lie in."""
    return torch.floor(points / VOXEL_M).int()


def parts(cells: Cells, size: int = 100_000) -> Iterator[Cells]:
    """Yield cells in parts of so many."""
    for start in range(0, len(cells), size):
        yield cells[start : start + size]


def centres(cells: Cells) -> npt.NDArray[np.float32]:
    """Points [N, 3] in the middle of cells."""
    return ((cells + 0.5) * VOXEL_M).astype(np.float32)
