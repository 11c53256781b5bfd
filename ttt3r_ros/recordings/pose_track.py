# SPDX-License-Identifier: Apache-2.0
"""True poses with their stamps, and which of them belong to images."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ttt3r_ros.geometry import Transform, orthonormal
from ttt3r_ros.recordings.recording import Poses, Stamps

MAX_DIFFERENCE_S = 0.01
"""Stamps that differ by more are of different moments; as evo has it by default."""

_NO_ROTATION = 1e-2  # what R Rᵀ differs from the identity by, in any entry

_log = logging.getLogger(__name__)


class PoseTrack:
    """Poses of a camera, nearest in time to images.

    Attributes:
        source: where they come from, in words.
        stamps_ns: of all poses, sorted.
    """

    def __init__(
        self,
        source: str,
        stamped_poses: Iterable[tuple[int, Transform]],
        max_difference_s: float = MAX_DIFFERENCE_S,
    ) -> None:
        """Sort poses by stamp, and leave out what is none.

        Args:
            source: where they come from, in words.
            stamped_poses: stamps in nanoseconds and camera to world [4, 4], in any order.
            max_difference_s: between the stamps of an image and its pose.
        """
        self.source = source
        given = list(stamped_poses)
        self._track = sorted(
            ((stamp_ns, orthonormal(T)) for stamp_ns, T in given if is_rigid(T)),
            key=lambda entry: entry[0],
        )
        self._given = len(given)
        self.stamps_ns: Stamps = np.array([stamp_ns for stamp_ns, _ in self._track], np.int64)
        self._max_difference_ns = round(1e9 * max_difference_s)

    def __len__(self) -> int:
        return len(self._track)

    def warn_of_left_out(self) -> None:
        """Say how many were left out, if any."""
        if self._given > len(self):
            _log.warning(
                "%s: %d of %d poses are missing, not finite or no rotation; left out",
                self.source,
                self._given - len(self),
                self._given,
            )

    def near(self, stamps_ns: Stamps) -> Poses:
        """Return the poses nearest to stamps, as `Truth.poses` does."""
        there, near = nearest(stamps_ns, self.stamps_ns, self._max_difference_ns)
        if len(stamps_ns) and not len(there):
            warn_of_other_times(self.source, self.stamps_ns, stamps_ns)
        return there.tolist(), [self._track[i][1] for i in near]


def is_rigid(T: Transform) -> bool:
    """Return whether a matrix [4, 4] is a rotation, but for its digits, with a translation."""
    if not np.isfinite(T).all():
        return False
    R = T[:3, :3]
    return bool(np.abs(R @ R.T - np.eye(3)).max() < _NO_ROTATION and np.linalg.det(R) > 0)


def nearest(
    stamps_ns: Stamps, true_stamps_ns: Stamps, max_difference_ns: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return places [K] in `stamps_ns`, and those [K] of the nearest in `true_stamps_ns`, sorted.

    Those farther away than `max_difference_ns` are left out.
    """
    if not len(true_stamps_ns):
        none = np.empty(0, np.int64)
        return none, none
    after = np.searchsorted(true_stamps_ns, stamps_ns).clip(max=len(true_stamps_ns) - 1)
    before = (after - 1).clip(min=0)
    to_before, to_after = (np.abs(true_stamps_ns[i] - stamps_ns) for i in (before, after))
    best = np.where(to_before <= to_after, before, after).astype(np.int64)
    there = np.flatnonzero(np.minimum(to_before, to_after) <= max_difference_ns)
    return there, best[there]


def warn_of_other_times(what: str, true_stamps_ns: Stamps, stamps_ns: Stamps) -> None:
    """Say that no image has a truth, and what is of when."""
    _log.warning(
        "%s: nothing at the times of the images: it is from %s, they are from %s",
        what,
        time_range(true_stamps_ns),
        time_range(stamps_ns),
    )


def time_range(stamps_ns: Stamps) -> str:
    """Return first and last of stamps in words."""
    if not len(stamps_ns):
        return "no time at all"
    return f"{stamps_ns.min() / 1e9:.3f} s to {stamps_ns.max() / 1e9:.3f} s"
