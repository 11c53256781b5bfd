# SPDX-License-Identifier: Apache-2.0
"""What a picture tells by itself: how much is on it, how fine, and how like another it is.

All is measured on thumbnails, so neither the cost nor the numbers depend on the size of the image.
Judging them is `tracking_state`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

_LONG_EDGE = 32  # pixels of the thumbnail
_SHIFT = 4  # pictures may be shifted by this fraction of their edges: 17 of 67 degrees
_LEAST_CONTRAST = 1e-3  # grey levels; only so that nothing is divided by zero

Thumbnail = npt.NDArray[np.float32]  # [h, w, 3], grey levels


@dataclass(frozen=True, slots=True, eq=False)
class Appearance:
    """One picture, small."""

    thumbnail: Thumbnail
    contrast: float  # standard deviation of the thumbnail's brightness, in grey levels
    # RMS steps between neighbours from left to right and from top to bottom, at twice the
    # thumbnail's size and as shares of the contrast. Motion blurs one more than the other.
    detail: tuple[float, float]


def appearance(rgb: npt.NDArray[np.uint8]) -> Appearance:
    """Look at a picture, uint8 [H, W, 3]."""
    double = thumbnail(rgb, 2)
    small = cv2.resize(double, _size(rgb), interpolation=cv2.INTER_AREA).astype(np.float32)
    contrast = float(small.mean(axis=2).std())
    grey, unit = double.mean(axis=2), max(contrast, _LEAST_CONTRAST)
    across, down = (float(np.sqrt(np.square(np.diff(grey, axis=axis)).mean())) for axis in (1, 0))
    return Appearance(small, contrast, (across / unit, down / unit))


def thumbnail(rgb: npt.NDArray[np.uint8], times: int = 1) -> Thumbnail:
    """Shrink a picture, uint8 [H, W, 3], to 32 pixels, or so many times 32, of its long edge."""
    width, height = _size(rgb)
    shrunk = cv2.resize(rgb, (times * width, times * height), interpolation=cv2.INTER_AREA)
    return shrunk.astype(np.float32)


def _size(rgb: npt.NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of a picture's thumbnail."""
    height, width = rgb.shape[:2]
    unit = max(height, width) / _LONG_EDGE
    return max(_SHIFT, round(width / unit)), max(_SHIFT, round(height / unit))


def similarity(one: Appearance, other: Appearance) -> float:
    """Correlation of two pictures of one size where they match best, -1 to 1.

    The middle of each is looked for in the other, shifted by up to a quarter of the edges, and
    the worse of the two answers counts. Brightness and contrast as a whole make no difference.
    """
    return min(_match(one.thumbnail, other.thumbnail), _match(other.thumbnail, one.thumbnail))


def _match(middle_of: Thumbnail, image: Thumbnail) -> float:
    y, x = (edge // _SHIFT for edge in middle_of.shape[:2])
    middle = np.ascontiguousarray(middle_of[y:-y, x:-x])
    return float(cv2.matchTemplate(image, middle, cv2.TM_CCOEFF_NORMED).max())
