# SPDX-License-Identifier: Apache-2.0
"""The kinds of files that several data sets share: matrices as text, depth as 16-bit PNG."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ttt3r_ros.geometry import Intrinsics, Transform
from ttt3r_ros.recordings.datasets.layout import Depth, StampedPoses
from ttt3r_ros.types import FrameRejected, SourceError

NO_POSE = np.full((4, 4), np.nan)


def png_depth(units_per_metre: float, unknown: tuple[int, ...] = (0,)) -> Callable[[Path], Depth]:
    """Return what reads 16-bit gray PNG files as metres, NaN where the value is `unknown`."""

    def read(path: Path) -> Depth:
        try:
            with Image.open(path) as file:
                if not file.mode.startswith("I"):
                    raise FrameRejected(f"{path.name}: depth is gray of 16 bits, got {file.mode}")
                values = np.asarray(file).astype(np.uint16)
        except FrameRejected:
            raise
        except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:
            raise FrameRejected(f"{path.name}: not a whole image: {error}") from error
        metres = values.astype(np.float32) / np.float32(units_per_metre)
        metres[np.isin(values, unknown)] = np.nan
        return metres

    return read


def matrix(path: Path, rows: int = 4, columns: int = 4) -> npt.NDArray[np.float64]:
    """Return the numbers of a text file, [rows, columns].

    Raises:
        SourceError: the file is missing, or not so many numbers.
    """
    try:
        values = np.array(path.read_text(encoding="utf-8").split(), np.float64)
        return values.reshape(rows, columns)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: not {rows} x {columns} numbers: {error}") from error


def pose_files(files: list[tuple[int, Path]]) -> Callable[[], StampedPoses]:
    """Return what reads poses from files with 4 x 4 numbers, camera to world."""

    def read() -> StampedPoses:
        return [(stamp_ns, _pose(path)) for stamp_ns, path in files]

    return read


def _pose(path: Path) -> Transform:
    try:
        return matrix(path)
    except SourceError:
        return NO_POSE


def intrinsics_for(image: Path, K: npt.NDArray[np.float64]) -> Intrinsics | None:
    """Return a camera matrix [3, 3] with the size of an image; None if either cannot be used."""
    try:
        with Image.open(image) as file:
            width, height = file.size
        return Intrinsics(K[0, 0], K[1, 1], K[0, 2], K[1, 2], width, height)
    except (OSError, SyntaxError, ValueError):
        return None
