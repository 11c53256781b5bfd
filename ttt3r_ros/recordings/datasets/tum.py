# SPDX-License-Identifier: Apache-2.0
"""The RGB-D benchmark of TU Munich, and whatever else has its files.

https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats: rgb.txt and depth.txt list
"timestamp filename"; groundtruth.txt "timestamp tx ty tz qx qy qz qw", position and orientation
of the colour camera's optical centre in the world of the motion capture system. Colour images are
8-bit PNG of 640x480, depth images are registered to them pixel by pixel, 16-bit PNG, 5000 for one
metre, 0 is unknown. Stamps differ from file to file, so that they have to be associated.

Intrinsics: the description recommends fx = fy = 525, cx = 319.5, cy = 239.5 without undistortion
for the registered images of all sequences. Those of freiburg3 are undistorted already and have
535.4, 539.2, 320.1, 247.6 by its table.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from ttt3r_ros.geometry import Intrinsics, Transform, transform_from_quaternion
from ttt3r_ros.recordings.datasets.files import NO_POSE, png_depth
from ttt3r_ros.recordings.datasets.layout import (
    Format,
    ImageFile,
    Options,
    SequenceFiles,
    StampedPoses,
    every_sequence,
    folder_name,
    no_poses,
)
from ttt3r_ros.types import NS_PER_S, SourceError

IMAGES, DEPTH, POSES = "rgb.txt", "depth.txt", "groundtruth.txt"
BONN = "rgbd_bonn_"  # how the folders begin that `bonn` reads
_MOST_S = 9_000_000_000  # whose nanoseconds have 63 bits
_LENS = Intrinsics(525.0, 525.0, 319.5, 239.5, 640, 480)
_LENS_FREIBURG3 = Intrinsics(535.4, 539.2, 320.1, 247.6, 640, 480)


def is_sequence(path: Path) -> bool:
    """Return whether a folder has the list of images, and is none of Bonn's."""
    return (path / IMAGES).is_file() and not path.name.startswith(BONN)


def read(path: Path, options: Options) -> SequenceFiles:
    """List a sequence."""
    lens = _LENS_FREIBURG3 if "freiburg3" in path.name else _LENS
    return listed(path, options, lens)


def listed(path: Path, options: Options, lens: Intrinsics) -> SequenceFiles:
    """Return what the lists name.

    Raises:
        SourceError: the list of images cannot be read.
    """
    depth = _files(path / DEPTH) if (path / DEPTH).is_file() else []
    has_poses = (path / POSES).is_file()
    return SequenceFiles(
        images=[ImageFile(stamp_ns, file, lens) for stamp_ns, file in _files(path / IMAGES)],
        depth=depth,
        read_depth=png_depth(5000.0),
        read_poses=(lambda: poses(path / POSES)) if has_poses else no_poses,
        pose_source=POSES if has_poses else "",
        depth_source=DEPTH if depth else "",
        max_difference_s=options.max_difference_s,
    )


def poses(path: Path) -> StampedPoses:
    """Read poses; lines that are none get NaN, those without a stamp are left out."""
    result = []
    for line in _lines(path):
        words = line.replace(",", " ").split()
        if words and (stamp_ns := _nanoseconds(words[0])) is not None:
            result.append((stamp_ns, _pose(words[1:])))
    return result


def _pose(values: list[str]) -> Transform:
    try:
        tx, ty, tz, qx, qy, qz, qw = (float(value) for value in values)
    except ValueError:
        return NO_POSE
    if not (any((qx, qy, qz, qw)) and np.isfinite((tx, ty, tz, qx, qy, qz, qw)).all()):
        return NO_POSE
    return transform_from_quaternion((tx, ty, tz), (qw, qx, qy, qz))


def _files(path: Path) -> list[tuple[int, Path]]:
    """Return stamps and files of a list, in its order; lines that are neither are left out."""
    result = []
    for line in _lines(path):
        stamp, _, name = line.partition(" ")
        if (stamp_ns := _nanoseconds(stamp)) is not None and name.strip():
            result.append((stamp_ns, path.parent / name.strip()))
    return result


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def _nanoseconds(seconds: str) -> int | None:
    try:
        number = Decimal(seconds)
        return int(number * NS_PER_S) if abs(number) < _MOST_S else None
    except InvalidOperation:
        return None


FORMAT = Format(
    "tum", f"{IMAGES}, {DEPTH}, {POSES}", is_sequence, read, every_sequence, folder_name
)
