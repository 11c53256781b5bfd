# SPDX-License-Identifier: Apache-2.0
"""How high the camera stands above the floor, from the points of one image.

What the height says about scale is `scale_source`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, isqrt, radians

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ttt3r_ros.geometry import Transform, Vector

_SAMPLES = 4096  # pixels looked at, about
_FEWEST = 64  # points on the floor
_LEAST_SHARE = 0.06  # of the pixels looked at that lie on the floor
_STEEPEST = 0.15  # sine of the angle under the horizon, at least; nearer to it the level tells most
_WINDOW = 9  # samples along the edge of the square that shows which way a surface faces
_LEAST_VARIANCE = 1e-4  # of log steepness in a window, to tell which way a surface faces
_LEVEL_SLOPE = 0.5  # between 0, a level surface, and 1, an upright one
_BIN = 0.02  # of log height
_MODE_BINS = 9  # that a surface spreads over: 9 % to either side
_MODE = 0.3  # share of the strongest mode that a lower one needs
_ITERATIONS = 5
_REACH = (0.04, 0.12, 0.25)  # relative distance of the plane's points: least, at first, most
_LEVEL = 0.1  # weight of the level in a plane's fit, beside 1 for the points
_TILT = radians(8.0)  # of the floor against the level, at most
_BENEATH = 0.1  # relative distance from which points lie beneath the plane
_BENEATH_SHARE = 0.2  # as many of them, in shares of the plane's, and it is no floor
_NORMAL = 1.4826  # standard deviations in a median absolute deviation of normal errors


@dataclass(frozen=True, slots=True)
class FloorEstimate:
    """The floor as one image shows it."""

    height: float  # of the camera above it, in the unit of the points
    spread: float  # robust standard deviation of the floor's depths, relative
    share: float  # of the pixels looked at, those on the floor


def floor_height(
    points: Tensor, confidence: Tensor, T_level_camera: Transform, *, min_confidence: float
) -> FloorEstimate | None:
    """Measure how far the camera is from the floor.

    Pixels on level surfaces are counted by their height below the camera, and the lowest height
    with many of them is the floor: table tops lie above it. There a plane is fitted, for the
    level may be off by some degrees. An evenly spaced sample of pixels is used, and goes from the
    device to the CPU.

    Args:
        points: [H, W, 3] in the camera's optical frame, in any unit, on any device.
        confidence: [H, W].
        T_level_camera: [4, 4], rotates the camera's optical frame into any frame with z up; the
            translation does not count.
        min_confidence: pixels below are left out.

    Returns:
        None where less than 6 % of the pixels show a floor, it is more than 8 degrees off the
        level, or too much lies beneath it.

    Raises:
        ValueError: wrong shapes.
    """
    if points.ndim != 3 or points.shape[2] != 3:
        raise ValueError(f"points: expected [H, W, 3], got {list(points.shape)}")
    if confidence.shape != points.shape[:2]:
        raise ValueError(
            f"confidence: expected {list(points.shape[:2])}, got {list(confidence.shape)}"
        )
    if T_level_camera.shape != (4, 4):
        raise ValueError(f"T_level_camera: expected [4, 4], got {list(T_level_camera.shape)}")
    down: Vector = -T_level_camera[2, :3]  # in the camera's frame
    seen, low = _below_the_horizon(points, confidence, min_confidence, down)
    fewest = max(_FEWEST, _LEAST_SHARE * low.size)
    level = seen[low & _is_level(seen, low, down)]  # [K, 3]
    height = _lowest_mode(level @ down, fewest / 2)
    if height is None:
        return None
    plane, reach = _fit_plane(level, down, height)
    distance = level @ plane - 1
    on_floor = distance[np.abs(distance) < reach]
    beneath = seen[low] @ plane - 1 > max(_BENEATH, 1.5 * reach)
    norm = float(np.linalg.norm(plane))
    if (
        len(on_floor) < fewest
        or plane @ down < cos(_TILT) * norm
        or beneath.sum() > _BENEATH_SHARE * len(on_floor)
    ):
        return None
    return FloorEstimate(1 / norm, _spread(on_floor), len(on_floor) / low.size)


def _below_the_horizon(
    points: Tensor, confidence: Tensor, min_confidence: float, down: Vector
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """A sample of the points, [h, w, 3], and which are good and clearly below the horizon."""
    stride = max(1, isqrt(confidence.numel() // _SAMPLES))
    sample = (slice(None, None, stride), slice(None, None, stride))
    both = torch.cat((points[sample], confidence[sample][..., None].to(points.dtype)), dim=-1)
    numbers = both.double().cpu().numpy()
    good = np.isfinite(numbers).all(axis=-1)
    good &= (numbers[..., 2] > 0) & (numbers[..., 3] >= min_confidence)
    seen = np.where(good[..., None], numbers[..., :3], 0.0)
    return seen, seen @ down > _STEEPEST * np.linalg.norm(seen, axis=-1)


def _is_level(
    seen: npt.NDArray[np.float64], low: npt.NDArray[np.bool_], down: Vector
) -> npt.NDArray[np.bool_]:
    """Which of the points [h, w, 3] that are `low` [h, w] lie on a level surface.

    Height below the camera is distance along the ground times the ray's steepness. From ray to
    ray, the height stays on a level surface, and the distance on an upright one. So log height is
    fitted to log steepness over a small window; the slope is 0 on the former, 1 on the latter.
    """
    height = np.where(low, seen @ down, 1.0)
    along = np.linalg.norm(seen - height[..., None] * down, axis=-1)
    y = np.log(height)
    x = np.where(low, y - np.log(np.where(low, along, 1.0)), 0.0)
    sums = (_window_sum(values) for values in (low.astype(np.float64), x, y, x * x, x * y))
    n, sum_x, sum_y, sum_xx, sum_xy = sums
    variance = n * sum_xx - sum_x**2
    slope: npt.NDArray[np.float64] = n * sum_xy - sum_x * sum_y
    return (variance > _LEAST_VARIANCE * n**2) & (np.abs(slope) < _LEVEL_SLOPE * variance)


def _window_sum(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The sum of values [h, w] over the window around each."""
    size = (_WINDOW, _WINDOW)
    return np.asarray(
        cv2.boxFilter(values, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
    )


def _lowest_mode(heights: Vector, fewest: float) -> float | None:
    """The greatest of the heights [K] around which many others lie, None if none are many."""
    if len(heights) < fewest:
        return None
    bins = np.log(heights) / _BIN
    first = bins.min()
    histogram = np.bincount((bins - first).astype(np.int64), minlength=_MODE_BINS)
    counts = np.convolve(histogram, np.ones(_MODE_BINS), mode="same")
    strong = np.flatnonzero(counts >= max(fewest, _MODE * counts.max()))
    if len(strong) == 0:
        return None
    lowest = max(0, strong[-1] + 1 - _MODE_BINS)  # the last bin is on the slope behind the top
    top = lowest + counts[lowest : strong[-1] + 1].argmax()
    return float(np.exp((first + top + 0.5) * _BIN))


def _fit_plane(points: Vector, down: Vector, height: float) -> tuple[Vector, float]:
    """Fit a plane to those of the points [K, 3] near a level one, least squares, reweighted.

    Rays are exact and depths are not, by a share of themselves. So what is minimised is the
    distance of 1 / depth from the plane's, relative to it, beside the angle to the level.

    Returns:
        The plane, [3]: plane · p = 1 for a point p on it, and its length is 1 / height. And the
        relative distance up to which points belong to it.
    """
    plane = down / height
    least, reach, most = _REACH
    sideways = np.eye(3) - np.outer(down, down)
    for _ in range(_ITERATIONS):
        near = points[np.abs(points @ plane - 1) < reach]
        if len(near) < _FEWEST / 2:
            break
        depth = near @ plane  # over the plane's
        weight = (1 - ((depth - 1) / reach) ** 2) ** 2
        met = near / depth[:, None]  # where the rays meet the plane
        level = _LEVEL * weight.sum() / (plane @ plane) * sideways
        plane = np.linalg.solve((met.T * weight) @ met + level, (weight / depth) @ met)
        reach = float(np.clip(3 * _spread(depth - 1), least, most))
    return plane, reach


def _spread(errors: Vector) -> float:
    return _NORMAL * float(np.median(np.abs(errors)))
