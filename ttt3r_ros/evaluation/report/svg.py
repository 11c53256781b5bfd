# SPDX-License-Identifier: Apache-2.0
"""Line charts as SVG, which stand in a page of HTML and take its colours (`style`).

The letters are large for the picture, so that they can be read where it is as wide as a phone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

MOST_POINTS = 2000  # of a line
_WIDTH, _LEFT, _RIGHT, _BOTTOM = 400, 50, 12, 44
_TOP, _LEGEND_LINE = 28, 19  # for the unit, and for each line of the legend
_INNER = _WIDTH - _LEFT - _RIGHT
_HEIGHT = 170  # of the space of charts over time
_LOWEST, _HIGHEST = 110, 330  # of that of charts to scale
_LETTER = 7.0  # mean width
_SAMPLE, _GAP = 24, 11  # of a line in the legend, and between two
_TICKS = 5
_MARGIN = 0.05  # of the values


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points; it is broken at NaN."""

    x: Numbers  # [N]
    y: Numbers  # [N]
    name: str  # empty: the chart's title says it
    style: str  # class: "estimate" or "truth"


@dataclass(frozen=True, slots=True)
class Mark:
    """Signs at some points."""

    x: Numbers  # [M]
    y: Numbers  # [M]
    name: str
    style: str  # "start", "end" or "boundary"


@dataclass(frozen=True, slots=True)
class Shade:
    """Stretches of x."""

    spans: Sequence[tuple[float, float]]
    name: str
    style: str  # class: "lost" or "uncertain"


def chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    description: str,
    *,
    marks: Sequence[Mark] = (),
    shades: Sequence[Shade] = (),
    boundaries: Sequence[float] = (),
    to_scale: bool = False,
    least_span: float = 0.0,
    from_zero: bool = False,
) -> str:
    """Return an SVG element.

    Args:
        lines: at least one with a finite point.
        x_label: quantity and unit of x.
        y_label: those of y.
        description: for those who do not see it.
        marks: on top of the lines.
        shades: behind them.
        boundaries: places on the x axis.
        to_scale: whether a unit of x is as long as one of y.
        least_span: of y, so that noise does not fill a chart.
        from_zero: whether y begins at 0.
    """
    drawn = [_thin(line, by_peaks=not to_scale) for line in lines]
    xs, ys = (
        np.concatenate([values[np.isfinite(values)] for values in every])
        for every in ([line.x for line in lines], [line.y for line in lines])
    )
    if from_zero:
        ys = np.append(ys, 0.0)
    x_range = _range(xs, _MARGIN if to_scale else 0.0)
    y_range = _range(ys, _MARGIN, least_span)
    legend = _legend(drawn, marks, shades, bool(len(boundaries)))
    top = _TOP + legend.height
    height = float(_HEIGHT)
    if to_scale:
        x_range, y_range, height = _square(x_range, y_range)
    frame = _Frame(x_range, y_range, top, height)
    total = top + height + _BOTTOM
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {total:.0f}" role="img" '
        f'aria-label="{escape(description)}">',
        legend.svg,
        *(_shade(shade, frame) for shade in shades),
        frame.axes(x_label, y_label),
        *(_boundary(place, frame) for place in boundaries),
        *(_path(line, frame) for line in drawn),
        *(_marks(mark, frame) for mark in marks),
        "</svg>",
    ]
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Frame:
    """From values to places in the picture."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    top: float
    height: float

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + _INNER * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.top + self.height * (high - value) / (high - low)

    def axes(self, x_label: str, y_label: str) -> str:
        bottom, right = self.top + self.height, _LEFT + _INNER
        parts = []
        for value, text in _ticks(*self.x_range, _TICKS):
            x = self.x(value)
            parts.append(f'<path class="grid" d="M{x:.1f} {self.top:.1f}V{bottom:.1f}"/>')
            parts.append(_text(x, bottom + 17, text, "middle"))
        for value, text in _ticks(*self.y_range, max(2, round(self.height / 40))):
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
            parts.append(_text(_LEFT - 6, y + 4.5, text, "end"))
        parts.append(f'<path class="axis" d="M{_LEFT} {self.top:.1f}V{bottom:.1f}H{right}"/>')
        parts.append(_text(_LEFT + _INNER / 2, bottom + 37, x_label, "middle"))
        parts.append(_text(4, self.top - 9, y_label, "start"))
        return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Legend:
    svg: str
    height: int


def _legend(
    lines: Sequence[Line], marks: Sequence[Mark], shades: Sequence[Shade], boundaries: bool
) -> _Legend:
    """Name what is drawn, from left to right in as many lines as it takes."""
    samples = [
        (line.name, f'<path class="line {line.style}" d="M0 0H20"/>') for line in lines if line.name
    ]
    samples += [(mark.name, _sign(10, 0, mark.style)) for mark in marks if len(mark.x)]
    samples += [
        (shade.name, f'<rect class="{shade.style}" y="-7" width="20" height="14"/>')
        for shade in shades
        if shade.spans
    ]
    if boundaries:
        samples.append(("boundary", '<path class="boundary" d="M10 6V-4"/>'))
    if not samples:
        return _Legend("", 0)
    parts, x, row = [], 0.0, 0
    for name, sample in samples:
        width = _SAMPLE + _LETTER * len(name)
        if x and x + width > _WIDTH:
            x, row = 0.0, row + 1
        y = 11 + row * _LEGEND_LINE
        parts.append(f'<g transform="translate({4 + x:.0f} {y})">{sample}')
        parts.append(f"{_text(_SAMPLE + 1, 4.5, name, 'start')}</g>")
        x += width + _GAP
    return _Legend("".join(parts), (row + 1) * _LEGEND_LINE)


def _range(values: Numbers, margin: float, least: float = 0.0) -> tuple[float, float]:
    """Return what holds all values, wider by a share on both sides; 0 stays an end of it."""
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if high - low < least:
        middle = (low + high) / 2
        low, high = middle - least / 2, middle + least / 2
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    wider = margin * (high - low)
    return low - (wider if low else 0.0), high + wider


def _square(
    x_range: tuple[float, float], y_range: tuple[float, float]
) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Return wider ranges and the height of a space in which units are equally long."""
    x_span, y_span = x_range[1] - x_range[0], y_range[1] - y_range[0]
    height = min(max(_INNER * y_span / x_span, _LOWEST), _HIGHEST)
    per_px = max(x_span / _INNER, y_span / height)
    return _about(x_range, _INNER * per_px), _about(y_range, height * per_px), height


def _about(values: tuple[float, float], span: float) -> tuple[float, float]:
    middle = sum(values) / 2
    return middle - span / 2, middle + span / 2


def _ticks(low: float, high: float, count: int) -> list[tuple[float, str]]:
    """Return about `count` round values between two others, and their texts."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.999 * raw)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    values = (number * step for number in range(first, last + 1))
    return [(value, f"{value:.{decimals}f}".replace("-", "−")) for value in values]


def _thin(line: Line, *, by_peaks: bool) -> Line:
    """Return a line of at most `MOST_POINTS` points; its peaks stay, or it is evenly thinned."""
    count = len(line.x)
    if count <= MOST_POINTS:
        return line
    if by_peaks:
        parts = np.array_split(np.arange(count), MOST_POINTS // 2)
        values = [np.nan_to_num(line.y[part], nan=-np.inf) for part in parts]
        lows = [np.nan_to_num(line.y[part], nan=np.inf) for part in parts]
        peaks = [part[value.argmax()] for part, value in zip(parts, values, strict=True)]
        pits = [part[value.argmin()] for part, value in zip(parts, lows, strict=True)]
        chosen = np.unique([*peaks, *pits])
    else:
        chosen = np.unique(np.linspace(0, count - 1, MOST_POINTS).round().astype(np.int64))
    return Line(line.x[chosen], line.y[chosen], line.name, line.style)


def _path(line: Line, frame: _Frame) -> str:
    steps, pen = [], "M"
    for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True):
        if math.isfinite(x) and math.isfinite(y):
            steps.append(f"{pen}{frame.x(x):.1f} {frame.y(y):.1f}")
            pen = "L"
        else:
            pen = "M"
    return f'<path class="line {line.style}" d="{"".join(steps)}"/>'


def _marks(mark: Mark, frame: _Frame) -> str:
    places = zip(mark.x.tolist(), mark.y.tolist(), strict=True)
    return "".join(
        _sign(frame.x(x), frame.y(y), mark.style)
        for x, y in places
        if math.isfinite(x) and math.isfinite(y)
    )


def _sign(x: float, y: float, style: str) -> str:
    if style == "start":
        return f'<circle class="start" cx="{x:.1f}" cy="{y:.1f}" r="6"/>'
    if style == "end":
        return f'<rect class="end" x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10"/>'
    return f'<path class="cross" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8"/>'


def _boundary(place: float, frame: _Frame) -> str:
    bottom = frame.top + frame.height
    return f'<path class="boundary" d="M{frame.x(place):.1f} {bottom:.1f}v-10"/>'


def _shade(shade: Shade, frame: _Frame) -> str:
    return "".join(
        f'<rect class="{shade.style}" x="{frame.x(begin):.1f}" y="{frame.top:.1f}" '
        f'width="{max(frame.x(end) - frame.x(begin), 1):.1f}" height="{frame.height:.1f}"/>'
        for begin, end in shade.spans
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
