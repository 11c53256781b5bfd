# SPDX-License-Identifier: Apache-2.0
"""What a format says about a data set's folders. The files themselves are read in `folder`."""

from __future__ import annotations

import logging
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

_log = logging.getLogger(__name__)

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


def folder_name(path: Path) -> str:
    """Return the name of a sequence's folder; of a link its own."""
    return path.name


def every_sequence(path: Path) -> bool:
    """Take all."""
    return True


def folders_at(path: Path, levels: int = _LEVELS) -> list[Path]:
    """Return a folder and all below it, each before its own and these in order.

    One that cannot be read is left out, with a warning.
    """
    try:
        os.stat(os.path.join(path, "."))  # which needs another permission than listing
        with os.scandir(path) as entries:  # which asks the disk less than `Path.is_dir`
            below = sorted(entry.name for entry in entries if _is_folder(entry))
    except OSError as error:
        _log.warning("%s: not looked into: %s", path, error)
        return []
    found = [path]
    if levels:
        for name in below:
            found += folders_at(path / name, levels - 1)
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # Of links, only the second says no where they lead nowhere or in a ring.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def outermost(folders: Iterable[Path], wanted: Callable[[Path], bool]) -> list[Path]:
    """Return those of `folders_at` that are wanted, but nothing within these."""
    found: list[Path] = []
    for folder in folders:
        if not (found and folder.is_relative_to(found[-1])) and wanted(folder):
            found.append(folder)
    return found


def numbered(files: Iterable[Path], rate_hz: float) -> list[tuple[int, Path]]:
    """Return files in the order of the numbers in their names, with stamps at `rate_hz`.

    A missing number is a gap in time. Files without a number are left out.
    """
    places = []
    for file in files:
        digits = "".join(filter(str.isdecimal, file.name.partition(".")[0]))
        if digits:
            places.append((int(digits), file))
    return [(round(place * 1e9 / rate_hz), file) for place, file in sorted(places)]
