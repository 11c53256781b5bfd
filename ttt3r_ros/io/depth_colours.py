# SPDX-License-Identifier: Apache-2.0
"""Depth as colours, for whoever looks at it: reports, the demo's picture, the viewer."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB
Floats = npt.NDArray[np.float32]
UNKNOWN = (24, 26, 32)


def depth_range(depths_m: Iterable[Floats]) -> tuple[float, float]:
    """Return half metres between which nearly all depths are; 0 to 1 if none is known."""
    known = np.concatenate([depth[np.isfinite(depth)] for depth in depths_m])
    if not len(known):
        return 0.0, 1.0
    near_m, far_m = np.percentile(known, (2, 98))
    return float(np.floor(2 * near_m)) / 2, float(np.floor(2 * far_m) + 1) / 2


def colour_depth(
    depth_m: Floats,
    range_m: tuple[float, float],
    colours: int = cv2.COLORMAP_TURBO,
    unknown: tuple[int, int, int] = UNKNOWN,
) -> Picture:
    """Return depth [H, W] in metres as colours [H, W, 3]: from red, near, to blue; NaN is dark.

    Args:
        depth_m: what is shown.
        range_m: of near and far; what is beyond looks like these.
        colours: of OpenCV; near is at their upper end.
        unknown: colour of NaN.
    """
    near_m, far_m = range_m
    return colour_share((far_m - depth_m) / (far_m - near_m), colours, unknown)


def colour_share(share: Floats, colours: int, unknown: tuple[int, int, int]) -> Picture:
    """Return values [H, W] from 0 to 1 as colours [H, W, 3] of OpenCV; NaN is `unknown`."""
    levels = (255 * np.nan_to_num(share).clip(0, 1)).astype(np.uint8)
    picture = cv2.applyColorMap(levels, colours)[..., ::-1]
    return np.where(np.isfinite(share)[..., None], picture, np.array(unknown, np.uint8))
