# SPDX-License-Identifier: Apache-2.0
"""The words and numbers of a report: what a figure is called, its unit, its digits, its meaning.

Keys that are not here are shown all the same, under their own name; units are in the names.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

NONE = "–"
_DIGITS = 3  # that count
_MOST_DECIMALS = 5
_THIN_SPACE = "\N{NARROW NO-BREAK SPACE}"
_FACTORS = {"%": 100.0, "MiB": 2.0**-20}


class Label(NamedTuple):
    """How a figure is called."""

    text: str
    term: str = ""  # of `TERMS`; empty: the name says it all


# term: what stands in the glossary, and its explanation.
TERMS: dict[str, tuple[str, str]] = {
    "ate": (
        "ATE",
        "Absolute trajectory error: root mean square distance of the estimated from the true "
        "positions, after the alignment that the column names. Lower is better.",
    ),
    "online": (
        "Online",
        "The path that the robot had at the time. Without this word it is the path in the end, "
        "after all loops.",
    ),
    "loops": (
        "Loops",
        "Places seen again. An answer is accepted by its own evidence; gated means that the graph "
        "excludes it; of the others the solver believes some and throws out some. Right is within "
        "0.3 m and 10° of the truth, wrong is beyond 0.5 m or 20°.",
    ),
    "rpe": (
        "RPE",
        "Relative pose error: root mean square error of the motion from one compared image to the "
        "next, its translation and its rotation. Lower is better.",
    ),
    "motion": (
        "Motion errors",
        "Mean error of the motion over a length of the true path, divided by that length, as in "
        "the KITTI benchmark. Lower is better.",
    ),
    "alignment": (
        "Alignment",
        "What is fitted before the comparison. As it is: nothing. Scale: one factor. SE(3): a "
        "rotation and a translation, so that metres count. Sim(3): these and a factor, which is "
        "what papers report for one camera. Scale and shift, of depth: a factor and an offset.",
    ),
    "fitted_scale": (
        "Scale of an alignment",
        "The factor that the estimate is multiplied with, 1 if its metres are right; and what is "
        "added to depth.",
    ),
    "scale_drift": (
        "Scale drift",
        "How much the factor that the estimate must be multiplied with changes along the way, "
        "from pieces of the path: last by first is 1, and the spread of the logarithms 0, if it "
        "stays. The chart: spread of the true positions over that of the estimated ones within a "
        "second before and after; above 1, the estimate is too small there.",
    ),
    "revisit": (
        "Revisits",
        "Images that see again what one long before them saw, and the error of the motion between "
        "the two. Small if the estimate comes back to where it was. Lower is better.",
    ),
    "guess": (
        "Constant guess",
        "What somebody would get who looks at no image: a camera that never moves, or the median "
        "true depth everywhere. An error near it means that nothing was learnt.",
    ),
    "abs_rel": (
        "AbsRel, SqRel",
        "Mean over the pixels of |p − g| / g and of (p − g)² / g, p being the predicted and g the "
        "true depth. Lower is better.",
    ),
    "rmse": ("RMSE", "Root of the mean squared error of depth, or of its logarithm."),
    "delta": (
        "δ < 1.25",
        "Share of the pixels where p / g and g / p are both below 1.25 (or 1.25², 1.25³). Higher "
        "is better.",
    ),
    "surface": (
        "Accuracy, completeness, Chamfer distance",
        "Mean distance of the map's points to the true surface, of the surface's points to the "
        "map, and the mean of the two. Lower is better.",
    ),
    "normals": (
        "Normal consistency",
        "Mean of |cos| of the angle between normals of the map and the nearest ones of the true "
        "surface: 1 at best, 0.5 by chance.",
    ),
    "f_score": (
        "Precision, recall, F-score",
        "Share of the map's points nearer to the true surface than the threshold, share of the "
        "surface's points nearer to the map, and their harmonic mean. Higher is better.",
    ),
    "off_surface": (
        "Off the surface, doubled",
        "Share of the map's points that stand beside the surface, and share of the surface that "
        "stands in the map twice or more. Lower is better.",
    ),
    "gain": (
        "Gain",
        "How much an image changes the recurrent state: mean gain of its update, 0 (not at all) to "
        "1 (replaced).",
    ),
    "confidence": (
        "Confidence",
        "The network's own, 1 or more; the median over an image. Its level differs between weights "
        "and places.",
    ),
    "state": (
        "Tracking state",
        "UNCERTAIN: something about the image is odd, use the pose with care. LOST: there is no "
        "pose, and a new segment begins after it.",
    ),
    "segment": (
        "Segment",
        "Images between two beginnings of the recurrent state. Where one ends and the next begins "
        "is a boundary.",
    ),
    "step": (
        "Step, latency",
        "Time in the tracker for one image, the device's work included; p50 is the median, 95 % of "
        "the images take at most p95. Latency is that from the image to its result.",
    ),
    "speed": (
        "Images per second",
        "Over the whole run: reading, decoding and writing included, comparing not.",
    ),
    "memory": ("Peak memory", "The most that was held at once, by the process or on the device."),
}

# By key: the name, empty where the key says it, and the term.
_LABELS: dict[str, tuple[str, str]] = {
    # of the trajectory
    "ate_rmse_m": ("ATE", "ate"),
    "guess_ate_rmse_m": ("ATE of a camera that never moves", "guess"),
    "scale": ("", "fitted_scale"),
    "ate_mean_m": ("mean of the distances", ""),
    "ate_median_m": ("their median", ""),
    "ate_max_m": ("the largest", ""),
    "rpe_trans_rmse_m": ("RPE, translation", "rpe"),
    "rpe_rot_rmse_deg": ("RPE, rotation", "rpe"),
    "reason": ("why there is none", ""),
    "motion": ("Motion over lengths of the path", "motion"),
    "pairs": ("pairs of images", ""),
    "trans_percent": ("translation", "motion"),
    "rot_deg_per_m": ("rotation", "motion"),
    "scale_drift": ("scale drift (the path is too short)", "scale_drift"),
    "scale_drift.window_m": ("scale drift, length of a piece", "scale_drift"),
    "scale_drift.last_by_first": ("", "scale_drift"),
    "scale_drift.log_spread": ("scale drift, spread of logarithms", "scale_drift"),
    "revisits": ("revisits (no place is seen again)", "revisit"),
    "revisits.path_between_m": ("revisits, path between, median", "revisit"),
    "path_length_m": ("length of the true path", ""),
    "poses": ("poses compared", ""),
    # of the depth
    "abs_rel": ("AbsRel", "abs_rel"),
    "sq_rel": ("SqRel", "abs_rel"),
    "rmse_m": ("RMSE", "rmse"),
    "log_rmse": ("RMSE of the logarithm", "rmse"),
    "delta_1_25": ("δ < 1.25", "delta"),
    "delta_1_25_2": ("δ < 1.25²", "delta"),
    "delta_1_25_3": ("δ < 1.25³", "delta"),
    "shift_m": ("", "fitted_scale"),
    "guess_m": ("constant guess", "guess"),
    "pixels": ("pixels compared", ""),
    "pixels_not_finite": ("pixels left out, prediction no number", ""),
    # of the map
    "alignment": ("alignment of the poses", "alignment"),
    "accuracy_m": ("", "surface"),
    "completeness_m": ("", "surface"),
    "chamfer_m": ("Chamfer distance", "surface"),
    "normal_consistency": ("", "normals"),
    "scores": ("Scores within a distance", "f_score"),
    "precision": ("", "f_score"),
    "recall": ("", "f_score"),
    "f_score": ("F-score", "f_score"),
    "off_surface": ("off the surface", "off_surface"),
    "doubled": ("", "off_surface"),
    "map_points": ("points of the map", ""),
    "surface_points": ("points of the true surface", ""),
    # of loops
    "asked": ("questions asked", "loops"),
    "accepted": ("answers accepted", "loops"),
    "gated": ("of these gated", "loops"),
    "corrections": ("corrections of the map", ""),
    "last_correction_m": ("the last one moved the camera by", ""),
    "believed": ("loops believed", "loops"),
    "believed_right": ("of these right", "loops"),
    "believed_wrong": ("of these wrong", "loops"),
    "thrown_out": ("loops thrown out by the solver", "loops"),
    "thrown_out_right": ("of these right", "loops"),
    "thrown_out_wrong": ("of these wrong", "loops"),
    # of the run
    "images_before_reset": ("images before a reset, not compared", ""),
    "images_lost": ("of these lost", "state"),
    "images_replaced": ("images replaced by newer ones", ""),
    "segments": ("", "segment"),
    "images_per_second": ("images per second", "speed"),
    "peak_memory_bytes": ("", "memory"),
    "peak_device_memory_bytes": ("peak memory of the device", "memory"),
}
_TERMS_OF = {"revisits.": "revisit", "step_ms_": "step", "latency_ms_": "step"}  # by beginnings
_WORDS = {"trans": "translation", "rot": "rotation", "rmse": "RMSE", "sim3": "after Sim(3),"}

# Columns of tables: alignments of trajectories and of depth.
_COLUMNS: dict[str, Label] = {
    "none": Label("as it is", "alignment"),
    "metric": Label("as it is", "alignment"),
    "scale": Label("scale", "alignment"),
    "se3": Label("SE(3)", "alignment"),
    "sim3": Label("Sim(3)", "alignment"),
    "scale_shift": Label("scale and shift", "alignment"),
    "guess": Label("constant guess", "guess"),
}

# Shares from 0 to 1 that are shown in per cent.
_SHARES = ("delta_1_25", "delta_1_25_2", "delta_1_25_3", "precision", "recall", "f_score")
_PERCENT = frozenset((*_SHARES, "off_surface", "doubled"))

# By the endings of names; the first that fits.
_UNITS = {
    "_deg_per_m": "°/m",
    "_m_per_m": "m/m",
    "_per_second": "1/s",
    "_bytes": "MiB",
    "_ms": "ms",
    **{f"_ms_{quantile}": "ms" for quantile in ("p50", "p95", "p99")},
    "_mm": "mm",
    "_m": "m",
    "_deg": "°",
    "_s": "s",
    "_hz": "1/s",
    "_percent": "%",
}


def label_of(key: str) -> Label:
    """Return how a figure is called: the words of its key where nothing better is known."""
    text, term = _LABELS.get(key, ("", ""))
    term = term or next((t for start, t in _TERMS_OF.items() if key.startswith(start)), "")
    if not text:
        ending = next((e for e in _UNITS if key.endswith(e)), "")
        words = f"{key.removesuffix(ending)}{ending.partition('_ms')[2]}"
        words = words.replace("_p", ", p") if ending.startswith("_ms_") else words
        text = " ".join(_WORDS.get(w, w) for w in words.replace(".", ",_").split("_"))
    return Label(text, term)


def column_of(key: str) -> Label:
    """Return how a column is called."""
    return _COLUMNS.get(key) or Label(key.replace("_", " "))


def unit_of(key: str) -> str:
    """Return the unit in which `shown` gives a figure, empty if it has none."""
    if key in _PERCENT:
        return "%"
    return next((unit for ending, unit in _UNITS.items() if key.endswith(ending)), "")


def number(value: float) -> str:
    """Return a number with three digits that count, or all of its whole part; NaN is a dash."""
    if not math.isfinite(value):
        return NONE
    if value == 0 or abs(value) >= 0.5 * 10.0**-_MOST_DECIMALS:
        decimals = _DIGITS - 1 - math.floor(math.log10(abs(value))) if value else 0
        text = f"{value:,.{min(max(decimals, 0), _MOST_DECIMALS)}f}"
        return text.replace(",", _THIN_SPACE).replace("-", "−")
    return f"{value:.1e}".replace("-", "−")


def shown(key: str, value: Any) -> str:
    """Return a figure in the unit `unit_of(key)`; what is not there is a dash."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return " ".join(shown(key, entry) for entry in value)
    if not isinstance(value, (int, float)):
        return str(value)
    unit = unit_of(key)
    if isinstance(value, int) and unit not in _FACTORS:
        return f"{value:,}".replace(",", _THIN_SPACE).replace("-", "−")
    scaled = float(value) * (1 if key.endswith("_percent") else _FACTORS.get(unit, 1))
    return f"{scaled:.1f}" if unit == "%" else number(scaled)
