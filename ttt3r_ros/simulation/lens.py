# SPDX-License-Identifier: Apache-2.0
"""Pictures through a lens with radial distortion: the model plumb_bob of ROS with k1 and k2.

A point seen at (x, y, 1) from the camera falls on (x, y) (1 + k1 r² + k2 r⁴), r² = x² + y².
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttt3r_ros.simulation.renderer import Rendering, render
from ttt3r_ros.simulation.room import Rooms

_STEPS = 30  # of Newton's method, which needs 4 to 6


def undistort(x: Tensor, y: Tensor, k1: float, k2: float) -> tuple[Tensor, Tensor]:
    """Return through which (x, y, 1) the points seen at distorted image coordinates are looked at.

    Args:
        x: [...] float64, (u - cx) / fx.
        y: [...] float64, (v - cy) / fy.
        k1: of r².
        k2: of r⁴.

    Raises:
        ValueError: the lens folds the image over itself within these points.
    """
    seen = torch.hypot(x, y)
    radius = seen.clone()
    for _ in range(_STEPS):
        squared = radius.square()
        slope = 1 + 3 * k1 * squared + 5 * k2 * squared.square()
        excess = radius * (1 + k1 * squared + k2 * squared.square()) - seen
        # Where the slope is gone there is nothing to find; the check below says so.
        radius = radius - excess / slope.clamp(min=0.1)
    squared = radius.square()
    slope = 1 + 3 * k1 * squared + 5 * k2 * squared.square()
    stretch = 1 + k1 * squared + k2 * squared.square()
    if not ((slope > 0) & ((radius * stretch - seen).abs() < 1e-9)).all():
        raise ValueError(
            f"distortion: {k1:g}, {k2:g} fold the image over itself within its own borders"
        )
    return x / stretch, y / stretch


def render_distorted(
    rooms: Rooms,
    T_world_camera: Tensor,
    lens: tuple[float, float, float, float],
    distortion: tuple[float, float],
    height: int,
    width: int,
) -> Rendering:
    """Render through a distorting lens; depth stays exact, along the optical axis.

    Each pixel is rendered as a camera of its own with one pixel, whose principal point lies so
    that it looks along the pixel's ray: 40 times slower than `render`, and the same without
    distortion.

    Args:
        rooms: R rooms.
        T_world_camera: [R, F, 4, 4] as `render`.
        lens: fx, fy, cx, cy in pixels.
        distortion: k1, k2.
        height: of the pictures, in pixels.
        width: of the pictures, in pixels.

    Raises:
        ValueError: as `undistort` and `render`.
    """
    fx, fy, cx, cy = lens
    v, u = torch.meshgrid(
        torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )
    x, y = undistort((u - cx) / fx, (v - cy) / fy, *distortion)
    one = torch.ones_like(x)
    lenses = torch.stack((fx * one, fy * one, -fx * x, -fy * y), dim=-1).view(-1, 4)
    # The rows that a room has in the renderer's tables are copied for each camera: few at once.
    rays, pictures = 1024, []
    for frame in range(T_world_camera.shape[1]):
        poses = T_world_camera[:, frame : frame + 1].expand(-1, height * width, 4, 4)
        pictures.append(render(rooms, poses, lenses, 1, 1, rays_per_chunk=rays))
    rgb = torch.stack([picture.rgb for picture in pictures], dim=1)
    depth = torch.stack([picture.depth_m for picture in pictures], dim=1)
    shape = (*T_world_camera.shape[:2], height, width)
    return Rendering(rgb.view(*shape, 3), depth.view(shape))
