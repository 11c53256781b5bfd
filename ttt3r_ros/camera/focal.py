# SPDX-License-Identifier: Apache-2.0
"""The focal length of a camera from the points a network saw through it.

A pixel at offset u from the principal point, seen at x, y, z, obeys u = f · (x/z, y/z).
"""

from __future__ import annotations

from collections import deque
from math import isqrt
from statistics import median

import torch
from torch import Tensor

from ttt3r_ros.geometry import Intrinsics

_IMAGES = 31  # whose focal lengths the median is taken of
_ITERATIONS = 10
_SAMPLES = 4096  # pixels looked at, about
_FEWEST = 64  # good samples; below nothing is said
_CENTRE = 0.1  # share of the longest offset; pixels nearer to the centre say little about f
_DISAGREEMENT = 0.5  # median residual over median slope; above it the points fit no camera


class FocalEstimator:
    """The intrinsics of a camera of which nobody tells: a median over the stream's images.

    The principal point is taken to be the middle of the image, ((W - 1) / 2, (H - 1) / 2).
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._focals: deque[float] = deque(maxlen=_IMAGES)

    def clear(self) -> None:
        """Forget all images: another camera's follow, or images of another size."""
        self._focals.clear()

    def add(self, focal: float | None) -> None:
        """Take the focal length in pixels of an image that can be relied on; None: unknown."""
        if focal is not None:
            self._focals.append(focal)

    def intrinsics(self, focal: float | None, width: int, height: int) -> Intrinsics | None:
        """Return the intrinsics of an image of `width` x `height`.

        Args:
            focal: what the image itself says, in pixels; None: nothing.
            width: in pixels.
            height: in pixels.

        Returns:
            None as long as no image has said anything.
        """
        focals = [*self._focals, *(() if focal is None else (focal,))]
        if not focals:
            return None
        middle = median(focals)
        return Intrinsics(middle, middle, (width - 1) / 2, (height - 1) / 2, width, height)


def robust_focal(
    points: Tensor, confidence: Tensor, *, min_confidence: float, min_depth: float = 0.05
) -> float | None:
    """Return the focal length in pixels of the camera that saw these points.

    An evenly spaced sample of pixels is used, the principal point is the middle of the image.
    Offsets u are exact and slopes m = (x/z, y/z) are not, so 1/f is fitted to m = u / f: the
    median of all pixels first, then ten steps in which pixels lose weight as they disagree
    (Cauchy).

    Args:
        points: [H, W, 3] in the camera's optical frame, on any device.
        confidence: [H, W].
        min_confidence: pixels below are left out.
        min_depth: pixels with less z are left out, in the unit of `points`.

    Returns:
        None where fewer than 64 good samples remain or they fit no pinhole camera.

    Raises:
        ValueError: wrong shapes.
    """
    if confidence.shape != points.shape[:2]:
        raise ValueError(
            f"confidence: expected {list(points.shape[:2])}, got {list(confidence.shape)}"
        )
    offset, slope = _offsets_and_slopes(points)
    radius = offset.norm(dim=-1)
    good = (confidence >= min_confidence) & (points[..., 2] > min_depth)
    good &= slope.isfinite().all(dim=-1) & (radius > _CENTRE * radius.max())
    stride = max(1, isqrt(good.numel() // _SAMPLES))
    sample = (slice(None, None, stride), slice(None, None, stride))
    good = good[sample]
    offset, slope = offset[sample][good], slope[sample][good]  # [K, 2] each
    if len(offset) < _FEWEST:
        return None
    along = (offset * slope).sum(dim=-1)
    squared = offset.square().sum(dim=-1)
    inverse = (along / squared).median()
    for _ in range(_ITERATIONS):
        residual = (slope - inverse * offset).norm(dim=-1)
        weight = 1 / (1 + (residual / (2 * residual.median()).clamp(min=1e-9)).square())
        inverse = (weight * along).sum() / (weight * squared).sum()
    residual = (slope - inverse * offset).norm(dim=-1).median()
    agreed = residual < _DISAGREEMENT * slope.norm(dim=-1).median()
    return float(1 / inverse) if bool(agreed & (inverse > 0)) else None


def _offsets_and_slopes(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels' offsets from the middle and x/z, y/z of the points, [H, W, 2] each."""
    if points.ndim != 3 or points.shape[2] != 3:
        raise ValueError(f"points: expected [H, W, 3], got {list(points.shape)}")
    height, width = points.shape[:2]
    column = torch.arange(width, device=points.device, dtype=points.dtype) - (width - 1) / 2
    row = torch.arange(height, device=points.device, dtype=points.dtype) - (height - 1) / 2
    offset = torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)
    return offset, points[..., :2] / points[..., 2:]
