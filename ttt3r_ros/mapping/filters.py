# SPDX-License-Identifier: Apache-2.0
"""Which pixels of an image of points are good enough for the map; pure functions on one image.

Confidence and finiteness are judged where the image comes from.
"""

from __future__ import annotations

import torch
from torch import Tensor


def within_range(points: Tensor, max_range_m: float) -> Tensor:
    """Return where points are near enough, bool [H, W].

    Args:
        points: float [H, W, 3], metres in the camera's frame; not finite is never near enough.
        max_range_m: greatest distance from the camera.
    """
    distance: Tensor = torch.linalg.vector_norm(points, dim=-1)
    return distance <= max_range_m


def flying_pixel_mask(depth: Tensor, share: float) -> Tensor:
    """Return where a jump of depth is next to the pixel, bool [H, W].

    At the border of an object, depth that is not sharp lies between the object and what is behind
    it; in the map such flying pixels become curtains. A pixel is at a jump if its depth and that
    of one of its four neighbours differ by more than a share of the nearer. A plane seen at the
    angle a from its normal, with a focal length of f pixels, differs by tan(a) / f: with f = 100
    and a share of 0.1 it is left alone up to 84 degrees.

    Args:
        depth: float [H, W], metres along z. NaN, and what is not positive, is no neighbour.
        share: of the nearer depth, above 0.
    """
    result = torch.zeros_like(depth, dtype=torch.bool)
    for axis in (0, 1):
        length = depth.shape[axis]
        if length < 2:
            continue
        one, other = depth.narrow(axis, 0, length - 1), depth.narrow(axis, 1, length - 1)
        nearer = one.minimum(other)
        jump = ((one - other).abs() > share * nearer).logical_and_(nearer > 0)
        result.narrow(axis, 0, length - 1).logical_or_(jump)
        result.narrow(axis, 1, length - 1).logical_or_(jump)
    return result
