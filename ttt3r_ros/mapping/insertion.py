# SPDX-License-Identifier: Apache-2.0
"""Which points of a tracked image go into the map, and with what weight."""

from __future__ import annotations

import torch

from ttt3r_ros.camera.preprocessing import resize_mask
from ttt3r_ros.config import Config
from ttt3r_ros.mapping.filters import flying_pixel_mask, within_range
from ttt3r_ros.mapping.grouping import transform_points
from ttt3r_ros.mapping.voxel_map import VoxelMap
from ttt3r_ros.types import FrameResult

_NEAR_M = 0.5  # nearer points weigh no more than at this distance


def insert_image(voxels: VoxelMap, result: FrameResult, config: Config) -> None:
    """Merge an image whose place in the map is known."""
    limits = config.map
    usable = result.usable(config.confidence.min, config.depth.max_m)  # [H, W]
    if result.mask is not None:
        masked = torch.from_numpy(resize_mask(result.mask, result.crop))
        usable = usable & ~masked.to(usable.device)
    depth = result.points[..., 2]
    if limits.carve and result.intrinsics:
        voxels.carve(depth.where(usable, 0.0), result.intrinsics, result.T_map_camera)
    if limits.edge_filter:
        usable = usable & ~flying_pixel_mask(depth, limits.edge_filter)
    usable = usable & within_range(result.points, limits.max_range_m)
    stride = slice(None, None, limits.pixel_stride)
    good = usable[stride, stride]
    camera_points = result.points[stride, stride][good]  # [N, 3]
    colours = result.pixels[stride, stride][good]
    # Errors of depth grow with its square, so weights fall with it.
    weights = result.confidence[stride, stride][good]
    weights = weights / camera_points[:, 2].clamp(min=_NEAR_M).square()
    points = transform_points(camera_points, result.T_map_camera)
    voxels.insert(points, colours, weights, result.segment, result.T_map_camera[:3, 3])
