# SPDX-License-Identifier: Apache-2.0
"""The demonstration in one picture: the map from above, some views with their depth, the errors."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ttt3r_ros.clients.demo_report import compared_poses, online_poses, ratio
from ttt3r_ros.clients.live_evaluation import LiveResult
from ttt3r_ros.evaluation.map_view import (
    BACKGROUND,
    RGB,
    TEXT,
    Picture,
    draw_from_above,
    text_width,
    write,
)
from ttt3r_ros.evaluation.report.data import DepthExample
from ttt3r_ros.geometry import Transform, inverse, orthonormal, transform
from ttt3r_ros.io.depth_colours import colour_depth, depth_range

Positions = npt.NDArray[np.float64]  # [M, 3] metres

ESTIMATED: RGB = (255, 150, 30)
ONLINE: RGB = (120, 150, 255)
TRUE: RGB = (90, 230, 130)
_PAGE: RGB = (50, 53, 62)
_FAINT: RGB = (170, 175, 185)
VIEWS = 5
# Pixels: of the page's parts, and of the gaps between them.
_MAP_WIDTH, _VIEW_WIDTH, _VIEW_HEIGHT, _TIME_WIDTH = 980, 192, 144, 74
_GAP, _TITLE_HEIGHT, _CAPTION_HEIGHT, _SCALE_HEIGHT, _FIGURES_HEIGHT = 16, 52, 34, 44, 116
_LARGE, _MEDIUM, _SMALL = 1.5, 1.05, 0.8  # of text
_COLUMNS = ("image", "estimated depth", "true depth")


def draw_picture(result: LiveResult, note: str, *, voxel_m: float) -> Picture:
    """Draw the map, views beside it and figures below them.

    Args:
        result: what to draw; it has a view, and poses that are compared.
        note: stands at the bottom; empty: nothing.
        voxel_m: edge of the map's voxels in metres.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        ValueError: there is no view.
    """
    views, series = result.report.views[:VIEWS], result.report.series
    if not views or series is None:
        raise ValueError("no image with a depth was recorded")
    strip = _draw_views(views, int(series.stamps_ns[0]))
    map_ = _draw_map(result, views, (len(strip) - _CAPTION_HEIGHT, _MAP_WIDTH), voxel_m)
    width = 3 * _GAP + _MAP_WIDTH + strip.shape[1]
    figures = _draw_figures(result, width - 2 * _GAP)
    height = _TITLE_HEIGHT + len(strip) + len(figures) + 3 * _GAP + bool(note) * _CAPTION_HEIGHT
    page = np.full((height, width, 3), _PAGE, np.uint8)
    title = f"A simulated room, mapped live from one camera in {series.seconds[-1]:.0f} s"
    write(page, title, (_GAP, _TITLE_HEIGHT - 14), _MEDIUM)
    points = len(result.cloud[0]) if result.cloud else 0
    caption = f"map from above: {points:,} points, ceiling left out"
    write(page, caption, (_GAP, _TITLE_HEIGHT + _CAPTION_HEIGHT - 12), _SMALL, colour=_FAINT)
    page[_TITLE_HEIGHT + _CAPTION_HEIGHT :, _GAP:][: len(map_), :_MAP_WIDTH] = map_
    page[_TITLE_HEIGHT:, 2 * _GAP + _MAP_WIDTH :][: len(strip), : strip.shape[1]] = strip
    below = _TITLE_HEIGHT + len(strip) + _GAP
    page[below:, _GAP:][: len(figures), : figures.shape[1]] = figures
    _write_within(page, note, (_GAP, height - _GAP), _SMALL, width - 2 * _GAP, colour=_FAINT)
    return page


def _draw_map(
    result: LiveResult, views: Sequence[DepthExample], size_px: tuple[int, int], voxel_m: float
) -> Picture:
    """Draw the map and both paths, the room's walls along the page's edges."""
    poses, true = compared_poses(result)
    points, colours = result.cloud or (np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8))
    T_page_map = _upright(poses, true, points)
    T_page_world = T_page_map @ inverse(result.comparison.T_truth_map)
    found = zip(result.collected.stamps_ns.tolist(), result.collected.poses, strict=True)
    places = {stamp: T[None, :3, 3] for stamp, T in found}
    paths = [
        (_moved(T_page_world, true[:, :3, 3]), TRUE, "true path, aligned"),
        (_moved(T_page_map, poses[:, :3, 3]), ESTIMATED, "estimated path"),
    ]
    if result.report.metrics["trajectory_online"]:
        before = online_poses(result)[:, :3, 3]
        paths[1:1] = [(_moved(T_page_map, before), ONLINE, "as it was before loops were closed")]
    return draw_from_above(
        _moved(T_page_map, points).astype(np.float32),
        colours,
        paths,
        size_px,
        marks=[
            (_moved(T_page_map, places[view.stamp_ns])[0], str(number))
            for number, view in enumerate(views, start=1)
            if view.stamp_ns in places
        ],
        point_m=voxel_m,
    )


def _upright(poses: Positions, true: Positions, points: npt.NDArray[np.float32]) -> Transform:
    """Return the turn after which the floor is level, the walls are upright and the map is wide.

    After it the cameras look as near as can be as the true ones do. Unlike the alignment of
    positions it cannot turn a crude map upside down.
    """
    turns = true[:, :3, :3] @ poses[:, :3, :3].swapaxes(1, 2)
    T_page_map = orthonormal(transform(turns.sum(axis=0), np.zeros(3)))
    if not len(points):
        return T_page_map
    low, high = np.percentile(_moved(T_page_map, points), (2, 98), axis=0)
    quarter = transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.zeros(3))
    return quarter @ T_page_map if np.argmax((high - low)[:2]) == 0 else T_page_map


def _moved(T_a_b: Transform, positions: npt.NDArray[np.floating]) -> Positions:
    """Return positions [M, 3] in the other frame."""
    return np.asarray(positions @ T_a_b[:3, :3].T + T_a_b[:3, 3])


def _draw_views(views: Sequence[DepthExample], first_ns: int) -> Picture:
    """Draw a row for each view: number and time, image, depth, true depth; and the colours."""
    pairs = [
        (view.depth_m, view.depth_m * np.nan if view.true_depth_m is None else view.true_depth_m)
        for view in views
    ]
    range_m = depth_range([depth_m for pair in pairs for depth_m in pair])
    row = _VIEW_HEIGHT + _GAP // 2
    scale_top = _CAPTION_HEIGHT + VIEWS * row
    lefts = [_TIME_WIDTH + i * (_VIEW_WIDTH + _GAP // 2) for i in range(3)]
    strip = np.full((scale_top + _SCALE_HEIGHT, lefts[2] + _VIEW_WIDTH, 3), _PAGE, np.uint8)
    for left, caption in zip(lefts, _COLUMNS, strict=True):
        place = (left, _CAPTION_HEIGHT - 12)
        _write_within(strip, caption, place, _SMALL, _VIEW_WIDTH, colour=_FAINT)
    for number, (view, pair) in enumerate(zip(views, pairs, strict=True), start=1):
        top = _CAPTION_HEIGHT + (number - 1) * row
        write(strip, str(number), (0, top + 66), _LARGE)
        seconds = f"{(view.stamp_ns - first_ns) / 1e9:.0f} s"
        write(strip, seconds, (0, top + 104), _SMALL, colour=_FAINT)
        depths = (colour_depth(depth_m, range_m) for depth_m in pair)
        for left, picture in zip(lefts, (view.rgb, *depths), strict=True):
            size = (_VIEW_WIDTH, _VIEW_HEIGHT)
            strip[top:, left:][:_VIEW_HEIGHT, :_VIEW_WIDTH] = cv2.resize(
                picture, size, interpolation=cv2.INTER_AREA
            )
    _draw_depth_scale(strip[scale_top:, lefts[1] :], range_m)
    return strip


def _draw_depth_scale(part: Picture, range_m: tuple[float, float]) -> None:
    """Draw the colours of near to far from left to right."""
    near, far = (f"{depth_m:g} m" for depth_m in range_m)
    left = text_width(near, _SMALL) + _GAP
    right = part.shape[1] - text_width(far, _SMALL) - _GAP
    top, bottom = _SCALE_HEIGHT - 30, _SCALE_HEIGHT - 8
    bar = np.linspace(0, 1, right - left, dtype=np.float32)[None].repeat(bottom - top, axis=0)
    part[top:bottom, left:right] = colour_depth(bar, (0.0, 1.0))
    write(part, near, (0, bottom - 3), _SMALL)
    write(part, far, (right + _GAP, bottom - 3), _SMALL)


def _draw_figures(result: LiveResult, width: int) -> Picture:
    """Draw what was measured: large numbers, what they are below them."""
    metrics = result.report.metrics
    path, depth, runtime = (metrics[name] for name in ("trajectory", "depth", "runtime"))
    ate_m = path["alignments"]["se3"]["ate_rmse_m"]
    abs_rel, known = "none", 0.0
    if depth:
        abs_rel = f"{100 * depth['alignments']['metric']['abs_rel']:.0f} %"
        known = depth["pixels"] / max(1, depth["pixels"] + depth["pixels_not_finite"])
    tiles = (
        (
            "none" if ate_m is None else f"{ate_m:.2f} m",
            "position error, ATE:",
            f"{ratio(ate_m, path['guess_ate_rmse_m'])} of a resting camera's",
        ),
        (abs_rel, "depth error, AbsRel,", f"known in {100 * known:.0f} % of the pixels"),
        (
            f"{metrics['images']} of {metrics['images_sent']}",
            "images processed",
            "live, over DDS",
        ),
        (
            f"{runtime['images_per_second'] or 0:.1f} /s",
            "images per second,",
            f"{runtime['step_ms_p50']:.0f} ms each",
        ),
    )
    figures = np.full((_FIGURES_HEIGHT, width, 3), _PAGE, np.uint8)
    tile = (width - (len(tiles) - 1) * _GAP) // len(tiles)
    for number, (value, *lines) in enumerate(tiles):
        left = number * (tile + _GAP)
        figures[:, left : left + tile] = BACKGROUND
        within = tile - 2 * _GAP
        _write_within(figures, value, (left + _GAP, 48), _LARGE, within, thickness=2)
        for line, bottom in zip(lines, (77, 101), strict=True):
            _write_within(figures, line, (left + _GAP, bottom), _SMALL, within, colour=_FAINT)
    return figures


def _write_within(
    picture: Picture,
    text: str,
    left_bottom: tuple[int, int],
    scale: float,
    width: int,
    *,
    colour: RGB = TEXT,
    thickness: int = 1,
) -> None:
    """Write a line, smaller where it would be wider than `width`: fonts differ."""
    scale *= min(1.0, width / max(1, text_width(text, scale, thickness)))
    write(picture, text, left_bottom, scale, colour=colour, thickness=thickness)
