# SPDX-License-Identifier: Apache-2.0
"""The files of a report: `series.npz`, `html` and `md` beside `json`.

`read_sequence` gives back what `write_sequence` was given, so that a report can be made again
without another run.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ttt3r_ros.evaluation.report.data import Comparison, DepthExample, SequenceReport, Series
from ttt3r_ros.evaluation.report.render import (
    comparison_page,
    comparison_text,
    sequence_page,
    sequence_text,
)
from ttt3r_ros.io.atomic import atomic_write
from ttt3r_ros.types import EvaluationError

METRICS, SERIES, PAGE, TEXT = "report.json", "series.npz", "report.html", "report.md"


def write_sequence(report: SequenceReport, folder: Path) -> None:
    """Write everything but the metrics, `json`, which its maker writes.

    Args:
        report: of one sequence.
        folder: where to; it exists.

    Raises:
        OSError: a file cannot be written.
    """
    arrays = _arrays(report)
    with atomic_write(folder / SERIES) as path, path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    _write(folder / PAGE, sequence_page(report))
    _write(folder / TEXT, sequence_text(report))


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write the report over several sequences.

    Args:
        comparison: whose results' folders are as seen from `folder`.
        folder: where to; it exists.

    Raises:
        OSError: a file cannot be written.
    """
    _write(folder / PAGE, comparison_page(comparison))
    _write(folder / TEXT, comparison_text(comparison))


def read_sequence(folder: Path) -> SequenceReport:
    """Read what `write_sequence` was given from `json` and `series.npz`.

    Raises:
        EvaluationError: one of the files is missing or damaged.
    """
    try:
        metrics = json.loads((folder / METRICS).read_text("utf-8"))
        with np.load(folder / SERIES, allow_pickle=False) as arrays:
            return _report(metrics, dict(arrays))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise EvaluationError(f"{folder}: no report that can be read: {error}") from error


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _arrays(report: SequenceReport) -> dict[str, npt.NDArray[Any]]:
    about: dict[str, Any] = {"name": report.name, "configuration": report.configuration}
    about["stamps_ns"] = [view.stamp_ns for view in report.views]
    arrays: dict[str, npt.NDArray[Any]] = {}
    if report.series:
        series = asdict(report.series)
        about["series"] = {key: series.pop(key) for key in ("alignment", "up")}
        arrays |= {f"series_{key}": values for key, values in series.items()}
    for number, view in enumerate(report.views):
        arrays[f"rgb_{number}"] = view.rgb
        arrays[f"depth_m_{number}"] = view.depth_m
        if view.true_depth_m is not None:
            arrays[f"true_depth_m_{number}"] = view.true_depth_m
    if report.map_picture is not None:
        arrays["map_picture"] = report.map_picture
    return {**arrays, "about": np.array(json.dumps(about))}


def _report(metrics: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> SequenceReport:
    about = json.loads(str(arrays["about"]))
    series = None
    if "series" in about:
        columns = {
            key.removeprefix("series_"): values
            for key, values in arrays.items()
            if key.startswith("series_")
        }
        series = Series(
            **columns, alignment=about["series"]["alignment"], up=tuple(about["series"]["up"])
        )
    views = [
        DepthExample(
            stamp_ns,
            arrays[f"rgb_{number}"],
            arrays[f"depth_m_{number}"],
            arrays.get(f"true_depth_m_{number}"),
        )
        for number, stamp_ns in enumerate(about["stamps_ns"])
    ]
    return SequenceReport(
        about["name"], about["configuration"], metrics, series, views, arrays.get("map_picture")
    )
