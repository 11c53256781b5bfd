# SPDX-License-Identifier: Apache-2.0
"""MPI Sintel with its depth and camera motion.

http://sintel.is.tue.mpg.de/depth: training/final/<sequence>/frame_XXXX.png (1024x436),
training/depth/<sequence>/frame_XXXX.dpt and training/camdata_left/<sequence>/frame_XXXX.cam.
Both kinds begin with the float 202021.25. A .dpt file goes on with width and height (int32) and
the depth along the optical axis (float32, row by row); a .cam file with the intrinsic matrix M
(3 x 3) and the extrinsic one N (3 x 4), float64, x = M N X for X in the world. All numbers are
little-endian. The film has 24 images per second. Depth of the sky is very large; it is left as it
is.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Transform, inverse, transform
from ttt3r_ros.recordings.datasets.files import NO_POSE, intrinsics_for
from ttt3r_ros.recordings.datasets.layout import (
    Depth,
    Format,
    ImageFile,
    Options,
    SequenceFiles,
    StampedPoses,
    folder_name,
    numbered,
)
from ttt3r_ros.types import FrameRejected

_RATE_HZ = 24.0
_TAG = np.float32(202021.25)
_MAX_PIXELS = 100_000_000
_PASSES = ("final", "clean")


def is_sequence(path: Path) -> bool:
    """Return whether a folder is one of a pass, with depth or cameras beside that."""
    return (
        path.parent.name in _PASSES
        and any(
            folder.is_dir() for folder in (_beside(path, "depth"), _beside(path, "camdata_left"))
        )
        and next(path.glob("frame_*.png"), None) is not None
    )


def is_usual(path: Path) -> bool:
    """Return whether a sequence is of the final pass."""
    return path.parent.name == _PASSES[0]


def read(path: Path, options: Options) -> SequenceFiles:
    """List a sequence."""
    images = numbered(path.glob("frame_*.png"), options.rate_hz or _RATE_HZ)

    def beside(folder: str, suffix: str) -> list[tuple[int, Path]]:
        there = _beside(path, folder)
        if not there.is_dir():
            return []
        return [(stamp, there / f"{file.stem}{suffix}") for stamp, file in images]

    depth, cameras = beside("depth", ".dpt"), beside("camdata_left", ".cam")

    def poses() -> StampedPoses:
        return [(stamp_ns, _pose(file)) for stamp_ns, file in cameras]

    lenses = {stamp_ns: _camera(file) for stamp_ns, file in cameras}
    return SequenceFiles(
        images=[
            ImageFile(stamp_ns, file, intrinsics_for(file, camera[0]) if camera else None)
            for stamp_ns, file in images
            for camera in (lenses.get(stamp_ns),)
        ],
        depth=depth,
        read_depth=read_depth,
        read_poses=poses,
        pose_source="camdata_left/*.cam" if cameras else "",
        depth_source="depth/*.dpt" if depth else "",
    )


def read_depth(path: Path) -> Depth:
    """Return the depth of a .dpt file.

    Raises:
        FrameRejected: it cannot be read, or is none.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FrameRejected(f"{path.name}: {error}") from error
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != _TAG:
        raise FrameRejected(f"{path.name}: not a depth file: it does not begin with {_TAG}")
    width, height = (int(n) for n in np.frombuffer(data, "<i4", 2, 4))
    if (
        min(width, height) < 1
        or width * height > _MAX_PIXELS
        or len(data) < 12 + 4 * width * height
    ):
        raise FrameRejected(f"{path.name}: {len(data)} bytes are no {width}x{height} depths")
    depth = np.frombuffer(data, "<f4", width * height, 12).reshape(height, width)
    metres: Depth = depth.astype(np.float32)
    metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    return metres


def _beside(path: Path, folder: str) -> Path:
    return path.parent.parent / folder / path.name


def _camera(path: Path) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Return M [3, 3] and N [3, 4]; None if the file is none."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) < 172 or np.frombuffer(data, "<f4", 1)[0] != _TAG:
        return None
    numbers = np.frombuffer(data, "<f8", 21, 4).astype(np.float64)
    return numbers[:9].reshape(3, 3), numbers[9:].reshape(3, 4)


def _pose(path: Path) -> Transform:
    camera = _camera(path)
    if camera is None:
        return NO_POSE
    N = camera[1]
    return inverse(transform(N[:, :3], N[:, 3]))


FORMAT = Format(
    "sintel",
    "final/<sequence>/frame_*.png with depth/ or camdata_left/ beside final/",
    is_sequence,
    read,
    is_usual,
    folder_name,
)
