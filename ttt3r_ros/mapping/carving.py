# SPDX-License-Identifier: Apache-2.0
"""Which points a depth image sees through; what follows from that is the map's business."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ttt3r_ros.geometry import Intrinsics, Transform, inverse
from ttt3r_ros.mapping.grouping import transform_points


def is_free_space(
    points: Tensor,
    depth: Tensor,
    intrinsics: Intrinsics,
    T_map_camera: Transform,
    margin: float,
    margin_m: float,
) -> Tensor:
    """Return where points lie clearly in front of measured depth, bool [N].

    The least depth of a pixel and its eight neighbours counts, and all nine must be known: at the
    border of an object a small error of pose or depth would eat the object otherwise.

    Args:
        points: float [N, 3], metres in the map's frame.
        depth: float [H, W], metres along z; NaN or 0 where it is not known.
        intrinsics: of `depth`.
        T_map_camera: pose of the camera's optical frame.
        margin: share of the depth that a point must at least be in front of it, ...
        margin_m: ... beside this much.

    Raises:
        ValueError: `depth` is not of the size that the intrinsics tell.
    """
    height, width = intrinsics.height, intrinsics.width
    if depth.shape != (height, width):
        raise ValueError(f"depth: expected [{height}, {width}], got {list(depth.shape)}")
    x, y, z = transform_points(points, inverse(T_map_camera)).unbind(dim=1)
    in_front = z > margin_m
    z = z.clamp(min=margin_m)
    column = (x / z * intrinsics.fx + intrinsics.cx).round()
    row = (y / z * intrinsics.fy + intrinsics.cy).round()
    in_view = (column >= 0) & (column < width) & (row >= 0) & (row < height) & in_front
    known = torch.where(depth > 0, depth, 0.0)  # NaN too
    least = -max_pool2d(-known[None, None], 3, stride=1, padding=1)[0, 0]  # [H, W]
    # Clamped numbers of pixels instead of a selection: no wait for the device.
    pixel = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
    return in_view & (z < (1 - margin) * least.flatten()[pixel] - margin_m)
