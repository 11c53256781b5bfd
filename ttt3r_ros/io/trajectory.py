# SPDX-License-Identifier: Apache-2.0
"""Trajectories as TUM files: a line "stamp tx ty tz qx qy qz qw" per pose, in s and m.

Stamps are nanoseconds in memory and go through integers only: seconds as a float would lose the
last two digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Transform, quaternion, transform_from_quaternion
from ttt3r_ros.types import NS_PER_S

if TYPE_CHECKING:
    from typing_extensions import Self


PoseT = TypeVar("PoseT")


class TumWriter:
    """Writes poses as they come; a context manager.

    Each line reaches the file at once, so that a run that is killed keeps what it had.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("w", buffering=1, encoding="ascii", newline="\n")  # noqa: SIM115

    def append(self, stamp_ns: int, T: Transform) -> None:
        """Write one pose, float64 [4, 4], with metres to 9 decimals.

        Raises:
            ValueError: the stamp is negative, or the pose is not finite [4, 4].
        """
        if stamp_ns < 0:
            raise ValueError(f"stamp_ns: must not be negative, got {stamp_ns}")
        if T.shape != (4, 4) or not np.isfinite(T).all():
            raise ValueError(f"T: expected finite numbers [4, 4], got {T.tolist()}")
        seconds, nanoseconds = divmod(int(stamp_ns), NS_PER_S)
        w, x, y, z = quaternion(T)
        rounded = (round(value, 9) + 0.0 for value in (*T[:3, 3], x, y, z, w))  # no "-0"
        numbers = " ".join(f"{value:.9f}" for value in rounded)
        self._file.write(f"{seconds}.{nanoseconds:09d} {numbers}\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class BoundedTrajectory:
    """Poses with their stamps, a bounded number of them, spread evenly over the images."""

    def __init__(self, max_poses: int) -> None:
        """Start empty.

        Raises:
            ValueError: `max_poses` is below 2.
        """
        if max_poses < 2:
            raise ValueError(f"max_poses: must be at least 2, got {max_poses}")
        self._max_poses = max_poses
        self._every = 1  # so many images to a pose
        self._images = 0
        self._poses: list[tuple[int, Transform]] = []
        self._segments: list[int] = []

    def append(self, stamp_ns: int, T: Transform, segment: int = -1) -> None:
        """Take the pose [4, 4] of the next image; every second one goes whenever it is full."""
        if self._images % self._every == 0:
            if len(self._poses) == self._max_poses:
                del self._poses[1::2], self._segments[1::2]
                self._every *= 2
            if self._images % self._every == 0:
                self._poses.append((stamp_ns, T))
                self._segments.append(segment)
        self._images += 1

    def move(self, T_by_segment: Mapping[int, Transform], numbers: Mapping[int, int]) -> None:
        """Move the poses of segments, [4, 4] on their left, then give segments other numbers."""
        for i, segment in enumerate(self._segments):
            if segment in T_by_segment:  # others stay the same objects: messages of them are kept
                stamp_ns, T = self._poses[i]
                self._poses[i] = stamp_ns, T_by_segment[segment] @ T
            self._segments[i] = numbers.get(segment, segment)

    def segments(self) -> list[int]:
        """Return a copy: the segment of each of the poses."""
        return list(self._segments)

    def poses(self) -> list[tuple[int, Transform]]:
        """Return a copy: stamps in nanoseconds and poses, in order."""
        return list(self._poses)


def subsample(poses: Sequence[PoseT], max_poses: int) -> list[PoseT]:
    """Return at most so many poses, evenly spread, and the last one whatever its place.

    Every second, fourth, eighth, ... stays: those of a longer trajectory are among those of a
    shorter one.

    Raises:
        ValueError: `max_poses` is below 2.
    """
    if max_poses < 2:
        raise ValueError(f"max_poses: must be at least 2, got {max_poses}")
    before = len(poses) - 1
    step = 1
    while before > step * (max_poses - 1):
        step *= 2
    return [*poses[:-1:step], *poses[-1:]]


def read_tum(path: str | Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Read a TUM file.

    Returns:
        Stamps in nanoseconds, int64 [N], and poses, float64 [N, 4, 4].

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not eight numbers with a quaternion that is not zero; the message
            names the line.
    """
    stamps, poses = [], []
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            stamp, *values = line.split()
            tx, ty, tz, qx, qy, qz, qw = (float(value) for value in values)
            pose = transform_from_quaternion((tx, ty, tz), (qw, qx, qy, qz))
            if not (np.isfinite(pose).all() and any((qx, qy, qz, qw))):
                raise ValueError
            stamps.append(int(Decimal(stamp) * NS_PER_S))
        except (ValueError, InvalidOperation, OverflowError):
            raise ValueError(
                f"{path}, line {number}: expected stamp tx ty tz qx qy qz qw, got {line!r}"
            ) from None
        poses.append(pose)
    return np.array(stamps, np.int64), np.array(poses, np.float64).reshape(-1, 4, 4)
