# SPDX-License-Identifier: Apache-2.0
"""The figure of `evaluate_covariance.py`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.covariance_errors import (
    CAMERAS,
    COVERED,
    POSITION,
    ROTATION,
    Compared,
    Image,
    Room,
    chains,
    joined,
    pose_errors,
    predicted,
    rms,
    step_errors,
    usual,
)
from benchmarks.harness import Numbers
from benchmarks.streams import RATE_HZ
from ttt3r_ros.types import TrackingState

_BINS = 8
_INK, _BLUE, _ORANGE, _GREY = "#1b1f27", "#2f6fb5", "#e07b1f", "#9aa1ad"
_BANDS = ("#b9d3ee", "#e1ecf8")
_PALETTE = 128  # colours; all of them would make the file twice as large
_COLOURS = ("#2f6fb5", "#2a9d74", "#e07b1f", "#b8336a")  # of a step, and of longer and longer


def draw_figure(results: Sequence[Room], file: Path) -> None:
    """Draw the figure as a PNG; there has to be a room with a covered lens."""
    figure: Any = Figure(figsize=(13.5, 8.2), dpi=100, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)
    axes = figure.subplots(2, 3)
    for panel, (title, images) in zip(axes[0], _examples(results), strict=True):
        _draw_run(panel, title, images)
    axes[0, 0].set_ylabel("error of the position [m]")
    axes[0, 0].legend(loc="upper left", frameon=False)
    _draw_ratios(axes[1, 0], results)
    _draw_calibration(axes[1, 1], results)
    _draw_bins(axes[1, 2], results)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
        panel.title.set(fontsize=11, fontweight="bold", color=_INK)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    page = PIL.Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    page.quantize(_PALETTE, dither=PIL.Image.Dither.NONE).save(file, optimize=True)


def _examples(results: Sequence[Room]) -> list[tuple[str, list[Image]]]:
    """A room of the first camera, one of the last, and one with a covered lens."""
    first, *_, last = CAMERAS
    titles = {first: f"a room, camera: {first}", last: f"a room, camera: {last}"}
    titles[COVERED] = "a room, the lens covered for a while"
    by_kind = {room.kind: room.images for room in reversed(results)}
    return [(title, by_kind[kind]) for kind, title in titles.items()]


def _draw_run(panel: Any, title: str, images: Sequence[Image]) -> None:
    seconds = np.arange(len(images)) / RATE_HZ
    errors = np.linalg.norm(pose_errors(images)[:, POSITION], axis=1)
    sigmas = np.array([np.sqrt(np.trace(pose[:3, :3])) for pose, _ in predicted(images)])
    panel.fill_between(seconds, sigmas, 2 * sigmas, color=_BANDS[1], lw=0, label="predicted, to 2σ")
    panel.fill_between(seconds, 0, sigmas, color=_BANDS[0], lw=0, label="predicted, to 1σ")
    panel.plot(seconds, errors, color=_ORANGE, lw=2, label="true")
    lost = [image.state is TrackingState.LOST for image in images]
    if any(lost):
        times = seconds[np.array(lost)]
        panel.axvspan(times[0], times[-1], color=_GREY, alpha=0.35, lw=0)
        panel.annotate(
            "LOST", (times[-1], 0.94), (6, 0), ("data", "axes fraction"), "offset points"
        )
    panel.set(title=title, xlabel="time [s]", xlim=(0, seconds[-1]), ylim=(0, None))


def _draw_ratios(panel: Any, results: Sequence[Room]) -> None:
    rooms = usual(results)
    for images in rooms:
        errors = np.linalg.norm(pose_errors(images)[1:, POSITION], axis=1)
        sigmas = [np.sqrt(np.trace(pose[:3, :3])) for pose, _ in predicted(images)][1:]
        seconds = np.arange(1, len(images)) / RATE_HZ
        panel.plot(seconds, errors / np.array(sigmas), color=_BLUE, lw=0.9, alpha=0.6)
    for level in (1, 2):
        panel.axhline(level, color=_INK, lw=1, ls=(0, (4, 3)), zorder=3)
        panel.text(seconds[-1] * 1.015, level, f"{level}σ", va="center", color=_INK)
    panel.set(
        title=f"all {len(rooms)} rooms, a line each",
        xlabel="time [s]",
        ylabel="true / predicted error of the position",
        xlim=(0, seconds[-1]),
        ylim=(0, 3),
    )


def _draw_calibration(panel: Any, results: Sequence[Room]) -> None:
    sigmas = np.linspace(0, 3, 61)
    expected = [math.erf(k / math.sqrt(2)) for k in sigmas]
    panel.plot(sigmas, expected, color=_INK, lw=5, alpha=0.25, label="as it should be")
    for (name, compared), colour in zip(_by_time(results), _COLOURS, strict=False):
        for part, style in ((POSITION, "-"), (ROTATION, ":")):
            whitened = np.abs(compared.whitened(part))
            shares = [float((whitened <= k).mean()) for k in sigmas]
            label = name if part is POSITION else None
            panel.plot(sigmas, shares, color=colour, ls=style, lw=1.8, label=label)
    panel.set(
        title="share of errors within kσ (dotted: rotation)",
        xlabel="k",
        ylabel="share of the errors",
        xlim=(0, 3),
        ylim=(0, 1.01),
    )
    panel.legend(loc="lower right", frameon=False)


def _draw_bins(panel: Any, results: Sequence[Room]) -> None:
    ends = []
    for (name, compared), colour in zip(_by_time(results), _COLOURS, strict=False):
        for part, unit, mark in ((POSITION, 1.0, "o"), (ROTATION, np.degrees(1), "^")):
            expected, actual = (unit * values for values in binned(compared, part))
            fill = colour if part is POSITION else "none"
            label = name if part is POSITION else None
            panel.plot(
                expected, actual, mark, ms=6, color=colour, mfc=fill, label=label, clip_on=False
            )
            ends += [expected.min(), actual.min(), expected.max(), actual.max()]
    low, high = min(ends) / 1.3, max(ends) * 1.3
    panel.plot((low, high), (low, high), color=_INK, lw=5, alpha=0.25, zorder=0)
    panel.set(
        title="more predicted, more found (▵: rotation)",
        xlabel="predicted error [m; ▵ °]",
        ylabel="true error [m; ▵ °]",
        xscale="log",
        yscale="log",
        xlim=(low, high),
        ylim=(low, high),
    )
    panel.legend(loc="upper left", frameon=False)


def _by_time(results: Sequence[Room]) -> list[tuple[str, Compared]]:
    """Errors of steps and of poses after a while, by name."""
    steps = joined([step_errors(room) for room in usual(results)])
    by_length = chains(usual(results)).items()
    return [
        ("one step", steps),
        *((f"after {length / RATE_HZ:g} s", chain) for length, chain in by_length if length != 100),
    ]


def binned(compared: Compared, part: slice) -> tuple[Numbers, Numbers]:
    """Root mean squares, predicted and actual, in bins of as many errors, by the predicted one."""
    actual, expected = compared.sizes(part)
    bins = np.array_split(np.argsort(expected), _BINS)
    pairs = [(rms(expected[some]), rms(actual[some])) for some in bins if len(some)]
    return np.array([p for p, _ in pairs]), np.array([a for _, a in pairs])
