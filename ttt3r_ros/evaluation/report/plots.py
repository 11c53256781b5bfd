# SPDX-License-Identifier: Apache-2.0
"""The charts of a sequence, by matplotlib: its path from above and from the side, and over time.

Nothing of pyplot is used: no state outside a figure, no display. Letters are large for a chart, so
that they can be read where it is as wide as a phone. Colours are those of Okabe and Ito, which
everybody tells apart.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ttt3r_ros.evaluation.report.data import Numbers, Series
from ttt3r_ros.evaluation.report.glossary import column_of
from ttt3r_ros.types import TrackingState

MOST_POINTS = 1000  # of a line
_WIDTH, _TIME_HEIGHT = 4.6, 2.9  # inches
_LOWEST, _HIGHEST = 2.6, 5.0  # of a path, which is to scale
_LEAST_SCALE_SPAN = 0.1  # of charts of scales: noise does not fill them
_ESTIMATE, _TRUTH, _BOUNDARY, _START = "#0072b2", "#3a3f48", "#c44e00", "#00805c"
_SHADES: dict[TrackingState, dict[str, Any]] = {
    TrackingState.UNCERTAIN: {"facecolor": "#f3d794", "label": "uncertain"},
    TrackingState.LOST: {"facecolor": "#c9ccd3", "edgecolor": "#6b7280", "hatch": "///"},
}
_PAD = 3.0  # points around everything that is drawn
_USUAL = (0.13, 0.17, 0.98, 0.88)  # left, bottom, right and top of the axes, about
_STYLE: Any = {
    # The same input gives the same file, and the reader's own fonts write it.
    "svg.hashsalt": "ttt3r_ros",
    "svg.fonttype": "none",
    "font.size": 10.5,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#d5d9e0",
    "lines.linewidth": 1.5,
    "lines.solid_joinstyle": "round",
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart, what it shows, and the glossary's term for it."""

    title: str
    svg: str
    term: str = ""


def horizontal_axes(up: tuple[float, float, float]) -> tuple[Numbers, Numbers, Numbers]:
    """Return the directions to the right and up of a plan, and upright; each [3] of length 1.

    For z up they are x, y and z.
    """
    upright = np.array(up, np.float64) / np.linalg.norm(up)
    # The x axis, or where that is upright itself, y.
    axis = np.eye(3)[0 if abs(upright[0]) < 0.9 else 1]
    across = axis - (axis @ upright) * upright
    across /= np.linalg.norm(across)
    return across, np.cross(upright, across), upright


def path_plots(series: Series) -> list[Plot]:
    """Return the path from above and from the side; none if no position is known."""
    known = np.asarray(np.isfinite(series.positions_m).all(axis=1))
    if not known.any():
        return []
    across, along, up = horizontal_axes(series.up)
    spread = [np.ptp(series.positions_m[known] @ axis) for axis in (across, along)]
    side = across if spread[0] >= spread[1] else along
    aligned = ""
    if np.isfinite(series.true_positions_m).any():
        is_fitted = series.alignment != "none"
        how = f"aligned by {column_of(series.alignment).text}" if is_fitted else "as it is"
        aligned = f", estimate {how}"
    above, beside = _path(series, known, across, along), _path(series, known, side, up)
    return [
        Plot(f"Path from above{aligned}", above, "alignment" if aligned else ""),
        Plot(f"Path from the side{aligned}", beside),
    ]


def time_plots(series: Series) -> list[Plot]:
    """Return what is known over time; what is not known at any image is left out."""
    rows = (
        # title, unit, values, term, least span, whether from 0
        ("Position error", "error [m]", series.position_error_m, "ate", 0.0, True),
        ("Scale drift", "factor", series.local_scale(), "scale_drift", _LEAST_SCALE_SPAN, False),
        ("Scale of the network", "metres per unit", series.scale, "", _LEAST_SCALE_SPAN, False),
        ("Gain of the state’s update", "gain, 0 to 1", series.gain, "gain", 0.0, True),
        ("Confidence, median", "1 or more", series.confidence, "confidence", 0.0, False),
        ("Time of a step", "time [ms]", series.step_ms, "step", 0.0, True),
    )
    return [
        Plot(title, _over_time(series, values, y_label, least_span, from_zero), term)
        for title, y_label, values, term, least_span, from_zero in rows
        if np.isfinite(values).any()
    ]


def spans(series: Series, state: TrackingState) -> list[tuple[float, float]]:
    """Return where a state holds: from an image that has it to the next that has another."""
    seconds = series.seconds
    inside = np.concatenate(([False], series.state == state, [False]))
    steps = np.diff(inside.astype(np.int8))
    begins, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    ends = np.minimum(ends, len(seconds) - 1)
    return list(zip(seconds[begins].tolist(), seconds[ends].tolist(), strict=True))


def subsample(values: Numbers) -> npt.NDArray[np.intp]:
    """Return the places of at most `MOST_POINTS` of values [N], the peaks and pits among them."""
    if len(values) <= MOST_POINTS:
        return np.arange(len(values))
    parts = np.array_split(np.arange(len(values)), MOST_POINTS // 2)
    highest = [part[np.nan_to_num(values[part], nan=-np.inf).argmax()] for part in parts]
    lowest = [part[np.nan_to_num(values[part], nan=np.inf).argmin()] for part in parts]
    return np.unique([*highest, *lowest])


def _path(series: Series, known: npt.NDArray[np.bool_], right: Numbers, upwards: Numbers) -> str:
    """Draw the path as seen along two axes, to scale."""
    x, y = (series.positions_m @ axis for axis in (right, upwards))
    true = [series.true_positions_m @ axis for axis in (right, upwards)]
    step = -(-len(x) // MOST_POINTS)
    width, depth = (
        np.nanmax([*a, *b]) - np.nanmin([*a, *b]) for a, b in ((x, true[0]), (y, true[1]))
    )
    height = _WIDTH * depth / max(width, 1e-9) + 1
    with rc_context(_STYLE):
        figure = Figure((_WIDTH, float(np.clip(height, _LOWEST, _HIGHEST))))
        axes = figure.subplots()
        axes.set_aspect("equal", adjustable="datalim")
        if np.isfinite(true).all(axis=0).any():
            axes.plot(*(line[::step] for line in true), ":", color=_TRUTH, lw=2, label="truth")
        axes.plot(x[::step], y[::step], color=_ESTIMATE, label="estimate")
        first, last = np.flatnonzero(known)[[0, -1]]
        axes.plot(x[first], y[first], "o", color=_START, mfc="white", ms=9, mew=2, label="start")
        axes.plot(x[last], y[last], "s", color=_BOUNDARY, mec="white", ms=8, label="end")
        at = series.boundaries() & known
        if at.any():
            axes.plot(x[at], y[at], "x", color=_BOUNDARY, ms=7, label="segment boundary")
        axes.set(xlabel=f"{_axis_name(right)} [m]", ylabel=f"{_axis_name(upwards)} [m]")
        return _svg(figure)


def _over_time(
    series: Series, values: Numbers, y_label: str, least_span: float, from_zero: bool
) -> str:
    """Draw values [N] over time, with the states and boundaries."""
    with rc_context(_STYLE):
        figure = Figure((_WIDTH, _TIME_HEIGHT))
        axes = figure.subplots()
        kept = subsample(values)
        axes.plot(series.seconds[kept], values[kept], color=_ESTIMATE)
        low, high = axes.get_ylim()
        if from_zero:
            low, high = min(0.0, low), max(high, 1.05 * float(np.nanmax(values)))
        missing = max(0.0, least_span - (high - low)) / 2
        axes.set_ylim(low - missing, high + missing)
        axes.margins(x=0)
        for state, style in _SHADES.items():
            for number, (begin, end) in enumerate(spans(series, state)):
                label = "" if number else state.name.lower()
                axes.axvspan(begin, end, **{"lw": 0, "zorder": 0, **style, "label": label})
        at = series.seconds[series.boundaries()]
        if len(at):
            foot = axes.get_xaxis_transform()
            # One line with gaps: a line for each of a thousand takes ten times the space.
            x, y = np.repeat(at, 3), np.tile((0.0, 0.07, np.nan), len(at))
            axes.plot(x, y, color=_BOUNDARY, lw=2, label="segment boundary", transform=foot)
        axes.set(xlabel="time [s]", ylabel=y_label)
        return _svg(figure)


def _axis_name(direction: Numbers) -> str:
    place = int(np.abs(direction).argmax())
    return ("−" if direction[place] < 0 else "") + "xyz"[place]


def _svg(figure: Figure) -> str:
    """Return the figure as an SVG document, with a legend above where something has a name."""
    (axes,) = figure.axes
    if axes.get_legend_handles_labels()[1]:
        options: Any = {"bbox_to_anchor": (-0.02, 1.0), "borderaxespad": 0.2, "columnspacing": 1.2}
        options["handlelength"] = 1.3  # for three names to be beside each other
        axes.legend(loc="lower left", ncol=3, frameon=False, **options)
    _fill(figure, axes)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=False)
    return file.getvalue()


def _fill(figure: Figure, axes: Axes) -> None:
    """Give the axes the room that their labels and legend leave, by measuring these once.

    The layouts of matplotlib measure twice and draw twice, which takes twice as long.
    """
    left, bottom, right, top = _USUAL
    axes.set_position((left, bottom, right - left, top - bottom))
    legend = axes.get_legend()
    if legend:
        legend.set_in_layout(False)  # however wide it is, the axes are
    inner = axes.bbox.frozen()
    outer = axes.get_tightbbox() or inner
    highest = legend.get_window_extent().y1 if legend else outer.y1
    pad = _PAD * figure.dpi / 72
    left = inner.x0 - outer.x0 + pad
    bottom = inner.y0 - outer.y0 + pad
    right = figure.bbox.width - (outer.x1 - inner.x1) - pad
    top = figure.bbox.height - (max(highest, outer.y1) - inner.y1) - pad
    width, height = figure.bbox.size
    axes.set_position(
        (left / width, bottom / height, (right - left) / width, (top - bottom) / height)
    )
