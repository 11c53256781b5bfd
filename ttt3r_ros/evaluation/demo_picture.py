# SPDX-License-Identifier: Apache-2.0
"""The demonstration in one picture: an image, its depth, and the map from above."""

from __future__ import annotations

import cv2
import numpy as np

from ttt3r_ros.evaluation.demo_report import Floats, Recording
from ttt3r_ros.evaluation.map_view import BACKGROUND, RGB, Picture, draw_from_above, write

ESTIMATED: RGB = (255, 150, 30)
TRUE: RGB = (90, 230, 130)
_PAGE: RGB = (50, 53, 62)
_WIDTH, _GAP, _CAPTION = 480, 16, 34  # pixels: of the left panels, around panels, above them
_FONT = 0.62


def draw_picture(recording: Recording, note: str, *, voxel_m: float) -> Picture:
    """Draw three panels with captions.

    Args:
        recording: what to draw; it has an image and a depth.
        note: stands below the panels; empty: nothing.
        voxel_m: edge of the map's voxels in metres.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        ValueError: there is no image or no depth.
    """
    if recording.rgb is None or recording.depth_m is None:
        raise ValueError("no image with a depth was recorded")
    image, depth = _to_width(recording.rgb), _to_width(colour_depth(recording.depth_m))
    _draw_depth_scale(depth, farthest(recording.depth_m))
    estimated, true = recording.paths()
    map_ = draw_from_above(
        recording.points,
        recording.colours,
        [(true, TRUE, "true path"), (estimated, ESTIMATED, "estimated path")],
        len(image) + len(depth) + _CAPTION + _GAP,
        point_m=voxel_m,
    )
    below = _GAP + _CAPTION + len(map_)
    page = np.full(
        (below + (_CAPTION if note else 0) + _GAP, 3 * _GAP + _WIDTH + len(map_), 3),
        _PAGE,
        np.uint8,
    )
    second_row = _GAP + _CAPTION + len(image) + _GAP
    _place(page, image, _GAP, _GAP, "image")
    _place(page, depth, second_row, _GAP, "depth estimated from it")
    caption = f"map from above: {len(recording.points):,} points, ceiling left out"
    _place(page, map_, _GAP, 2 * _GAP + _WIDTH, caption)
    write(page, note, (_GAP, below + _CAPTION - 8), _FONT)
    return page


def farthest(depth_m: Floats) -> float:
    """Return the depth in metres, rounded up, beyond which hardly any is; 1 if none is known."""
    known = depth_m[np.isfinite(depth_m)]
    return float(np.ceil(np.percentile(known, 98))) if len(known) else 1.0


def colour_depth(depth_m: Floats) -> Picture:
    """Return depth [H, W] as colours [H, W, 3] from red, near, to blue; NaN is dark."""
    nearness = 1 - np.nan_to_num(depth_m).clip(0, farthest(depth_m)) / farthest(depth_m)
    colours = _turbo((255 * nearness).astype(np.uint8))
    return np.where(np.isfinite(depth_m)[..., None], colours, np.array(BACKGROUND, np.uint8))


def _turbo(values: Picture) -> Picture:
    """Return colours [H, W, 3] of values, uint8 [H, W]."""
    return np.asarray(cv2.applyColorMap(values, cv2.COLORMAP_TURBO)[..., ::-1], np.uint8)


def _to_width(picture: Picture) -> Picture:
    height = round(picture.shape[0] * _WIDTH / picture.shape[1])
    return np.asarray(cv2.resize(picture, (_WIDTH, height)), np.uint8)


def _draw_depth_scale(panel: Picture, farthest_m: float) -> None:
    """Draw the colours of 0 m (at the bottom) to `farthest_m` along the right edge."""
    height, width = panel.shape[:2]
    right = width - _GAP
    bar = np.linspace(0, 255, height - 100).astype(np.uint8)[:, None].repeat(_GAP, axis=1)
    panel[50:-50, right - _GAP : right] = _turbo(bar)
    for text, bottom in ((f"{farthest_m:.0f} m", 40), ("0 m", height - 24)):
        (length, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _FONT, 1)
        write(panel, text, (right - length, bottom), _FONT)


def _place(page: Picture, panel: Picture, top: int, left: int, caption: str) -> None:
    """Write a caption and put a panel below it."""
    write(page, caption, (left, top + _CAPTION - 12), _FONT)
    height, width = panel.shape[:2]
    page[top + _CAPTION :, left:][:height, :width] = panel
