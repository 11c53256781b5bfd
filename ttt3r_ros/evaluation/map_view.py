# SPDX-License-Identifier: Apache-2.0
"""A map of coloured points and the paths through it as a picture from above.

x points up and y to the left, as for somebody who holds a plan and looks along x.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

RGB = tuple[int, int, int]
Picture = npt.NDArray[np.uint8]  # [H, W, 3] RGB
Path = tuple[npt.NDArray[np.float64], RGB, str]  # positions [M, 3] in metres, colour, name
Link = tuple[npt.NDArray[np.float64], RGB]  # both ends [2, 3] in metres, colour
Mark = tuple[npt.NDArray[np.float64], str]  # position [3] in metres, a digit or two

BACKGROUND: RGB = (24, 26, 32)
TEXT: RGB = (235, 235, 235)
_OUTLINE: RGB = (16, 16, 16)  # around lines, which shall be seen on any ground
_MARGIN = 0.06  # of the picture's edge on every side
_SMALLEST_VIEW_M = 1.0
_ENCLOSED = 5  # of the 8 cells around one are higher: it is a pit; beyond an edge three are
_RELIEF = 0.9  # change of brightness per metre of height from one cell to the next
_DARKEST, _BRIGHTEST = 0.7, 1.25
_BAR_PX = 60  # least length of the scale bar
_SUBPIXEL_BITS = 2  # of the places of lines
_RING = 6  # radius around the start of a path, in widths of its line
_SHADE = 0.45  # brightness of the map that remains behind text


def draw_from_above(
    points: npt.NDArray[np.float32],
    colours: npt.NDArray[np.uint8],
    paths: Sequence[Path],
    size_px: tuple[int, int],
    *,
    marks: Sequence[Mark] = (),
    links: Sequence[Link] = (),
    ceiling_m: float = 0.8,
    point_m: float = 0.05,
) -> Picture:
    """Draw points and paths to scale; of points above one another, the highest is seen.

    The view holds all of the paths and the points between the 2nd and 98th percentile in x and y.

    Args:
        points: float32 [N, 3], metres, z up; N may be 0.
        colours: uint8 [N, 3], RGB.
        paths: positions [M, 3] in the frame of the points, a colour and a name for the legend;
            without a name a path is not in the legend. M may be 0.
        size_px: height and width of the picture.
        marks: numbers on discs, drawn over everything else.
        links: plain lines, drawn over the paths.
        ceiling_m: points with a greater z are left out, so that one looks into rooms.
        point_m: edge of the square that a point covers, as that of the map's voxels.

    Returns:
        uint8 [*size_px, 3], RGB.

    Raises:
        ValueError: the shapes do not belong together.
    """
    if points.ndim != 2 or points.shape[1] != 3 or colours.shape != points.shape:
        raise ValueError(
            f"expected points and colours [N, 3], got {list(points.shape)}, {list(colours.shape)}"
        )
    shown = np.isfinite(points).all(axis=1) & (points[:, 2] <= ceiling_m)
    points, colours = points[shown], colours[shown]
    centre, px_per_m = _fit([positions for positions, _, _ in paths], points, size_px)
    picture = _draw_points(points, colours, centre, px_per_m, size_px, point_m)
    for positions, colour, _ in paths:
        _draw_path(picture, _pixels(positions, centre, px_per_m, size_px), colour)
    for ends, colour in links:
        _draw_line(picture, _pixels(ends, centre, px_per_m, size_px), colour)
    for position, text in marks:
        _draw_mark(picture, _pixels(position[None], centre, px_per_m, size_px)[0], text)
    _draw_legend(picture, [(name, colour) for _, colour, name in paths if name])
    _draw_scale_bar(picture, px_per_m)
    return picture


def _fit(
    paths: Sequence[npt.NDArray[np.float64]],
    points: npt.NDArray[np.float32],
    size_px: tuple[int, int],
) -> tuple[npt.NDArray[np.float64], float]:
    """Return the view's middle (x, y) in metres and its scale."""
    shown = [path[:, :2] for path in paths]
    if len(points):
        shown.append(np.percentile(points[:, :2], (2, 98), axis=0))
    corners = np.concatenate([*shown, np.empty((0, 2))])
    if not len(corners):
        corners = np.zeros((1, 2))
    low, high = corners.min(axis=0), corners.max(axis=0)
    px_per_m = (1 - 2 * _MARGIN) * np.array(size_px) / np.maximum(high - low, _SMALLEST_VIEW_M)
    return (low + high) / 2, float(px_per_m.min())


def _pixels(
    positions: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64],
    px_per_m: float,
    size_px: tuple[int, int],
) -> npt.NDArray[np.float64]:
    """Return where positions [M, 3] are in the picture: columns and rows [M, 2]."""
    middle = np.array(size_px) / 2
    return (middle - px_per_m * (positions[:, :2] - centre))[:, ::-1]


def _draw_points(
    points: npt.NDArray[np.float32],
    colours: npt.NDArray[np.uint8],
    centre: npt.NDArray[np.float64],
    px_per_m: float,
    size_px: tuple[int, int],
    point_m: float,
) -> Picture:
    # Cells of a point's size on the points' own grid, so that a full map has no holes; smaller
    # than a pixel they need not be.
    cell_m = max(point_m, 1 / px_per_m)
    half = np.ceil(np.array(size_px) / 2 / px_per_m / cell_m).astype(int) + 1  # row, column
    middle = np.floor(centre / cell_m)
    cells = (half + middle - np.floor(points[:, :2] / cell_m)).astype(np.int64)
    sides = 2 * half + 1
    inside = ((cells >= 0) & (cells < sides)).all(axis=1)
    order = np.argsort(points[inside, 2], kind="stable")
    row, column = cells[inside][order].T
    canvas = np.full((*sides, 3), BACKGROUND, np.uint8)
    height = np.full(tuple(sides), np.nan, np.float32)
    # Of repeated indices the last, highest one stays.
    canvas[row, column] = colours[inside][order]
    height[row, column] = points[inside, 2][order]
    _fill_pits(canvas, height, point_m)
    canvas = _lit(canvas, height)

    # The cell of index `half` begins at `middle`, and further cells lie at lower x and y.
    corner_px = np.array(size_px) / 2 - px_per_m * ((middle + half + 1) * cell_m - centre)
    zoom = cell_m * px_per_m
    to_picture = np.array([[zoom, 0, corner_px[1]], [0, zoom, corner_px[0]]])
    to_picture[:, 2] += (zoom - 1) / 2  # OpenCV counts from the middle of pixels
    picture = cv2.warpAffine(
        canvas,
        to_picture,
        size_px[::-1],
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=BACKGROUND,
    )
    return np.asarray(picture, np.uint8)


def _fill_pits(canvas: Picture, height: npt.NDArray[np.float32], least_m: float) -> None:
    """Fill single cells that are empty or lower than those around, as the highest of these.

    A grid of voxels that was turned leaves such cells, through which a lower layer is seen.
    """
    own = np.nan_to_num(height, nan=-np.inf)
    steps = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]
    around = np.stack([np.roll(own, step, (0, 1)) for step in steps])  # [8, rows, columns]
    pits = (around > own + least_m).sum(axis=0) >= _ENCLOSED
    step = np.array(steps)[around[:, pits].argmax(axis=0)]
    row, column = ((np.argwhere(pits) - step) % own.shape).T
    canvas[pits], height[pits] = canvas[row, column], height[row, column]


def _lit(canvas: Picture, height: npt.NDArray[np.float32]) -> Picture:
    """Light the cells from the upper left, so that furniture stands out from the floor."""
    padded = np.pad(height, 1, mode="edge")
    rise = 2 * height - padded[:-2, 1:-1] - padded[1:-1, :-2]
    light = np.clip(1 + _RELIEF * np.nan_to_num(rise), _DARKEST, _BRIGHTEST)
    lit: Picture = (canvas * light[..., None]).clip(0, 255).astype(np.uint8)
    return lit


def _draw_path(picture: Picture, pixels: npt.NDArray[np.float64], colour: RGB) -> None:
    """Draw a line with a ring at its start and a disc at its end."""
    if not len(pixels):
        return
    _draw_line(picture, pixels, colour)
    width = _line_width(picture)
    start, end = ((int(x), int(y)) for x, y in (pixels[0], pixels[-1]))
    _draw_ring(picture, start, _RING * width, colour)
    _draw_disc(picture, end, 2 * width, colour)


def _draw_line(picture: Picture, pixels: npt.NDArray[np.float64], colour: RGB) -> None:
    fixed = np.round(pixels.clip(-1e4, 1e4) * 2**_SUBPIXEL_BITS).astype(np.int32)
    width = _line_width(picture)
    for ink, thickness in ((_OUTLINE, width + 3), (colour, width)):
        cv2.polylines(picture, [fixed], False, ink, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def _draw_ring(picture: Picture, middle: tuple[int, int], radius: int, colour: RGB) -> None:
    width = _line_width(picture)
    for ink, thickness in ((_OUTLINE, width + 3), (colour, width)):
        cv2.circle(picture, middle, radius, ink, thickness, cv2.LINE_AA)


def _draw_disc(picture: Picture, middle: tuple[int, int], radius: int, colour: RGB) -> None:
    for ink, rim in ((_OUTLINE, 2), (colour, 0)):
        cv2.circle(picture, middle, radius + rim, ink, -1, cv2.LINE_AA)


def _draw_mark(picture: Picture, pixel: npt.NDArray[np.float64], text: str) -> None:
    """Draw a number on a disc, small enough for a ring around it to be seen."""
    width, scale = _line_width(picture), 0.75 * len(picture) / 1100
    middle = (round(pixel[0].clip(-1e4, 1e4)), round(pixel[1].clip(-1e4, 1e4)))
    _draw_disc(picture, middle, (_RING - 1) * width, TEXT)
    (across, up), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    place = (middle[0] - across // 2, middle[1] + up // 2)
    write(picture, text, place, scale, colour=_OUTLINE)


def _draw_legend(picture: Picture, entries: Sequence[tuple[str, RGB]]) -> None:
    """Name the paths in the upper left corner, and the signs of where they begin and end."""
    if not entries:
        return
    scale, width = len(picture) / 1100, _line_width(picture)
    line, drop = round(40 * scale), round(10 * scale)
    longest = max(text_width(name, scale) for name, _ in entries)
    end_left = 3 * line + text_width("start", scale)
    right = max(2 * line + longest, end_left + line + text_width("end", scale))
    _shade(picture, 0, round((len(entries) + 1.75) * line), 0, right + line // 2)
    for number, (name, colour) in enumerate(entries, start=1):
        y = number * line
        for ink, thickness in ((_OUTLINE, width + 3), (colour, width)):
            cv2.line(picture, (line // 2, y), (3 * line // 2, y), ink, thickness, cv2.LINE_AA)
        write(picture, name, (2 * line, y + drop), scale)
    y = (len(entries) + 1) * line
    _draw_ring(picture, (line, y), round(0.7 * _RING * width), TEXT)
    write(picture, "start", (2 * line, y + drop), scale)
    _draw_disc(picture, (end_left, y), 2 * width, TEXT)
    write(picture, "end", (end_left + line // 2, y + drop), scale)


def _draw_scale_bar(picture: Picture, px_per_m: float) -> None:
    """Draw 1 m, or 2, 5, 10 ... m where a metre is too short to see, in the lower left corner."""
    length_m = next(
        digit * 10**power
        for power in range(10)
        for digit in (1, 2, 5)
        if digit * 10**power * px_per_m >= _BAR_PX
    )
    scale = len(picture) / 1100
    edge = round(20 * scale)
    left, bottom = edge, len(picture) - edge
    right = left + round(length_m * px_per_m)
    _shade(picture, bottom - round(60 * scale), len(picture), 0, right + edge)
    for colour, thickness in ((_OUTLINE, 7), (TEXT, 3)):
        cv2.line(picture, (left, bottom), (right, bottom), colour, thickness, cv2.LINE_AA)
    write(picture, f"{length_m} m", (left, bottom - round(14 * scale)), scale)


def _shade(picture: Picture, top: int, bottom: int, left: int, right: int) -> None:
    """Darken a part of the picture, on which text is then easy to read."""
    part = picture[top:bottom, left:right]
    part[:] = _SHADE * part + (1 - _SHADE) * np.array(BACKGROUND)


def _line_width(picture: Picture) -> int:
    return max(2, len(picture) // 300)


def text_width(text: str, scale: float, thickness: int = 1) -> int:
    """Return how many pixels wide `write` writes a text."""
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    return int(width)


def write(
    picture: Picture,
    text: str,
    left_bottom: tuple[int, int],
    scale: float,
    *,
    colour: RGB = TEXT,
    thickness: int = 1,
) -> None:
    """Write a line of text with a shadow, which can be read on any ground."""
    for ink, offset in ((_OUTLINE, 1), (colour, 0)):
        place = (left_bottom[0] + offset, left_bottom[1] + offset)
        font = cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(picture, text, place, font, scale, ink, thickness, cv2.LINE_AA)
