# SPDX-License-Identifier: Apache-2.0
"""The charts of a sequence: its path from above and from the side, and what happened over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ttt3r_ros.evaluation.report.data import Numbers, Series
from ttt3r_ros.evaluation.report.glossary import column_of
from ttt3r_ros.evaluation.report.svg import Line, Mark, Shade, chart
from ttt3r_ros.types import TrackingState

Flags = npt.NDArray[np.bool_]

_TIME = "time [s]"
_LEAST_SCALE_SPAN = 0.1  # of charts of scales


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
    aligned = ", estimate as it is"
    if series.alignment != "none":
        aligned = f", estimate aligned by {column_of(series.alignment).text}"
    if not np.isfinite(series.true_positions_m).any():
        aligned = ""
    return [
        Plot(
            f"Path from above{aligned}",
            _path_chart(series, known, across, along, "Path of the camera from above"),
            "alignment" if aligned else "",
        ),
        Plot(
            f"Path from the side{aligned}",
            _path_chart(series, known, side, up, "Path of the camera from the side"),
        ),
    ]


def _path_chart(
    series: Series,
    known: Flags,
    right: Numbers,
    upwards: Numbers,
    description: str,
) -> str:
    x, y = (series.positions_m @ axis for axis in (right, upwards))
    true_x, true_y = (series.true_positions_m @ axis for axis in (right, upwards))
    lines = [Line(x, y, "estimate", "estimate")]
    if (np.isfinite(true_x) & np.isfinite(true_y)).any():
        lines.insert(0, Line(true_x, true_y, "truth", "truth"))
    ends, boundaries = np.flatnonzero(known)[[0, -1]], series.boundaries() & known
    marks = [
        Mark(x[ends[:1]], y[ends[:1]], "start", "start"),
        Mark(x[ends[1:]], y[ends[1:]], "end", "end"),
        Mark(x[boundaries], y[boundaries], "boundary", "boundary"),
    ]
    x_label, y_label = (f"{_axis_name(axis)} [m]" for axis in (right, upwards))
    return chart(lines, x_label, y_label, description, marks=marks, to_scale=True)


def _axis_name(direction: Numbers) -> str:
    place = int(np.abs(direction).argmax())
    return ("−" if direction[place] < 0 else "") + "xyz"[place]


def time_plots(series: Series) -> list[Plot]:
    """Return what is known over time; what is not known at any image is left out."""
    rows = (
        # title, unit, values, term, least span, whether from 0
        ("Position error", "error [m]", series.position_error_m, "ate", 0.0, True),
        ("Scale drift", "factor", series.local_scale(), "scale_drift", _LEAST_SCALE_SPAN, False),
        ("Scale of the network", "metres per unit", series.scale, "", _LEAST_SCALE_SPAN, False),
        ("Gain of the state’s update", "0 to 1", series.gain, "gain", 0.0, True),
        ("Confidence, median", "1 or more", series.confidence, "confidence", 0.0, False),
        ("Time of a step", "time [ms]", series.step_ms, "step", 0.0, True),
    )
    shades, seconds = _shades(series), series.seconds
    boundaries = seconds[series.boundaries()].tolist()
    return [
        Plot(
            title,
            chart(
                [Line(seconds, values, "", "estimate")],
                _TIME,
                y_label,
                f"{title} over time",
                shades=shades,
                boundaries=boundaries,
                least_span=least_span,
                from_zero=from_zero,
            ),
            term,
        )
        for title, y_label, values, term, least_span, from_zero in rows
        if np.isfinite(values).any()
    ]


def _shades(series: Series) -> list[Shade]:
    return [
        Shade(_spans(series, TrackingState.UNCERTAIN), "uncertain", "uncertain"),
        Shade(_spans(series, TrackingState.LOST), "lost", "lost"),
    ]


def _spans(series: Series, state: TrackingState) -> list[tuple[float, float]]:
    """Return where a state holds: from an image that has it to the next that has another."""
    seconds = series.seconds
    inside = np.concatenate(([False], series.state == state, [False]))
    steps = np.diff(inside.astype(np.int8))
    begins, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    ends = np.minimum(ends, len(seconds) - 1)
    return list(zip(seconds[begins].tolist(), seconds[ends].tolist(), strict=True))
