# SPDX-License-Identifier: Apache-2.0
"""How two segments that share an image differ in scale, from what each says about that image."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

_SAMPLES = 4096  # pixels looked at, about
_FEWEST = 64  # good samples; below nothing is said
_NORMAL = 1.4826  # standard deviations in a median absolute deviation of normal errors


@dataclass(frozen=True, slots=True)
class BoundaryScale:
    """By what the later segment's lengths must be multiplied to agree with the earlier one's."""

    ratio: float
    spread: float  # robust standard deviation of log(ratio) over pixels; infinite: nothing known


def boundary_scale(
    points: Tensor, confidence: Tensor, later_points: Tensor, later_confidence: Tensor
) -> BoundaryScale:
    """Compare two predictions of one image.

    The ratio is the weighted median of depth over later depth; a pixel weighs as the lesser of
    its two confidences. A median, for where one of them misses an object depths differ by a lot.

    Args:
        points: [H, W, 3] in the camera's optical frame, of the earlier segment.
        confidence: [H, W].
        later_points: [H, W, 3] of the later segment, in a unit of its own.
        later_confidence: [H, W].

    Raises:
        ValueError: the shapes differ.
    """
    shapes = {tuple(t.shape[:2]) for t in (points, confidence, later_points, later_confidence)}
    if len(shapes) != 1:
        raise ValueError(f"points, confidence: images of several sizes, {sorted(shapes)}")
    stride = max(1, isqrt(confidence.numel() // _SAMPLES))
    sample = (slice(None, None, stride), slice(None, None, stride))
    depth, later = points[sample][..., 2], later_points[sample][..., 2]
    weight = torch.minimum(confidence[sample], later_confidence[sample])
    good = (depth > 0) & (later > 0) & depth.isfinite() & later.isfinite() & weight.isfinite()
    if int(good.sum()) < _FEWEST:
        return BoundaryScale(1.0, float("inf"))
    logarithm, weight = (depth[good] / later[good]).log(), weight[good]
    middle = _weighted_median(logarithm, weight)
    spread = _NORMAL * _weighted_median((logarithm - middle).abs(), weight)
    ratio, spread = torch.stack((middle.exp(), spread)).tolist()
    return BoundaryScale(ratio, spread)


def _weighted_median(values: Tensor, weights: Tensor) -> Tensor:
    """The value below and above which lies half of the weight, of values [K]."""
    values, order = values.sort()
    total = weights[order].cumsum(0)
    return values[torch.searchsorted(total, total[-1:] / 2)][0]
