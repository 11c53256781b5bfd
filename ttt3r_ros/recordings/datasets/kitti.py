# SPDX-License-Identifier: Apache-2.0
"""KITTI: the odometry benchmark with its poses, and the depth benchmark with its raw images.

https://www.cvlibs.net/datasets/kitti/eval_odometry.php: sequences/XX/image_2/NNNNNN.png (colour,
rectified; or image_0, gray), times.txt (seconds of each image), calib.txt ("P2:" and 12 numbers,
the projection from the rectified camera 0) and poses/XX.txt (3 x 4 numbers per image: the left
gray camera 0, x right, y down, z forward, in its first place). Sequences 11 to 21 have no poses.
The colour camera 2 stands beside camera 0; calib.txt says where, and poses are moved there.

https://www.cvlibs.net/datasets/kitti/eval_depth.php?benchmark=depth_prediction:
val/<drive>_sync/proj_depth/groundtruth/image_02/NNNNNNNNNN.png (16-bit, 256 for one metre, 0 is
unknown; not for the first and last five images), and of the raw data
<date>/<drive>_sync/image_02/data/NNNNNNNNNN.png with image_02/timestamps.txt, and
<date>/calib_cam_to_cam.txt ("P_rect_02:"). Images without depth are part of the sequence. Without
time files, 10 images per second.
"""

from __future__ import annotations

from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Transform, transform
from ttt3r_ros.recordings.datasets.files import NO_POSE, intrinsics_for, png_depth
from ttt3r_ros.recordings.datasets.layout import (
    Format,
    ImageFile,
    Options,
    SequenceFiles,
    StampedPoses,
    folder_name,
    no_poses,
)
from ttt3r_ros.types import NS_PER_S, SourceError

_RATE_HZ = 10.0
_CAMERAS = {"image_2": "P2", "image_0": "P0"}  # the first one there is taken
_TRUE_DEPTH = Path("proj_depth", "groundtruth", "image_02")
_IMAGE_SUFFIXES = (".png", ".jpg")


def is_sequence(path: Path) -> bool:
    """Return whether a folder is a sequence of the odometry or a drive of the depth benchmark."""
    return _is_drive(path) or (
        (path / "calib.txt").is_file() and any((path / name).is_dir() for name in _CAMERAS)
    )


def is_usual(path: Path) -> bool:
    """Return whether there are poses, or depth for validation."""
    return path.parent.name == "val" if _is_drive(path) else _poses_of(path).is_file()


def read(path: Path, options: Options) -> SequenceFiles:
    """List a sequence.

    Raises:
        SourceError: the raw images of a drive are not where they are looked for, or a file that
            describes the camera or the poses is not as published.
    """
    rate_hz = options.rate_hz or _RATE_HZ
    return _read_drive(path, rate_hz) if _is_drive(path) else _read_odometry(path, rate_hz)


def _is_drive(path: Path) -> bool:
    return (path / _TRUE_DEPTH).is_dir()


def _poses_of(path: Path) -> Path:
    return path.parent.parent / "poses" / f"{path.name}.txt"


def _read_odometry(path: Path, rate_hz: float) -> SequenceFiles:
    folder = next(name for name in _CAMERAS if (path / name).is_dir())
    P = _projection(path / "calib.txt", _CAMERAS[folder])
    images = _images(path / folder, rate_hz, _seconds(path / "times.txt"))
    lens = intrinsics_for(images[0][2], P[:, :3]) if images else None
    T_0_camera = transform(np.eye(3), -np.linalg.inv(P[:, :3]) @ P[:, 3])
    has_poses = _poses_of(path).is_file()

    def poses() -> StampedPoses:
        lines = _poses_of(path).read_text("utf-8", errors="replace").splitlines()
        return [
            (stamp_ns, _pose(lines[n]) @ T_0_camera if n < len(lines) else NO_POSE)
            for n, stamp_ns, _ in images
        ]

    return SequenceFiles(
        images=[ImageFile(stamp_ns, file, lens) for _, stamp_ns, file in images],
        depth=[],
        read_depth=png_depth(256.0),
        read_poses=poses if has_poses else no_poses,
        pose_source=f"poses/{path.name}.txt" if has_poses else "",
        depth_source="",
    )


def _read_drive(path: Path, rate_hz: float) -> SequenceFiles:
    raw = _raw_folder(path)
    times = _datetimes(raw / "image_02" / "timestamps.txt")
    images = _images(raw / "image_02" / "data", rate_hz, times)
    lens = None
    calibration = raw.parent / "calib_cam_to_cam.txt"
    if images and calibration.is_file():
        lens = intrinsics_for(images[0][2], _projection(calibration, "P_rect_02")[:, :3])
    stamps = {number: stamp_ns for number, stamp_ns, _ in images}
    depth = [
        (stamps[int(file.stem)], file)
        for file in sorted((path / _TRUE_DEPTH).glob("*.png"))
        if file.stem.isdecimal() and int(file.stem) in stamps
    ]
    return SequenceFiles(
        images=[ImageFile(stamp_ns, file, lens) for _, stamp_ns, file in images],
        depth=depth,
        read_depth=png_depth(256.0),
        read_poses=no_poses,
        pose_source="",
        depth_source=str(_TRUE_DEPTH),
    )


def _raw_folder(path: Path) -> Path:
    """Return the drive's folder of the raw data: the same one, or below one of those above."""
    date = path.name[:10]
    places = [path]
    for above in list(path.resolve().parents)[:4]:
        places += [above / date / path.name, above / "raw" / date / path.name]
    for place in places:
        if (place / "image_02" / "data").is_dir():
            return place
    raise SourceError(
        f"{path}: its raw images are not there; put {date}/{path.name}/image_02/data beside "
        f"{path.parent.name}/ or above"
    )


def _images(
    folder: Path, rate_hz: float, times_ns: list[int] | None
) -> list[tuple[int, int, Path]]:
    """Return number, stamp and file of the images; stamps at `rate_hz` if there are no times."""
    files = sorted(
        (int(file.stem), file)
        for file in folder.iterdir()
        if file.suffix in _IMAGE_SUFFIXES and file.stem.isdecimal()
    )
    if times_ns is None:
        return [(n, round(n * 1e9 / rate_hz), file) for n, file in files]
    if files and files[-1][0] >= len(times_ns):
        raise SourceError(f"{files[-1][1]}: has no time, there are {len(times_ns)} of them")
    return [(n, times_ns[n], file) for n, file in files]


def _seconds(path: Path) -> list[int] | None:
    if not path.is_file():
        return None
    try:
        return [int(Decimal(word) * NS_PER_S) for word in path.read_text("utf-8").split()]
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise SourceError(f"{path}: expected a number of seconds in each line") from error


def _datetimes(path: Path) -> list[int] | None:
    """Return nanoseconds of lines like 2011-09-26 13:02:25.964389445."""
    if not path.is_file():
        return None
    result = []
    for line in path.read_text("utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        whole, _, fraction = line.strip().partition(".")
        try:
            moment = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
            nanoseconds = int(fraction.ljust(9, "0")[:9])
        except ValueError as error:
            raise SourceError(f"{path}: expected date and time, got {line!r}") from error
        result.append(int(moment.timestamp()) * NS_PER_S + nanoseconds)
    return result


def _projection(path: Path, name: str) -> npt.NDArray[np.float64]:
    """Return the 3 x 4 numbers behind "name:" in a file."""
    try:
        lines = dict(line.split(":", 1) for line in path.read_text("utf-8").splitlines() if line)
        return np.array(lines[name].split(), np.float64).reshape(3, 4)
    except (OSError, KeyError, ValueError) as error:
        raise SourceError(f"{path}: no line '{name}:' with 12 numbers") from error


def _pose(line: str) -> Transform:
    try:
        T = np.eye(4)
        T[:3] = np.array(line.split(), np.float64).reshape(3, 4)
    except ValueError:
        return NO_POSE
    return T


FORMAT = Format(
    "kitti",
    "sequences/<number>/ with calib.txt and image_2/, <drive>/proj_depth/groundtruth/image_02/",
    is_sequence,
    read,
    is_usual,
    folder_name,
)
