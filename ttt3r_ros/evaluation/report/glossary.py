# SPDX-License-Identifier: Apache-2.0
"""The words of a report: what a figure is called, its unit, and what it means.

Keys that are not here are shown all the same, under their own name; units are in the names.
"""

from __future__ import annotations

from typing import NamedTuple


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

LABELS: dict[str, Label] = {
    # of the trajectory
    "ate_rmse_m": Label("ATE", "ate"),
    "guess_ate_rmse_m": Label("ATE of a camera that never moves", "guess"),
    "scale": Label("scale", "fitted_scale"),
    "ate_mean_m": Label("mean of the distances"),
    "ate_median_m": Label("their median"),
    "ate_max_m": Label("the largest"),
    "rpe_trans_rmse_m": Label("RPE, translation", "rpe"),
    "rpe_rot_rmse_deg": Label("RPE, rotation", "rpe"),
    "reason": Label("why there is none"),
    "motion": Label("Motion over lengths of the path", "motion"),
    "pairs": Label("pairs of images"),
    "trans_percent": Label("translation", "motion"),
    "rot_deg_per_m": Label("rotation", "motion"),
    "scale_drift": Label("scale drift (the path is too short)", "scale_drift"),
    "scale_drift.window_m": Label("scale drift, length of a piece", "scale_drift"),
    "scale_drift.last_by_first": Label("scale drift, last by first", "scale_drift"),
    "scale_drift.log_spread": Label("scale drift, spread of logarithms", "scale_drift"),
    "revisits": Label("revisits (no place is seen again)", "revisit"),
    "revisits.images": Label("revisits, images", "revisit"),
    "revisits.visits": Label("revisits, visits", "revisit"),
    "revisits.path_between_m": Label("revisits, path between, median", "revisit"),
    "revisits.trans_median_m": Label("revisits, translation, median", "revisit"),
    "revisits.trans_rmse_m": Label("revisits, translation, RMSE", "revisit"),
    "revisits.trans_sim3_median_m": Label("revisits, translation after Sim(3), median", "revisit"),
    "revisits.trans_sim3_rmse_m": Label("revisits, translation after Sim(3), RMSE", "revisit"),
    "revisits.rot_median_deg": Label("revisits, rotation, median", "revisit"),
    "revisits.rot_rmse_deg": Label("revisits, rotation, RMSE", "revisit"),
    "path_length_m": Label("length of the true path"),
    "poses": Label("poses compared"),
    # of the depth
    "abs_rel": Label("AbsRel", "abs_rel"),
    "sq_rel": Label("SqRel", "abs_rel"),
    "rmse_m": Label("RMSE", "rmse"),
    "log_rmse": Label("RMSE of the logarithm", "rmse"),
    "delta_1_25": Label("δ < 1.25", "delta"),
    "delta_1_25_2": Label("δ < 1.25²", "delta"),
    "delta_1_25_3": Label("δ < 1.25³", "delta"),
    "shift_m": Label("shift", "fitted_scale"),
    "guess_m": Label("constant guess", "guess"),
    "pixels": Label("pixels compared"),
    "pixels_not_finite": Label("pixels left out, prediction no number"),
    # of the map
    "alignment": Label("alignment of the poses", "alignment"),
    "accuracy_m": Label("accuracy", "surface"),
    "completeness_m": Label("completeness", "surface"),
    "chamfer_m": Label("Chamfer distance", "surface"),
    "normal_consistency": Label("normal consistency", "normals"),
    "scores": Label("Scores within a distance", "f_score"),
    "precision": Label("precision", "f_score"),
    "recall": Label("recall", "f_score"),
    "f_score": Label("F-score", "f_score"),
    "off_surface": Label("off the surface", "off_surface"),
    "doubled": Label("doubled", "off_surface"),
    "map_points": Label("points of the map"),
    "surface_points": Label("points of the true surface"),
    # of the run
    "images": Label("images"),
    "images_before_reset": Label("images before a reset, not compared"),
    "images_lost": Label("of these lost", "state"),
    "images_rejected": Label("images rejected"),
    "images_received": Label("images received"),
    "images_replaced": Label("images replaced by newer ones"),
    "segments": Label("segments", "segment"),
    "images_per_second": Label("images per second", "speed"),
    "step_ms_p50": Label("step, p50", "step"),
    "step_ms_p95": Label("step, p95", "step"),
    "step_ms_p99": Label("step, p99", "step"),
    "latency_ms_p50": Label("latency, p50", "step"),
    "latency_ms_p95": Label("latency, p95", "step"),
    "latency_ms_p99": Label("latency, p99", "step"),
    "peak_memory_bytes": Label("peak memory", "memory"),
    "peak_device_memory_bytes": Label("peak memory of the device", "memory"),
}

# Columns of tables: alignments of trajectories and of depth.
COLUMNS: dict[str, Label] = {
    "none": Label("as it is", "alignment"),
    "metric": Label("as it is", "alignment"),
    "scale": Label("scale", "alignment"),
    "se3": Label("SE(3)", "alignment"),
    "sim3": Label("Sim(3)", "alignment"),
    "scale_shift": Label("scale and shift", "alignment"),
    "guess": Label("constant guess", "guess"),
}

_SHARES = ("delta_1_25", "delta_1_25_2", "delta_1_25_3", "precision", "recall", "f_score")
PERCENT = frozenset((*_SHARES, "off_surface", "doubled"))
"""Shares from 0 to 1 that are shown in per cent."""

# By the endings of names; the first that fits.
UNITS = (
    ("_deg_per_m", "°/m"),
    ("_m_per_m", "m/m"),
    ("_per_second", "1/s"),
    ("_bytes", "MiB"),
    ("_ms", "ms"),
    ("_ms_p50", "ms"),
    ("_ms_p95", "ms"),
    ("_ms_p99", "ms"),
    ("_mm", "mm"),
    ("_m", "m"),
    ("_deg", "°"),
    ("_s", "s"),
    ("_hz", "1/s"),
    ("_percent", "%"),
)


def label_of(key: str) -> Label:
    """Return how a figure is called: its own name where nothing better is known."""
    return LABELS.get(key) or Label(key.replace("_", " ").replace(".", ", "))


def column_of(key: str) -> Label:
    """Return how a column is called."""
    return COLUMNS.get(key) or Label(key.replace("_", " "))


def unit_of(key: str) -> str:
    """Return the unit in which `shown` gives a figure, empty if it has none."""
    if key in PERCENT:
        return "%"
    return next((unit for ending, unit in UNITS if key.endswith(ending)), "")
