# SPDX-License-Identifier: Apache-2.0
"""Pictures of rooms with exact depth. What a ray meets is `intersection`'s, its colour `shading`'s.

Cameras are ROS/OpenCV optical frames: x right, y down, z forward; pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ttt3r_ros.simulation.intersection import nearest, prepare
from ttt3r_ros.simulation.room import Rooms
from ttt3r_ros.simulation.shading import make_look, shade

# Rays rendered at once: few enough for the CPU's second-level cache, enough to make the launching
# of operations cheap. A quarter or a fourfold of it cost 20 % on an EPYC with 1 MiB a core.
_CHUNK = {"cpu": 24_576, "cuda": 4_194_304}


class Rendering(NamedTuple):
    """What the cameras see."""

    rgb: Tensor  # [R, F, H, W, 3] float32 in [0, 1]
    depth_m: Tensor  # [R, F, H, W] along the optical axis, to the surface at the pixel's centre


@torch.no_grad()
def render(
    rooms: Rooms,
    T_world_camera: Tensor,
    intrinsics: Tensor | Sequence[float],
    height: int,
    width: int,
    *,
    supersampling: int = 1,
    rays_per_chunk: int | None = None,
) -> Rendering:
    """Render R rooms from F places each.

    May be wrapped in `torch.compile`: shapes are static and nothing depends on values. Compiled,
    everything is one chunk, for fused kernels need little memory and loops much compile time.

    Args:
        rooms: R rooms.
        T_world_camera: [R, F, 4, 4] poses of the optical frame, inside the room, outside of solids.
        intrinsics: fx, fy, cx, cy in pixels: four numbers, or a tensor that expands to [R, F, 4].
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.
        supersampling: a pixel's colour is the mean of this many rays squared.
        rays_per_chunk: bounds the memory; without it, what is fast on the rooms' device.

    Raises:
        ValueError: shapes that do not fit together, or a number below 1.
    """
    if T_world_camera.ndim != 4 or T_world_camera.shape[2:] != (4, 4):
        raise ValueError(f"T_world_camera: expected [R, F, 4, 4], got {[*T_world_camera.shape]}")
    if len(rooms) != len(T_world_camera):
        raise ValueError(f"T_world_camera: poses for {len(T_world_camera)} of {len(rooms)} rooms")
    numbers = {"height": height, "width": width, "supersampling": supersampling}
    for name, number in {**numbers, "rays_per_chunk": rays_per_chunk}.items():
        if number is not None and number < 1:
            raise ValueError(f"{name}: must be at least 1, got {number}")
    poses = T_world_camera.to(rooms.light_m)
    lens = torch.as_tensor(intrinsics, dtype=poses.dtype, device=poses.device)
    if lens.shape[-1:] != (4,):
        raise ValueError(f"intrinsics: expected fx, fy, cx, cy last, got {[*lens.shape]}")
    lens = lens.expand(*poses.shape[:2], 4).flatten(0, 1)  # [N, 4]
    if torch.compiler.is_compiling():
        rays_per_chunk = len(lens) * height * width * supersampling**2
    elif rays_per_chunk is None:
        rays_per_chunk = _CHUNK.get(poses.device.type, _CHUNK["cpu"])

    room = torch.arange(len(rooms), device=poses.device).repeat_interleave(poses.shape[1])
    cameras = _Cameras(poses.flatten(0, 1), lens, height, width)
    rgb, depth = _trace(rooms, room, cameras, supersampling, rays_per_chunk)
    if supersampling > 1:
        # The mean of depths across an edge is no surface's: rays through the pixels' centres.
        _, depth = _trace(rooms, room, cameras, 1, rays_per_chunk)
        grid = (-1, height, supersampling, width, supersampling, 3)
        rgb = rgb.view(grid).mean(dim=(2, 4))
    shape = (*poses.shape[:2], height, width)
    return Rendering(rgb.view(*shape, 3), depth.view(shape))


class _Cameras(NamedTuple):
    T_world_camera: Tensor  # [N, 4, 4]
    lens: Tensor  # [N, 4] fx, fy, cx, cy
    height: int
    width: int


def _trace(
    rooms: Rooms, room: Tensor, cameras: _Cameras, factor: int, rays_per_chunk: int
) -> tuple[Tensor, Tensor]:
    """Colours [N, H, W, 3] and depths [N, H, W], H and W being `factor` times the cameras'.

    Args:
        rooms: R rooms.
        room: [N] the room of each camera.
        cameras: N of them.
        factor: rays for each pixel, in either direction.
        rays_per_chunk: rays followed at once, at least a row of one camera.
    """
    # Where rays pass the plane z = 1: x [N, W] and y [N, H].
    u, v = (
        (torch.arange(size * factor, device=room.device) + 0.5) / factor - 0.5
        for size in (cameras.width, cameras.height)
    )
    fx, fy, cx, cy = cameras.lens[:, None].unbind(dim=2)
    x, y = (u - cx) / fx, (v - cy) / fy
    images = max(1, rays_per_chunk // (len(u) * len(v)))
    rows = max(1, rays_per_chunk // (images * len(u)))
    rgb = x.new_empty(len(x), len(v), len(u), 3)
    depth = x.new_empty(len(x), len(v), len(u))
    for part in _slices(len(x), images):
        here = rooms[room[part]]
        poses = cameras.T_world_camera[part]
        solids = (here.solid_centre, here.solid_half, here.solid_yaw)
        seen = prepare(*solids, poses, here.counts)
        look = make_look(here, fx[part, 0] * factor)
        for band in _slices(len(v), rows):
            rays = x[part], y[part, band]
            w, solid = nearest(seen, *rays)
            depth[part, band] = w.reciprocal()
            rgb[part, band] = shade(look, seen, *rays, depth[part, band], solid)
    return rgb, depth


def _slices(total: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, total, step)]


def add_noise(rgb: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add a sensor's noise.

    Args:
        rgb: [...] in [0, 1].
        sigma: standard deviation, on the same scale.
        generator: source of randomness, on the picture's device.
    """
    noise = torch.randn(rgb.shape, generator=generator, device=rgb.device, dtype=rgb.dtype)
    return (rgb + sigma * noise).clamp(0, 1)
