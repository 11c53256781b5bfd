# SPDX-License-Identifier: Apache-2.0
"""Pictures of a report: examples of depth, the map from above; and pictures as text for a page."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ttt3r_ros.evaluation.map_view import RGB, Link, draw_from_above
from ttt3r_ros.evaluation.report.data import DepthExample, Floats, Numbers, Picture, Series
from ttt3r_ros.evaluation.report.plots import horizontal_axes
from ttt3r_ros.io.depth_colours import colour_depth, colour_share, depth_range

VIEW_WIDTH = 320  # of pictures that are embedded, several for each example
MAP_SIZE = (720, 960)  # height, width
LARGEST_ERROR = 0.5  # of the true depth, at the end of the scale of colours

UNKNOWN: RGB = (128, 128, 128)
_ESTIMATED: RGB = (86, 180, 233)  # of Okabe and Ito, told apart by everybody
_TRUE: RGB = (240, 228, 66)
_QUALITY = 85  # of JPEG


def make_example(
    stamp_ns: int,
    rgb: Picture,
    depth_m: npt.NDArray[np.floating],
    true_depth_m: npt.NDArray[np.floating] | None,
) -> DepthExample:
    """Return an example no wider than a page shows it.

    Args:
        stamp_ns: of the image.
        rgb: [H, W, 3].
        depth_m: [h, w] of the same view, metres; not finite or not above 0 where unknown.
        true_depth_m: [H', W'] of the same view, likewise; None if there is none.
    """
    height, width = rgb.shape[:2]
    size = (min(width, VIEW_WIDTH), round(height * min(1.0, VIEW_WIDTH / width)))
    return DepthExample(
        stamp_ns,
        np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8),
        _depth(depth_m, size),
        None if true_depth_m is None else _depth(true_depth_m, size),
    )


def _depth(depth_m: npt.NDArray[np.floating], size: tuple[int, int]) -> Floats:
    small = cv2.resize(depth_m.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    return np.where(np.isfinite(small) & (small > 0), small, np.float32(np.nan))


def relative_error(view: DepthExample) -> Floats | None:
    """Return |p - g| / g [h, w], NaN where unknown; None without the truth."""
    if view.true_depth_m is None:
        return None
    error: Floats = np.abs(view.depth_m - view.true_depth_m) / view.true_depth_m
    return error


def range_of(views: Sequence[DepthExample]) -> tuple[float, float]:
    """Return the depths in metres between which nearly all of the views' are; there is a view."""
    true = (view.true_depth_m for view in views)
    return depth_range([*(view.depth_m for view in views), *(d for d in true if d is not None)])


def colour_example(depth_m: Floats, range_m: tuple[float, float]) -> Picture:
    """Return depth [H, W] as colours [H, W, 3] from yellow, near, to blue; NaN is grey."""
    return colour_depth(depth_m, range_m, cv2.COLORMAP_VIRIDIS, UNKNOWN)


def colour_error(error: Floats) -> Picture:
    """Return relative errors [H, W] as colours from black, right, to yellow; NaN is grey."""
    return colour_share(error / LARGEST_ERROR, cv2.COLORMAP_INFERNO, UNKNOWN)


def draw_map(
    points: npt.NDArray[np.floating],
    colours: npt.NDArray[np.uint8],
    series: Series,
    *,
    voxel_m: float,
    ceiling_m: float = 0.8,
    loops: Sequence[Link] = (),
) -> Picture:
    """Draw the map from above with both paths.

    Args:
        points: [N, 3] in the frame of the series' positions, metres.
        colours: [N, 3].
        series: of the sequence.
        voxel_m: edge of the map's voxels.
        ceiling_m: what is higher than this above the cameras' mean height is left out.
        loops: lines in the frame of the points.

    Returns:
        uint8 [*MAP_SIZE, 3], the estimate blue, the truth yellow.
    """
    across, along, up = horizontal_axes(series.up)
    # `draw_from_above` has x up and y to the left.
    turn = np.stack((along, -across, up))
    estimated, true = (
        positions[np.isfinite(positions).all(axis=1)] @ turn.T
        for positions in (series.positions_m, series.true_positions_m)
    )
    level_m = float(estimated[:, 2].mean()) if len(estimated) else 0.0
    paths: list[tuple[Numbers, RGB, str]] = [(estimated, _ESTIMATED, "estimate")]
    if len(true):
        paths.insert(0, (true, _TRUE, "truth"))
    return draw_from_above(
        (points @ turn.T).astype(np.float32),
        colours,
        paths,
        MAP_SIZE,
        links=[(ends @ turn.T, colour) for ends, colour in loops],
        ceiling_m=level_m + ceiling_m,
        point_m=voxel_m,
    )


def jpeg_uri(picture: Picture, width: int) -> str:
    """Return a picture, made as narrow as `width` if it is wider, as a data URI."""
    if picture.shape[1] > width:
        size = (width, round(width * picture.shape[0] / picture.shape[1]))
        picture = np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
    return _uri(picture, ".jpg", "image/jpeg", [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def png_uri(picture: Picture) -> str:
    """Return a picture without loss as a data URI."""
    return _uri(picture, ".png", "image/png", [])


def _uri(picture: Picture, suffix: str, kind: str, options: Sequence[int]) -> str:
    done, data = cv2.imencode(suffix, np.ascontiguousarray(picture[..., ::-1]), list(options))
    if not done:
        raise ValueError(f"picture: {[*picture.shape]} cannot be encoded as {kind}")
    return f"data:{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
