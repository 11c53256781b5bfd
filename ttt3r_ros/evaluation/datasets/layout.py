# SPDX-License-Identifier: Apache-2.0
"""What a format says about a data set's folders. The files themselves are read in `folder`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Intrinsics, Transform

Depth = npt.NDArray[np.float32]  # [H, W] metres, NaN where unknown
StampedPoses = list[tuple[int, Transform]]
"""Nanoseconds and camera to world, of the optical frame; NaN where a pose is missing or broken."""

_LEVELS = 4  # below the folder given, as in KITTI's <root>/val/<drive>/proj_depth


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One colour image."""

    stamp_ns: int
    path: Path
    intrinsics: Intrinsics | None = None  # None: unknown


def no_poses() -> StampedPoses:
    """Return none."""
    return []


@dataclass(frozen=True, slots=True)
class SequenceFiles:
    """The files of one sequence.

    Depth and poses belong to the image whose stamp is nearest, if it differs by at most
    `max_difference_s`. What is listed may turn out to be missing or broken.
    """

    images: list[ImageFile]  # in order
    depth: list[tuple[int, Path]]  # stamps in nanoseconds, in any order
    read_depth: Callable[[Path], Depth]  # raises FrameRejected
    read_poses: Callable[[], StampedPoses]  # in any order
    pose_source: str  # in words; empty if there are no poses
    depth_source: str  # in words; empty if there is no depth
    max_difference_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may say about a sequence."""

    rate_hz: float | None  # images per second where no file says; None: as the data set has them
    max_difference_s: float  # where depth and poses have stamps of their own


@dataclass(frozen=True, slots=True)
class Format:
    """A data set's layout."""

    name: str
    looked_for: str  # in words
    is_sequence: Callable[[Path], bool]  # whether a folder is one
    read: Callable[[Path, Options], SequenceFiles]  # raises SourceError
    is_usual: Callable[[Path], bool]  # whether a sequence is taken if none is named
    name_of: Callable[[Path], str]  # of a sequence, mostly `folder_name`

    def detect(self, path: Path) -> bool:
        """Return whether there is a sequence at or below a path."""
        return bool(self.sequences(path))

    def sequences(self, path: Path) -> list[Path]:
        """Return the folders of all sequences at or below a path, in order."""
        return find_folders(path, self.is_sequence)


def folder_name(path: Path) -> str:
    """Return the name of a sequence's folder."""
    return path.resolve().name


def every_sequence(path: Path) -> bool:
    """Take all."""
    return True


def find_folders(path: Path, wanted: Callable[[Path], bool], levels: int = _LEVELS) -> list[Path]:
    """Return the folders that are wanted, at a path or below; there is nothing within these."""
    if wanted(path):
        return [path]
    if levels == 0:
        return []
    with os.scandir(path) as entries:  # which asks the disk less than `Path.is_dir`
        below = sorted(entry.name for entry in entries if entry.is_dir())
    return [found for name in below for found in find_folders(path / name, wanted, levels - 1)]


def numbered(files: Iterable[Path], rate_hz: float) -> list[tuple[int, Path]]:
    """Return files in the order of the numbers in their names, with stamps at `rate_hz`.

    A missing number is a gap in time. Files without a number are left out.
    """
    places = []
    for file in files:
        digits = "".join(filter(str.isdigit, file.name.partition(".")[0]))
        if digits:
            places.append((int(digits), file))
    return [(round(place * 1e9 / rate_hz), file) for place, file in sorted(places)]
