# SPDX-License-Identifier: Apache-2.0
"""The demonstration in one picture: the map from above, some views with their depth, the errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from ttt3r_ros.clients.demo_recording import Floats, Recording, View, moved
from ttt3r_ros.clients.demo_report import errors
from ttt3r_ros.evaluation.map_view import (
    BACKGROUND,
    RGB,
    TEXT,
    Picture,
    draw_from_above,
    text_width,
    write,
)
from ttt3r_ros.geometry import Transform, transform

ESTIMATED: RGB = (255, 150, 30)
TRUE: RGB = (90, 230, 130)
_PAGE: RGB = (50, 53, 62)
_FAINT: RGB = (170, 175, 185)
VIEWS = 5
# Pixels: of the page's parts, and of the gaps between them.
_MAP_WIDTH, _VIEW_WIDTH, _VIEW_HEIGHT, _TIME_WIDTH = 980, 192, 144, 74
_GAP, _TITLE_HEIGHT, _CAPTION_HEIGHT, _SCALE_HEIGHT, _FIGURES_HEIGHT = 16, 52, 34, 44, 116
_LARGE, _MEDIUM, _SMALL = 1.5, 1.05, 0.8  # of text
_COLUMNS = ("image", "estimated depth", "true depth")


def draw_picture(recording: Recording, note: str, *, voxel_m: float) -> Picture:
    """Draw the map, views beside it and figures below them.

    Args:
        recording: what to draw; it has a view.
        note: stands at the bottom; empty: nothing.
        voxel_m: edge of the map's voxels in metres.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        ValueError: there is no view.
    """
    views = recording.views.choose(VIEWS)
    if not views:
        raise ValueError("no image with a depth was recorded")
    strip = _draw_views(views, min(recording.true_poses))
    map_ = _draw_map(recording, [*views], (len(strip) - _CAPTION_HEIGHT, _MAP_WIDTH), voxel_m)
    width = 3 * _GAP + _MAP_WIDTH + strip.shape[1]
    figures = _draw_figures(recording, width - 2 * _GAP)
    height = _TITLE_HEIGHT + len(strip) + len(figures) + 3 * _GAP + bool(note) * _CAPTION_HEIGHT
    page = np.full((height, width, 3), _PAGE, np.uint8)
    seconds = (max(recording.true_poses) - min(recording.true_poses)) / 1e9
    title = f"A simulated room, mapped live from one camera in {seconds:.0f} s"
    write(page, title, (_GAP, _TITLE_HEIGHT - 14), _MEDIUM)
    caption = f"map from above: {len(recording.points):,} points, ceiling left out"
    write(page, caption, (_GAP, _TITLE_HEIGHT + _CAPTION_HEIGHT - 12), _SMALL, colour=_FAINT)
    page[_TITLE_HEIGHT + _CAPTION_HEIGHT :, _GAP:][: len(map_), :_MAP_WIDTH] = map_
    page[_TITLE_HEIGHT:, 2 * _GAP + _MAP_WIDTH :][: len(strip), : strip.shape[1]] = strip
    below = _TITLE_HEIGHT + len(strip) + _GAP
    page[below:, _GAP:][: len(figures), : figures.shape[1]] = figures
    _write_within(page, note, (_GAP, height - _GAP), _SMALL, width - 2 * _GAP, colour=_FAINT)
    return page


def _draw_map(
    recording: Recording, marked: Sequence[int], size_px: tuple[int, int], voxel_m: float
) -> Picture:
    """Draw the map and both paths, the room's walls along the page's edges."""
    T_odom_world = recording.T_odom_world_aligned()
    T_page_odom = _upright(recording)
    estimated, true = recording.paths()
    marks = [
        (moved(T_page_odom, recording.poses[stamp][None, :3, 3])[0], str(number))
        for number, stamp in enumerate(marked, start=1)
        if stamp in recording.poses
    ]
    return draw_from_above(
        moved(T_page_odom, recording.points).astype(np.float32),
        recording.colours,
        [
            (moved(T_page_odom @ T_odom_world, true), TRUE, "true path, aligned"),
            (moved(T_page_odom, estimated), ESTIMATED, "estimated path"),
        ],
        size_px,
        marks=marks,
        point_m=voxel_m,
    )


def _upright(recording: Recording) -> Transform:
    """Return the turn after which the floor is level, the walls are upright and the map is wide."""
    T_page_odom = recording.T_world_odom_by_directions()
    if not len(recording.points):
        return T_page_odom
    low, high = np.percentile(moved(T_page_odom, recording.points), (2, 98), axis=0)
    quarter = transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.zeros(3))
    return quarter @ T_page_odom if np.argmax((high - low)[:2]) == 0 else T_page_odom


def _draw_views(views: Mapping[int, View], first_ns: int) -> Picture:
    """Draw a row for each view: number and time, image, depth, true depth; and the colours."""
    range_m = depth_range([d for view in views.values() for d in (view.depth_m, view.true_depth_m)])
    row = _VIEW_HEIGHT + _GAP // 2
    scale_top = _CAPTION_HEIGHT + VIEWS * row
    lefts = [_TIME_WIDTH + i * (_VIEW_WIDTH + _GAP // 2) for i in range(3)]
    strip = np.full((scale_top + _SCALE_HEIGHT, lefts[2] + _VIEW_WIDTH, 3), _PAGE, np.uint8)
    for left, caption in zip(lefts, _COLUMNS, strict=True):
        place = (left, _CAPTION_HEIGHT - 12)
        _write_within(strip, caption, place, _SMALL, _VIEW_WIDTH, colour=_FAINT)
    for number, (stamp_ns, view) in enumerate(views.items(), start=1):
        top = _CAPTION_HEIGHT + (number - 1) * row
        write(strip, str(number), (0, top + 66), _LARGE)
        seconds = f"{(stamp_ns - first_ns) / 1e9:.0f} s"
        write(strip, seconds, (0, top + 104), _SMALL, colour=_FAINT)
        depths = (colour_depth(depth, range_m) for depth in (view.depth_m, view.true_depth_m))
        for left, picture in zip(lefts, (view.rgb, *depths), strict=True):
            size = (_VIEW_WIDTH, _VIEW_HEIGHT)
            strip[top:, left:][:_VIEW_HEIGHT, :_VIEW_WIDTH] = cv2.resize(
                picture, size, interpolation=cv2.INTER_AREA
            )
    _draw_depth_scale(strip[scale_top:, lefts[1] :], range_m)
    return strip


def depth_range(depths_m: Sequence[Floats]) -> tuple[float, float]:
    """Return half metres between which nearly all depths are; 0 to 1 if none is known."""
    known = np.concatenate([depth[np.isfinite(depth)] for depth in depths_m])
    if not len(known):
        return 0.0, 1.0
    near_m, far_m = np.percentile(known, (2, 98))
    return float(np.floor(2 * near_m)) / 2, float(np.floor(2 * far_m) + 1) / 2


def colour_depth(depth_m: Floats, range_m: tuple[float, float]) -> Picture:
    """Return depth [H, W] as colours [H, W, 3] from red, near, to blue; NaN is dark."""
    near_m, far_m = range_m
    nearness = (far_m - np.nan_to_num(depth_m).clip(near_m, far_m)) / (far_m - near_m)
    colours = _turbo((255 * nearness).astype(np.uint8))
    return np.where(np.isfinite(depth_m)[..., None], colours, np.array(BACKGROUND, np.uint8))


def _turbo(values: Picture) -> Picture:
    """Return colours [H, W, 3] of values, uint8 [H, W]."""
    return np.asarray(cv2.applyColorMap(values, cv2.COLORMAP_TURBO)[..., ::-1], np.uint8)


def _draw_depth_scale(part: Picture, range_m: tuple[float, float]) -> None:
    """Draw the colours of near to far from left to right."""
    near, far = (f"{depth_m:g} m" for depth_m in range_m)
    left = text_width(near, _SMALL) + _GAP
    right = part.shape[1] - text_width(far, _SMALL) - _GAP
    top, bottom = _SCALE_HEIGHT - 30, _SCALE_HEIGHT - 8
    bar = np.linspace(255, 0, right - left).astype(np.uint8)[None].repeat(bottom - top, axis=0)
    part[top:bottom, left:right] = _turbo(bar)
    write(part, near, (0, bottom - 3), _SMALL)
    write(part, far, (right + _GAP, bottom - 3), _SMALL)


def _draw_figures(recording: Recording, width: int) -> Picture:
    """Draw what was measured: large numbers, what they are below them."""
    found = errors(recording)
    processed, sent = recording.counts.get("processed", 0), len(recording.true_poses)
    step_ms = float(np.median(recording.step_ms)) if recording.step_ms else float("nan")
    share = found.ate_m / found.resting_ate_m if found.resting_ate_m else float("nan")
    tiles = (
        (f"{found.ate_m:.2f} m", "position error, ATE:", f"{share:.2f} of a resting camera's"),
        (
            f"{100 * found.abs_rel:.0f} %",
            "depth error, AbsRel,",
            f"known in {100 * found.depth_known:.0f} % of the pixels",
        ),
        (f"{processed} of {sent}", "images processed", "live, over DDS"),
        (f"{recording.rate_hz():.1f} /s", "images per second,", f"{step_ms:.0f} ms each"),
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
