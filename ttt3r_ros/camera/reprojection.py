# SPDX-License-Identifier: Apache-2.0
"""How well the points of two images agree: those of the one, seen by the camera of the other."""

from __future__ import annotations

from math import ceil, sqrt

import torch
from torch import Tensor

from ttt3r_ros.geometry import Intrinsics

_SAMPLES = 3072  # pixels looked at, at most
_NEAREST = 1e-3  # as a share of the median depth; no depth is taken to be less


def consistency(
    previous_points: Tensor,
    previous_confidence: Tensor,
    points: Tensor,
    T_camera_previous: Tensor,
    intrinsics: Intrinsics,
) -> Tensor:
    """Compare the depth of one image with that of the image before, moved into its camera.

    An evenly spaced sample of the previous pixels is used, of these the more confident half. What
    is hidden now or was then disagrees; the median is indifferent to it. Nothing here waits for
    the device, and the cost depends neither on the size nor on the content of the images.

    Args:
        previous_points: [H, W, 3] in the previous camera's optical frame.
        previous_confidence: [H, W].
        points: [H, W, 3] in the current camera's optical frame, in the same unit.
        T_camera_previous: [4, 4] the previous camera in the current one, on the same device.
        intrinsics: of both images.

    Returns:
        [3] on the device of the points: the median of |log(z moved / z seen)| over the points
        that fall into the current image, infinite if none does; the share that does; the median
        z of the points before they are moved.

    Raises:
        ValueError: shapes that do not fit together.
    """
    height, width = points.shape[:2]
    expected = {
        "points": (points, (intrinsics.height, intrinsics.width, 3)),
        "previous_points": (previous_points, (height, width, 3)),
        "previous_confidence": (previous_confidence, (height, width)),
        "T_camera_previous": (T_camera_previous, (4, 4)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected {list(shape)}, got {list(tensor.shape)}")
    stride = ceil(sqrt(height * width / _SAMPLES))
    sample = (slice(stride // 2, None, stride), slice(stride // 2, None, stride))
    confidence = previous_confidence[sample].flatten()  # [K]
    previous = previous_points[sample].reshape(-1, 3)  # [K, 3]
    kept = confidence >= confidence.median()
    typical = _median(previous[:, 2], kept & previous[:, 2].isfinite())
    nearest = _NEAREST * typical
    pose = T_camera_previous.to(points.dtype)
    x, y, depth = (previous @ pose[:3, :3].T + pose[:3, 3]).unbind(dim=-1)
    z = depth.clamp(min=nearest)
    column = (intrinsics.fx * x / z + intrinsics.cx).round()
    row = (intrinsics.fy * y / z + intrinsics.cy).round()
    # What is not a number compares false, so it is nowhere.
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    inside &= kept & (depth > nearest)
    index = torch.where(inside, row * width + column, torch.zeros_like(row)).long()
    seen = points[..., 2].reshape(-1)[index].clamp(min=nearest)
    disagreement = _median((z / seen).log().abs(), inside)
    return torch.stack((disagreement, inside.sum() / kept.sum(), typical))


def _median(values: Tensor, among: Tensor) -> Tensor:
    """The lower median of the values [K] that are `among` them [K], infinite if none is.

    `torch.nanmedian` would wait for the device.
    """
    ordered = values.where(among, torch.full_like(values, torch.inf)).sort().values
    middle = (among.sum() - 1).clamp(min=0) // 2
    return ordered.gather(0, middle[None])[0]
